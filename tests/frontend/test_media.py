"""Media: what comes out of files that the tests write themselves, out of broken ones, and out of real clips."""

import itertools
import os
import pathlib
import re
import socket
import struct
import wave as wav
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from emo_jax.frontend import media

Encode = Callable[..., pathlib.Path]
FILMS = [
  ('mp4', 'libx264', 'aac'),
  ('avi', 'mpeg4', 'libmp3lame'),
  ('flv', 'flv', 'libmp3lame'),
  ('mkv', 'mpeg4', 'aac'),
]


def steps(count: int) -> list[np.ndarray]:
  """Grey films whose level says which frame one sees: 20, 30, 40 ..."""
  return [np.full((48, 64, 3), 20 + 10 * i, np.uint8) for i in range(count)]


def tone(rate: int, seconds: float, *hertz: float) -> np.ndarray:
  """int16 [channels, samples]: a sine for each channel."""
  phase = 2 * np.pi * np.arange(round(rate * seconds)) / rate
  return np.stack([8000 * np.sin(f * phase) for f in hertz]).astype(np.int16)


def pitch(wave: np.ndarray, rate: int) -> float:
  """The frequency in Hz with the most energy."""
  return float(np.argmax(np.abs(np.fft.rfft(wave))) * rate / len(wave))


def heard(path: pathlib.Path) -> np.ndarray:
  return np.concatenate(list(media.sound(str(path))))


def seen(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  times, images = zip(*media.frames(str(path)), strict=True)
  return np.array(times), np.stack(images)


@pytest.mark.parametrize('fps', [25, 30])
@pytest.mark.parametrize(('container', 'picture', 'sound'), FILMS)
def test_a_film_gives_every_frame_in_order_with_its_time(
  encode: Encode, tmp_path: pathlib.Path, container: str, picture: str, sound: str, fps: int
) -> None:
  wave = tone(44100, 0.8, 440)
  path = encode(tmp_path / f'a.{container}', images=steps(20), picture=picture, fps=fps, wave=wave, sound=sound)
  assert media.probe(str(path)) == media.Streams(picture=True, sound=True, rate=44100)
  times, images = seen(path)
  assert images.shape == (20, 48, 64, 3) and images.dtype == np.uint8
  assert images.mean((1, 2, 3)) == pytest.approx(20 + 10 * np.arange(20), abs=4)
  assert times - times[0] == pytest.approx(np.arange(20) / fps, abs=1.1e-3)  # FLV and MKV count whole milliseconds
  assert abs(times[0]) < 0.05  # the encoders' first samples: the sound may start a little later than the picture
  sound_wave = heard(path)
  assert sound_wave.dtype == np.float32 and sound_wave.ndim == 1
  assert len(sound_wave) / 44100 == pytest.approx(0.8, abs=0.08)  # lossy codecs fill up their last block
  assert pitch(sound_wave, 44100) == pytest.approx(440, abs=3)


def test_colours_are_red_green_blue(encode: Encode, tmp_path: pathlib.Path) -> None:
  path = encode(tmp_path / 'a.mp4', images=[np.full((48, 64, 3), (220, 120, 30), np.uint8)] * 3)
  assert seen(path)[1].mean((0, 1, 2)) == pytest.approx([220, 120, 30], abs=6)


@pytest.mark.parametrize('fps', [15, 24, 50, 60])
def test_any_frame_rate_gives_its_times(encode: Encode, tmp_path: pathlib.Path, fps: int) -> None:
  times, images = seen(encode(tmp_path / 'a.mp4', images=steps(20), fps=fps))
  assert times == pytest.approx(np.arange(20) / fps)
  assert images.mean((1, 2, 3)) == pytest.approx(20 + 10 * np.arange(20), abs=4)


@pytest.mark.parametrize('rate', [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize(('ending', 'codec'), [('wav', 'pcm_s16le'), ('flac', 'flac')])
def test_lossless_sound_is_read_to_the_sample(
  encode: Encode, tmp_path: pathlib.Path, ending: str, codec: str, rate: int
) -> None:
  wave = np.random.default_rng(0).integers(-32768, 32768, (1, 12345)).astype(np.int16)
  path = encode(tmp_path / f'a.{ending}', wave=wave, sound=codec, rate=rate)
  assert media.probe(str(path)) == media.Streams(picture=False, sound=True, rate=rate)
  np.testing.assert_array_equal(heard(path), wave[0] / np.float32(32768))


@pytest.mark.parametrize(('ending', 'codec'), [('wav', 'pcm_s16le'), ('flac', 'flac')])
def test_of_two_channels_the_first_is_heard(encode: Encode, tmp_path: pathlib.Path, ending: str, codec: str) -> None:
  wave = np.random.default_rng(0).integers(-20000, 20000, (2, 9000)).astype(np.int16)
  path = encode(tmp_path / f'a.{ending}', wave=wave, sound=codec)
  np.testing.assert_array_equal(heard(path), wave[0] / np.float32(32768))


@pytest.mark.parametrize(('ending', 'codec'), [('mp3', 'libmp3lame'), ('mp4', 'aac')])
def test_of_two_lossy_channels_the_first_is_heard(
  encode: Encode, tmp_path: pathlib.Path, ending: str, codec: str
) -> None:
  path = encode(tmp_path / f'a.{ending}', wave=tone(44100, 1.0, 500, 2000), sound=codec)
  wave = heard(path)
  assert pitch(wave, 44100) == pytest.approx(500, abs=2)
  middle = wave[10000:30000]  # codecs pad both ends with silence
  assert np.sqrt(np.mean(middle**2)) == pytest.approx(8000 / 32768 / np.sqrt(2), rel=0.1)  # the mean of both: 0.7


def test_a_film_without_sound_and_a_sound_without_film(encode: Encode, tmp_path: pathlib.Path) -> None:
  silent = encode(tmp_path / 'a.mp4', images=steps(3))
  assert media.probe(str(silent)) == media.Streams(picture=True, sound=False, rate=0)
  with pytest.raises(media.UnreadableMedia, match=r'a\.mp4: has no sound'):
    heard(silent)
  blind = encode(tmp_path / 'b.wav', wave=tone(16000, 0.1, 440), sound='pcm_s16le', rate=16000)
  with pytest.raises(media.UnreadableMedia, match=r'b\.wav: has no picture'):
    seen(blind)


@pytest.mark.parametrize('content', [b'', b'this is no film\n' * 100, bytes(5000)])
@pytest.mark.parametrize(
  'use', [media.probe, lambda path: list(media.sound(path)), lambda path: list(media.frames(path))]
)
def test_what_is_no_media_file_is_called_unreadable(
  tmp_path: pathlib.Path, content: bytes, use: Callable[[str], object]
) -> None:
  (tmp_path / 'a.mp4').write_bytes(content)
  with pytest.raises(media.UnreadableMedia, match=r'a\.mp4'):
    use(str(tmp_path / 'a.mp4'))


def test_a_missing_file_is_called_unreadable(tmp_path: pathlib.Path) -> None:
  with pytest.raises(media.UnreadableMedia, match=r'gone\.mp4'):
    media.probe(str(tmp_path / 'gone.mp4'))


def test_an_mp4_that_lost_its_index_is_called_unreadable(encode: Encode, tmp_path: pathlib.Path) -> None:
  path = encode(tmp_path / 'a.mp4', images=steps(20), wave=tone(44100, 0.8, 440))
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # the index is at the end
  with pytest.raises(media.UnreadableMedia, match=r'a\.mp4'):
    media.probe(str(path))


CUT = [('mp4', 'libx264', 'aac', {'movflags': 'faststart'}), *((*kind, {}) for kind in FILMS if kind[0] != 'mp4')]


@pytest.mark.parametrize(('container', 'picture', 'sound', 'options'), CUT)
def test_of_a_truncated_film_the_beginning_is_kept_and_the_end_is_missed(
  encode: Encode, tmp_path: pathlib.Path, container: str, picture: str, sound: str, options: dict[str, str]
) -> None:
  noise = np.random.default_rng(0).integers(0, 60, (40, 48, 64, 3)).astype(np.uint8)  # so that frames take up bytes
  images = [image // 2 + grain for image, grain in zip(steps(20) * 2, noise, strict=True)]
  wave = tone(44100, 1.6, 440)
  path = encode(tmp_path / f'a.{container}', images=images, picture=picture, wave=wave, sound=sound, **options)
  whole_times, whole = seen(path)
  notes: list[str] = []
  assert len(list(media.frames(str(path), notes))) == 40 and list(media.sound(str(path), notes))
  assert notes == []
  path.write_bytes(path.read_bytes()[: int(0.6 * path.stat().st_size)])
  times, kept = seen(path)
  assert 10 <= len(kept) < 35
  np.testing.assert_array_equal(times, whole_times[: len(times)])
  np.testing.assert_array_equal(kept[:-1], whole[: len(kept) - 1])  # the last one may be half a picture
  list(media.frames(str(path), notes))
  samples = sum(block.size for block in media.sound(str(path), notes))
  notes = [note for note in notes if 'is damaged in places' not in note]  # the last packet may be half a one
  for note, half, lasts in zip(notes, ('picture', 'sound'), (len(kept) / 25, samples / 44100), strict=True):
    found = re.fullmatch(rf'the {half} breaks off after (.*) s of the 1\.6\d s that the file claims', note)
    assert found and float(found[1]) == pytest.approx(lasts, abs=0.06), note


def test_what_is_broken_in_the_middle_is_left_out(encode: Encode, tmp_path: pathlib.Path) -> None:
  """Two MP3 files joined: the second one's header frame is no sound."""
  first = encode(tmp_path / 'a.mp3', wave=tone(44100, 1.0, 440), sound='libmp3lame')
  second = encode(tmp_path / 'b.mp3', wave=tone(44100, 0.5, 880), sound='libmp3lame')
  first.write_bytes(first.read_bytes() + second.read_bytes())
  notes: list[str] = []
  wave = np.concatenate(list(media.sound(str(first), notes)))
  assert len(wave) / 44100 == pytest.approx(1.5, abs=0.08)
  assert pitch(wave[4000:40000], 44100) == pytest.approx(440, abs=3)
  assert pitch(wave[50000:60000], 44100) == pytest.approx(880, abs=6)
  assert len(notes) == 1 and 'the sound is damaged in places, 1 in all, the first at 1.0' in notes[0]


def test_of_a_truncated_sound_the_beginning_is_kept(encode: Encode, tmp_path: pathlib.Path) -> None:
  wave = np.random.default_rng(0).integers(-20000, 20000, (1, 40000)).astype(np.int16)
  path = encode(tmp_path / 'a.flac', wave=wave, sound='flac')
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  kept = heard(path)
  assert 4096 <= len(kept) <= 24000
  np.testing.assert_array_equal(kept, wave[0, : len(kept)] / np.float32(32768))


def test_sound_and_picture_are_streamed(encode: Encode, tmp_path: pathlib.Path) -> None:
  path = encode(tmp_path / 'a.mkv', images=steps(20), picture='mpeg4', wave=tone(44100, 3.0, 440))
  blocks = list(media.sound(str(path)))
  assert max(block.size for block in blocks) < 10000 and len(blocks) > 10
  assert len(list(itertools.islice(media.frames(str(path)), 2))) == 2


def turned(path: pathlib.Path, a: int, b: int, c: int, d: int) -> None:
  """Writes into an mp4's track header that pixel (x, y) is to be shown at (a x + c y, b x + d y), as players do."""
  content = bytearray(path.read_bytes())
  matrix = content.index(b'tkhd') + 4 + 40
  content[matrix : matrix + 36] = struct.pack('>9i', a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
  path.write_bytes(content)


@pytest.mark.parametrize('matrix', [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)])
def test_a_film_that_is_to_be_turned_comes_out_upright(
  encode: Encode, tmp_path: pathlib.Path, matrix: tuple[int, int, int, int]
) -> None:
  image = np.full((48, 64, 3), 30, np.uint8)
  image[:24, :32] = 220
  path = encode(tmp_path / 'a.mp4', images=[image] * 3)
  turned(path, *matrix)
  a, b, c, d = matrix
  _, images = seen(path)
  assert images.shape[1:3] == ((48, 64) if a else (64, 48))
  height, width = images.shape[1:3]
  x, y = -a - c, -b - d  # which way from the middle (-1, -1) goes, y downwards
  bright = images[0, height // 4 * (y + 2) - 1, width // 4 * (x + 2) - 1].mean()
  assert bright > 200 and images[0].mean() == pytest.approx((220 + 3 * 30) / 4, abs=4)


@pytest.mark.parametrize('size', [(64, 48), (2160, 3840)])
def test_portrait_and_4k_keep_their_size(encode: Encode, tmp_path: pathlib.Path, size: tuple[int, int]) -> None:
  path = encode(tmp_path / 'a.mp4', images=[np.full((*size, 3), 90, np.uint8)] * 2, picture='mpeg4')
  assert seen(path)[1].shape == (2, *size, 3)


def test_frames_may_come_at_any_time(tmp_path: pathlib.Path) -> None:
  import av

  milliseconds = [0, 40, 55, 200, 233, 900]
  with av.open(str(tmp_path / 'a.mkv'), 'w') as container:
    film = container.add_stream('mpeg4', rate=25)
    film.width, film.height, film.pix_fmt = 64, 48, 'yuv420p'
    film.codec_context.time_base = Fraction(1, 1000)
    for when, image in zip(milliseconds, steps(6), strict=True):
      frame = av.VideoFrame.from_ndarray(image, format='rgb24')
      frame.pts = when
      container.mux(film.encode(frame))
    container.mux(film.encode(None))
  times, images = seen(tmp_path / 'a.mkv')
  assert times == pytest.approx(np.array(milliseconds) / 1000, abs=1e-3)
  assert images.mean((1, 2, 3)) == pytest.approx(20 + 10 * np.arange(6), abs=4)


def jpegs(path: pathlib.Path, *sizes: tuple[int, int]) -> pathlib.Path:
  """An AVI of JPEG pictures, each of a size (height, width) of its own: 20, 30, 40 ... grey, the left half darker."""
  import av

  with av.open(str(path), 'w') as container:
    film = container.add_stream('mjpeg', rate=25)
    film.height, film.width, film.pix_fmt = *sizes[0], 'yuvj420p'
    container.start_encoding()
    for number, (height, width) in enumerate(sizes):
      coder = av.CodecContext.create('mjpeg', 'w')
      coder.height, coder.width, coder.pix_fmt, coder.time_base = height, width, 'yuvj420p', Fraction(1, 25)
      image = np.full((height, width, 3), 20 + 10 * number, np.uint8)
      image[:, : width // 2] //= 2
      for packet in coder.encode(av.VideoFrame.from_ndarray(image, format='rgb24')):
        packet.stream, packet.pts, packet.dts = film, number, number
        container.mux(packet)
  return path


def test_a_film_that_changes_its_size_keeps_the_first_one(tmp_path: pathlib.Path) -> None:
  path = jpegs(tmp_path / 'a.avi', (48, 64), (48, 64), (96, 128), (32, 96), (48, 64))
  notes: list[str] = []
  images = [image for _, image in media.frames(str(path), notes)]
  assert [image.shape for image in images] == [(48, 64, 3)] * 5
  for number, image in enumerate(images):
    level = 20 + 10 * number
    assert [image[:, :30].mean(), image[:, 34:].mean()] == pytest.approx([level // 2, level], abs=3)
  assert notes == ['the picture changes its size in mid-film: 64x48, 128x96, 96x32']


def test_frames_that_would_fill_the_memory_are_refused(
  encode: Encode, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  path = jpegs(tmp_path / 'a.avi', (48, 64), (48, 64))
  content = path.read_bytes()
  size = struct.pack('>HH', 48, 64)
  assert content.count(b'\xff\xc0\x00\x11\x08' + size) == 2
  path.write_bytes(
    content.replace(b'\xff\xc0\x00\x11\x08' + size, b'\xff\xc0\x00\x11\x08' + struct.pack('>HH', 16000, 16000))
  )
  with pytest.raises(media.UnreadableMedia, match='the picture cannot be decoded'):
    seen(path)
  whole = encode(tmp_path / 'b.mp4', images=steps(2))
  monkeypatch.setattr(media, 'MAX_PIXELS', 64 * 48 - 1)
  with pytest.raises(media.UnreadableMedia, match='64x48 pixels'):
    seen(whole)


def test_frames_whose_times_go_back_are_left_out_and_counted(encode: Encode, tmp_path: pathlib.Path) -> None:
  path = encode(tmp_path / 'a.ts', images=steps(20))
  path.write_bytes(path.read_bytes() * 2)
  notes: list[str] = []
  times = [time for time, _ in media.frames(str(path), notes)]
  assert len(times) == 20 and (np.diff(times) > 0).all()
  assert len(notes) == 1 and notes[0].startswith('20 frames of the picture are left out')


@pytest.mark.parametrize(('ending', 'codec'), [('wav', 'pcm_s16le'), ('mp4', 'aac')])
def test_of_six_channels_the_first_is_heard_and_it_is_said(
  encode: Encode, tmp_path: pathlib.Path, ending: str, codec: str
) -> None:
  path = encode(tmp_path / f'a.{ending}', wave=tone(44100, 1.0, 500, 800, 1100, 1400, 1700, 2000), sound=codec)
  notes: list[str] = []
  assert pitch(np.concatenate(list(media.sound(str(path), notes))), 44100) == pytest.approx(500, abs=2)
  assert notes == ['the sound has 6 channels: the first alone is used']


@pytest.mark.parametrize(
  ('loud', 'note'),
  [
    ((1, 1), []),
    ((0, 0), []),  # what to say of that, audio.heed knows
    ((0, 1), ['channel 1, which is used, is silent; channel 2 of 2 is not']),
    (
      (0, 0, 1, 1, 0, 0, 0),
      [
        'the sound has 7 channels: the first alone is used',
        'channel 1, which is used, is silent; channel 3, 4 of 7 is not',
      ],
    ),
  ],
)
def test_a_silent_first_channel_beside_others_is_noted(
  tmp_path: pathlib.Path, loud: tuple[int, ...], note: list[str]
) -> None:
  waves = np.concatenate([level * tone(16000, 0.3, 440) for level in loud]).astype('<i2')
  with wav.open(str(tmp_path / 'a.wav'), 'wb') as file:
    file.setparams((len(loud), 2, 16000, 0, 'NONE', ''))
    file.writeframes(waves.T.tobytes())
  notes: list[str] = []
  heard_wave = np.concatenate(list(media.sound(str(tmp_path / 'a.wav'), notes)))
  np.testing.assert_array_equal(heard_wave, waves[0] / np.float32(32768))
  assert notes == note


@pytest.mark.parametrize(('codec', 'kind', 'full'), [('pcm_u8', 'u1', 128), ('pcm_s32le', '<i4', 2**31)])
def test_every_kind_of_sample_has_full_scale_one(tmp_path: pathlib.Path, codec: str, kind: str, full: int) -> None:
  wave = np.random.default_rng(0).integers(-full, full, 1000)
  stored = (wave + (full if kind == 'u1' else 0)).astype(kind)
  with wav.open(str(tmp_path / 'a.wav'), 'wb') as file:
    file.setparams((1, stored.itemsize, 16000, 0, 'NONE', ''))
    file.writeframes(stored.tobytes())
  np.testing.assert_allclose(heard(tmp_path / 'a.wav'), wave / full, atol=1e-7)


def floats(path: pathlib.Path, wave: np.ndarray) -> pathlib.Path:
  """A WAV file of 16 kHz whose samples are floats."""
  head = struct.pack('<4sIHHIIHH', b'fmt ', 16, 3, 1, 16000, 64000, 4, 32)
  data = wave.astype('<f4').tobytes()
  body = b'WAVE' + head + b'data' + struct.pack('<I', len(data)) + data
  path.write_bytes(b'RIFF' + struct.pack('<I', len(body)) + body)
  return path


@pytest.mark.parametrize(('bad', 'note'), [(0, []), (400, ['25% of the samples are no finite numbers'])])
def test_samples_that_are_no_numbers_become_finite_and_are_counted(
  tmp_path: pathlib.Path, bad: int, note: list[str]
) -> None:
  wave = np.linspace(-0.5, 0.5, 1600)
  wave[:bad] = np.resize([np.nan, np.inf, -np.inf, np.nan], bad)
  notes: list[str] = []
  got = np.concatenate(list(media.sound(str(floats(tmp_path / 'a.wav', wave)), notes)))
  np.testing.assert_allclose(got[bad:], wave[bad:], atol=1e-7)
  assert np.array_equal(got[:bad], np.resize([0, 1, -1, 0], bad)) and notes == note


def test_a_rate_and_a_layout_that_change_in_mid_file(encode: Encode, tmp_path: pathlib.Path) -> None:
  """ADTS streams may be joined as they are."""
  parts = [
    encode(tmp_path / 'a.aac', wave=tone(44100, 1.0, 440)),
    encode(tmp_path / 'b.aac', wave=tone(48000, 1.0, 880), rate=48000),
    encode(tmp_path / 'c.aac', wave=tone(44100, 1.0, 600, 1500)),
  ]
  (tmp_path / 'all.aac').write_bytes(b''.join(part.read_bytes() for part in parts))
  notes: list[str] = []
  rate = media.probe(str(tmp_path / 'all.aac')).rate
  wave = np.concatenate(list(media.sound(str(tmp_path / 'all.aac'), notes)))
  assert len(wave) / rate == pytest.approx(3.0, abs=0.2)
  for second, hertz in enumerate((440, 880, 600)):
    middle = wave[int((second + 0.3) * rate) : int((second + 0.8) * rate)]
    assert pitch(middle, rate) == pytest.approx(hertz, abs=5)
  other = {44100: 48000, 48000: 44100}[rate]
  assert notes == [f'parts of the sound have {other} Hz: brought to {rate} Hz']


NAMES = [b'a b\'c"d.wav', b'a\nb.wav', 'größe 喜.wav'.encode(), b'\xff\xfe.wav', b'http:a.wav', b'%d.wav', b'-a.wav']


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('relative', [True, False])
def test_a_name_may_hold_any_byte(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: bytes, relative: bool
) -> None:
  path = tmp_path / os.fsdecode(name)
  floats(path, np.linspace(-0.5, 0.5, 800))
  monkeypatch.chdir(tmp_path)
  path = pathlib.Path(path.name) if relative else path
  assert media.probe(str(path)) == media.Streams(picture=False, sound=True, rate=16000)
  assert len(heard(path)) == 800


def test_tags_in_another_encoding_do_no_harm(tmp_path: pathlib.Path) -> None:
  path = floats(tmp_path / 'a.wav', np.zeros(800))
  tag = b'INFOINAM' + struct.pack('<I', 6) + b'caf\xe9s\0'
  content = path.read_bytes() + b'LIST' + struct.pack('<I', len(tag)) + tag
  path.write_bytes(content[:4] + struct.pack('<I', len(content) - 8) + content[8:])
  assert len(heard(path)) == 800


def test_a_stream_of_an_unknown_codec_counts_as_none(encode: Encode, tmp_path: pathlib.Path) -> None:
  path = encode(tmp_path / 'a.mp4', images=steps(10), wave=tone(44100, 0.4, 440), sound='alac')
  whole = path.read_bytes()
  path.write_bytes(whole.replace(b'avc1', b'zzzz'))
  assert media.probe(str(path)) == media.Streams(picture=False, sound=True, rate=44100)
  with pytest.raises(media.UnreadableMedia, match='no picture'):
    seen(path)
  path.write_bytes(whole.replace(b'avc1', b'zzzz').replace(b'alac', b'zzzz'))
  with pytest.raises(media.UnreadableMedia, match='neither sound nor picture'):
    media.probe(str(path))


def test_what_is_no_file_is_called_unreadable(tmp_path: pathlib.Path) -> None:
  (tmp_path / 'folder.mp4').mkdir()
  os.mkfifo(tmp_path / 'pipe.mp4')
  (tmp_path / 'loop.mp4').symlink_to(tmp_path / 'loop.mp4')
  for name in ('folder.mp4', 'pipe.mp4'):
    with pytest.raises(media.UnreadableMedia, match='no regular file'):
      media.probe(str(tmp_path / name))
  with pytest.raises(media.UnreadableMedia, match='symbolic links'):
    media.probe(str(tmp_path / 'loop.mp4'))


def test_a_file_that_may_not_be_read_is_called_unreadable(tmp_path: pathlib.Path) -> None:
  path = floats(tmp_path / 'a.wav', np.zeros(800))
  assert len(heard(path)) == 800
  user = os.geteuid()
  path.chmod(0)
  try:
    if user == 0:
      os.seteuid(65534)  # root may read everything
    with pytest.raises(media.UnreadableMedia, match='Permission denied'):
      media.probe(str(path))
  finally:
    os.seteuid(user)


HLS = '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n'


@pytest.mark.parametrize(('name', 'text'), [('list.m3u8', HLS), ('list.mp4', 'ffconcat version 1.0\nfile {}\n')])
def test_a_playlist_is_no_film(encode: Encode, tmp_path: pathlib.Path, name: str, text: str) -> None:
  encode(tmp_path / 'a.ts', images=steps(5))
  (tmp_path / name).write_text(text.format('a.ts'))
  with pytest.raises(media.UnreadableMedia, match='of no kind that is read here'):
    seen(tmp_path / name)


def test_nothing_is_asked_for_over_a_network(tmp_path: pathlib.Path) -> None:
  with socket.create_server(('127.0.0.1', 0)) as server:
    server.settimeout(0.1)
    (tmp_path / 'list.m3u8').write_text(HLS.format(f'http://127.0.0.1:{server.getsockname()[1]}/a.ts'))
    with pytest.raises(media.UnreadableMedia, match=r'list\.m3u8'):
      seen(tmp_path / 'list.m3u8')
    with pytest.raises(TimeoutError):
      server.accept()


def test_damage_within_a_film_is_noted(encode: Encode, tmp_path: pathlib.Path) -> None:
  noise = np.random.default_rng(0).integers(0, 120, (20, 48, 64, 3)).astype(np.uint8)
  path = encode(tmp_path / 'a.avi', images=list(noise), picture='mpeg4')
  content = bytearray(path.read_bytes())
  middle = content.index(b'00dc', len(content) // 2) + 8
  content[middle + 20 : middle + 120] = bytes(100)
  path.write_bytes(content)
  notes: list[str] = []
  assert len(list(media.frames(str(path), notes))) == 20
  assert len(notes) == 1 and notes[0].startswith('the picture is damaged in places, 1 in all, the first at 0.')


# name: frames and seconds as the data's README says, size and rates as its codecs do
REAL = [
  ('crema_d_sample/VideoFlash/1001_DFA_ANG_XX.flv', (360, 480), 44100, 29.97),
  ('ravdess_sample/Actor_01/01-01-01-01-01-01-01.mp4', (720, 1280), 48000, 29.97),
  ('java_sed/video/01-01-01_01.mp4', (270, 360), 44100, 29.97),
]


@pytest.mark.parametrize(('name', 'size', 'rate', 'fps'), REAL)
def test_a_real_film(data_root: pathlib.Path, name: str, size: tuple[int, int], rate: int, fps: float) -> None:
  path = data_root / name
  if not path.exists():
    pytest.skip(f'no real clip: {path} is absent')
  assert media.probe(str(path)) == media.Streams(picture=True, sound=True, rate=rate)
  times = []
  for time, image in media.frames(str(path)):
    times.append(time)
    assert image.shape == (*size, 3)
  assert 50 <= len(times) <= 241
  assert np.diff(times) == pytest.approx(1 / fps, abs=1.5e-3)
  assert 0 <= times[0] < 0.1
  wave = heard(path)
  assert len(wave) / rate == pytest.approx(times[-1] - times[0], abs=0.3)  # sound and picture last about as long
  assert 0.001 < wave.std() < 0.5


def test_a_real_take_is_sound_alone(data_root: pathlib.Path) -> None:
  path = data_root / 'java_sed/audio/05-02-01_06.flac'
  if not path.exists():
    pytest.skip(f'no real clip: {path} is absent')
  assert media.probe(str(path)) == media.Streams(picture=False, sound=True, rate=16000)
  assert heard(path).std() > 0.001

"""Media: what comes out of files that the tests write themselves, out of broken ones, and out of real clips."""

import itertools
import pathlib
from collections.abc import Callable

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


@pytest.mark.parametrize('rate', [16000, 22050, 48000])
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


@pytest.mark.parametrize(
  ('container', 'picture', 'sound', 'options'),
  [('mp4', 'libx264', 'aac', {'movflags': 'faststart'}), ('flv', 'flv', 'libmp3lame', {})],
)
def test_of_a_truncated_film_the_beginning_is_kept(
  encode: Encode, tmp_path: pathlib.Path, container: str, picture: str, sound: str, options: dict[str, str]
) -> None:
  noise = np.random.default_rng(0).integers(0, 60, (20, 48, 64, 3)).astype(np.uint8)  # so that frames take up bytes
  images = [image + grain for image, grain in zip(steps(20), noise, strict=True)]
  path = encode(tmp_path / f'a.{container}', images=images, picture=picture, **options)
  whole_times, whole = seen(path)
  path.write_bytes(path.read_bytes()[: int(0.6 * path.stat().st_size)])
  times, kept = seen(path)
  assert 2 <= len(kept) < 20
  np.testing.assert_array_equal(times, whole_times[: len(times)])
  np.testing.assert_array_equal(kept[:-1], whole[: len(kept) - 1])  # the last one may be half a picture


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

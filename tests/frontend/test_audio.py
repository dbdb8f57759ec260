"""Log-mel spectra against a slow loop, sines against closed forms, and any cutting into blocks against none."""

import wave as wav
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from emo_jax.frontend import audio, halves, media

RATES = [16000, 22050, 44100, 48000]
LOW, HIGH = 20.0, 8000.0


def spectrum_of(wave: np.ndarray, rate: int, *, block: int | None = None) -> np.ndarray:
  blocks: Iterator[np.ndarray] = (wave[i : i + (block or len(wave))] for i in range(0, len(wave), block or len(wave)))
  parts = list(audio.log_mel(blocks, rate, low=LOW, high=HIGH))
  return np.concatenate(parts, axis=1) if parts else np.zeros((64, 0), np.float32)


def lengths(rate: int) -> tuple[int, int, int]:
  """Frame, shift, FFT size, in whole-number arithmetic: 25 and 10 ms with halves rounded up, the next power of two."""
  frame, shift = (25 * rate + 500) // 1000, (10 * rate + 500) // 1000
  size = 1
  while size < frame:
    size *= 2
  return frame, shift, size


def edges() -> np.ndarray:
  """The 66 edges of the bands in Hz, equally far apart in mel."""
  mel = [2595 * np.log10(1 + f / 700) for f in (LOW, HIGH)]
  return np.array([700 * (10 ** ((mel[0] + i * (mel[1] - mel[0]) / 65) / 2595) - 1) for i in range(66)])


def triangles(rate: int, size: int) -> np.ndarray:
  """The filters [64, bins], entry by entry."""
  bins = [int(f * size / rate + 0.5) for f in edges()]
  filters = np.zeros((64, size // 2 + 1))
  for band in range(64):
    left, centre, right = bins[band : band + 3]
    for j in range(left, min(right, size // 2) + 1):
      if j == centre:
        filters[band, j] = 1
      elif left < j < centre:
        filters[band, j] = (j - left) / (centre - left)
      elif centre < j < right:
        filters[band, j] = (right - j) / (right - centre)
  return filters


def hamming(frame: int) -> np.ndarray:
  """The symmetric Hamming window, scaled so that its mean square is 1."""
  window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(frame) / (frame - 1))
  return window / np.sqrt((window**2).sum() / frame)


def slow(wave: np.ndarray, rate: int) -> np.ndarray:
  """The spectrogram frame by frame, in double precision."""
  frame, shift, size = lengths(rate)
  columns = []
  for start in range(0, len(wave) - frame + 1, shift):
    padded = np.zeros(size)
    padded[:frame] = wave[start : start + frame] * hamming(frame)
    level = triangles(rate, size) @ (np.abs(np.fft.fft(padded)[: size // 2 + 1]) / size)
    columns.append(np.clip(20 * np.log10(np.maximum(level, 1e-30)) + 130, -20, 130))
  return np.array(columns).T


def test_frames_and_shifts_round_halves_up() -> None:
  assert [audio.frame_lengths(rate) for rate in (8000, 16000, 22050, 44100, 48000)] == [
    (200, 80),
    (400, 160),
    (551, 221),
    (1103, 441),
    (1200, 480),
  ]


@pytest.mark.parametrize('rate', RATES)
def test_noise_gives_what_a_slow_loop_gives(rate: int) -> None:
  wave = np.random.default_rng(rate).normal(0, 0.1, rate // 8).astype(np.float32)
  got, want = spectrum_of(wave, rate), slow(wave, rate)
  assert got.dtype == np.float32 and got.shape == want.shape
  np.testing.assert_allclose(got, want, atol=2e-3)


@pytest.mark.parametrize('rate', RATES)
@pytest.mark.parametrize('hertz', [250.0, 700.0, 1000.0, 2345.6, 4000.0, 7500.0])
def test_a_sine_is_loudest_in_a_band_that_holds_it(rate: int, hertz: float) -> None:
  wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(rate // 5) / rate)
  loudest = spectrum_of(wave.astype(np.float32), rate).argmax(0)
  assert (edges()[loudest] < hertz).all() and (hertz < edges()[loudest + 2]).all()


@pytest.mark.parametrize('rate', RATES)
@pytest.mark.parametrize('band', [30, 40, 50, 60])
def test_a_sine_at_a_wide_bands_centre_is_loudest_there(rate: int, band: int) -> None:
  wave = 0.5 * np.sin(2 * np.pi * edges()[band + 1] * np.arange(rate // 5) / rate)
  assert (spectrum_of(wave.astype(np.float32), rate).argmax(0) == band).all()


@pytest.mark.parametrize('rate', RATES)
@pytest.mark.parametrize('amplitude', [0.9, 0.01])
def test_a_sines_level_is_the_windows_spectrum_through_the_triangles(rate: int, amplitude: float) -> None:
  """At a bin's centre |X(j)| = amplitude / 2 * |W(j - bin)|, W the window's Fourier sum; the mirror image is far."""
  frame, _, size = lengths(rate)
  centre = round(3000 / rate * size)
  wave = amplitude * np.sin(2 * np.pi * centre / size * np.arange(rate // 5) + 0.3)
  away = 2 * np.pi * (np.arange(size // 2 + 1) - centre) / size
  shape = np.abs([(hamming(frame) * np.exp(-1j * angle * np.arange(frame))).sum() for angle in away])
  with np.errstate(divide='ignore'):
    level = 20 * np.log10(triangles(rate, size) @ (amplitude / 2 * shape / size)) + 130
  near = (edges()[:-2] < 3000) & (edges()[2:] > 3000)
  assert near.sum() == 2
  for column in spectrum_of(wave.astype(np.float32), rate).T:
    np.testing.assert_allclose(column[near], level[near], atol=0.05)


def test_filters_have_height_one_and_low_narrow_ones_share_a_bin_at_16_khz() -> None:
  for rate in RATES:
    filters = audio.filterbank(rate, lengths(rate)[2], low=LOW, high=HIGH)
    assert filters.shape == (64, lengths(rate)[2] // 2 + 1) and filters.dtype == np.float32
    assert (filters.max(1) == 1).all()
  low = audio.filterbank(16000, 512, low=LOW, high=HIGH)
  assert any((low[band] == low[band + 1]).all() or low[band].sum() == 1 for band in range(5))


def test_bands_above_half_the_rate_are_empty() -> None:
  wave = np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)
  level = spectrum_of(wave, 8000)
  above = edges()[:-2] > 4100
  assert above.sum() > 10
  assert (level[above] == -20).all() and (level[edges()[2:] < 3900] > 0).all()


@pytest.mark.parametrize('rate', RATES)
def test_silence_is_at_the_floor_and_nothing_is_above_the_ceiling(rate: int) -> None:
  silence = spectrum_of(np.zeros(rate // 10, np.float32), rate)
  assert silence.shape[1] > 0 and (silence == -20).all()
  assert (spectrum_of(np.full(rate // 10, 1e-12, np.float32), rate) == -20).all()
  loud = 1e6 * np.random.default_rng(0).normal(size=rate // 10)
  assert (spectrum_of(loud.astype(np.float32), rate)[5:] == 130).all()


def is_silent(wave: np.ndarray, rate: int) -> bool:
  """Of a window that holds the whole wave."""
  (said,) = audio.silent(spectrum_of(wave.astype(np.float32), rate)[None])
  return bool(said)


@pytest.mark.parametrize('rate', [8000, 16000, 44100, 48000])
def test_no_sine_and_no_noise_below_the_peak_of_silence_is_heard(rate: int) -> None:
  time, random = np.arange(round(0.05 * rate)) / rate, np.random.default_rng(rate)
  for hertz in np.arange(20, 0.45 * min(rate, 17000), 7.3):
    assert is_silent(media.SILENT * np.sin(2 * np.pi * hertz * time + hertz), rate), hertz
  for noise in (random.uniform(-1, 1, 3 * rate), random.choice([-1, 1], 3 * rate)):
    assert is_silent(media.SILENT * noise, rate)
  assert is_silent(np.full(rate, media.SILENT), rate)
  # and the level is no higher than that takes: a sine four times as strong is heard, in a band of its own as well
  for hertz in np.arange(60, 0.45 * min(rate, 17000), 61.0):
    assert not is_silent(4 * media.SILENT * np.sin(2 * np.pi * hertz * time), rate), hertz


def voice(rate: int, peak: float) -> np.ndarray:
  """A vowel of 0.655 s: harmonics of 120 Hz through formants, rising and falling."""
  time = np.arange(round(0.655 * rate)) / rate
  parts = 120.0 * np.arange(1, int(min(rate / 2, 8000) / 120))
  formants = sum(np.exp(-(((parts - centre) / 120) ** 2)) for centre in (700, 1200, 2600)) + 120 / parts
  wave = (formants[:, None] * np.sin(2 * np.pi * parts[:, None] * time + parts[:, None])).sum(0)
  wave *= np.sin(np.pi * time / 0.655)
  return peak * wave / np.abs(wave).max()


@pytest.mark.parametrize('rate', [8000, 16000, 44100, 48000])
def test_a_voice_is_not_silent_and_nearly_nothing_is(rate: int) -> None:
  random = np.random.default_rng(0)
  assert not is_silent(voice(rate, 0.1), rate) and not is_silent(voice(rate, 0.01), rate)
  assert is_silent(voice(rate, 0.5e-3), rate) and is_silent(0.5e-3 * random.uniform(-1, 1, rate), rate)
  assert is_silent(np.zeros(rate), rate)


def test_each_window_is_silent_for_itself() -> None:
  windows = np.full((4, 64, 64), audio.SILENT_DB, np.float32)
  windows[1, 0, 63] += 0.1
  windows[3, 63, 0] += 0.1
  said = audio.silent(windows)
  assert said.dtype == bool and said.tolist() == [True, False, True, False]
  assert audio.silent(windows[:0]).tolist() == []


@pytest.mark.parametrize('kind', ['java_sed/audio/*.flac', 'java_sed/video/*.mp4', 'crema_d_sample/*/*.flv'])
def test_in_a_real_clip_only_pauses_are_silent(data_root: Path, kind: str) -> None:
  for path in sorted(data_root.glob(kind))[::40]:
    columns = np.concatenate(
      list(audio.log_mel(media.sound(str(path)), media.probe(str(path)).rate, low=LOW, high=HIGH)), axis=1
    )
    windows = np.stack([columns[:, start : start + 64] for start in range(0, columns.shape[1] - 63, 30)])
    silent = audio.silent(windows)
    assert silent.mean() < 0.5 and (windows[silent].max(axis=(1, 2)) < windows.max() - 20).all(), path


@pytest.mark.parametrize('rate', [11025, *RATES])
@pytest.mark.parametrize('surplus', [-1, 0, 1, 9])
def test_a_sound_has_as_many_frames_as_fit(rate: int, surplus: int) -> None:
  frame, shift, _ = lengths(rate)
  wave = np.zeros(frame + 9 * shift + surplus, np.float32)
  assert spectrum_of(wave, rate).shape == (64, 9 if surplus < 0 else 10)
  assert spectrum_of(wave[: frame - 1], rate).shape == (64, 0)
  assert spectrum_of(wave[:frame], rate).shape == (64, 1)


@pytest.mark.parametrize('seconds', [0.7, 23.0])  # 23 s is more than twice what is handled at a time
def test_blocks_of_any_size_give_the_same_bytes(seconds: float) -> None:
  rate = 16000
  wave = np.random.default_rng(1).normal(0, 0.1, int(rate * seconds)).astype(np.float32)
  assert int(rate * seconds) > 2 * audio.CHUNK * 160 or seconds < 1
  whole = spectrum_of(wave, rate)
  assert whole.shape[1] == 1 + (len(wave) - 400) // 160
  blocks = (160, 401, 1024, 7777) if seconds < 1 else (1024, 44100, 170000)
  for block in blocks:
    assert spectrum_of(wave, rate, block=block).tobytes() == whole.tobytes(), block


def test_a_long_sound_comes_in_pieces() -> None:
  """What is held at a time does not grow with the sound."""
  blocks = (np.zeros(4000, np.float32) for _ in range(250))
  pieces = [piece.shape[1] for piece in audio.log_mel(blocks, 16000, low=LOW, high=HIGH)]
  assert sum(pieces) == 1 + (1_000_000 - 400) // 160 and max(pieces) < 1.2 * audio.CHUNK


def test_frames_start_where_the_shift_says() -> None:
  """A click is heard in the frames that hold it and in no other, to the sample, also in a later piece."""
  rate, frame, shift = 22050, 551, 221
  clicks = 1130 * shift, 1200 * shift + frame - 1  # the first sample of a frame, the last of another
  wave = np.zeros(300_000, np.float32)
  wave[list(clicks)] = 1
  level = spectrum_of(wave, rate, block=1152)
  frames = [i for i in range(level.shape[1]) if any(i * shift <= click < i * shift + frame for click in clicks)]
  assert 1130 in frames and 1131 not in frames and 1199 not in frames and 1200 in frames
  assert np.flatnonzero((level > -20).any(0)).tolist() == frames


@pytest.mark.parametrize(
  ('level', 'rate', 'note'),
  [
    (0.5, 16000, []),
    (0.5, 15999, ['the sound has 15999 Hz: nothing above 7999.5 Hz']),
    (0.5, 8000, ['the sound has 8000 Hz: nothing above 4000 Hz']),
    (0.0, 16000, ['the sound is silent']),
    (0.0009, 16000, ['the sound is silent']),
    (0.0011, 16000, []),
    (0.99, 16000, []),
    (-1.0, 16000, ['100% of the samples are clipped']),
    (0.0, 8000, ['the sound has 8000 Hz: nothing above 4000 Hz', 'the sound is silent']),
  ],
)
def test_what_a_sound_lacks_is_noted(level: float, rate: int, note: list[str]) -> None:
  blocks = [np.full(size, level, np.float32) for size in (300, 0, 700)]
  notes = ['before']
  passed = list(audio.heed(iter(blocks), notes, rate=rate, high=HIGH))
  np.testing.assert_equal(passed, blocks)
  assert notes == ['before', *note]


@pytest.mark.parametrize(
  ('clipped', 'note'), [(10, []), (11, ['1% of the samples are clipped']), (125, ['12% of the'])]
)
def test_some_samples_at_full_scale_are_no_clipping_and_many_are(clipped: int, note: list[str]) -> None:
  wave = np.zeros((1000,), np.float32)
  wave[::2] = 0.4
  wave[np.random.default_rng(0).permutation(1000)[:clipped]] = -1
  notes: list[str] = []
  list(audio.heed(np.split(wave, 4), notes, rate=16000, high=HIGH))
  assert len(notes) == len(note) and all(got.startswith(want) for got, want in zip(notes, note, strict=True))


def test_what_was_odd_is_stored_with_the_sound(tmp_path: Path) -> None:
  path = tmp_path / 'a.wav'
  settings = {'low_hz': LOW, 'high_hz': HIGH}
  with wav.open(str(path), 'wb') as file:
    file.setparams((3, 2, 8000, 0, 'NONE', ''))
    file.writeframes(bytes(3 * 2 * 8000))
  halves._audio(path, tmp_path / 'store' / 'half' / 'a', settings, lambda: None)
  with np.load(tmp_path / 'store' / 'half' / 'a.npz', allow_pickle=False) as archive:
    facts = dict(archive)
  assert facts['warnings'].dtype.kind == 'U' and facts['warnings'].tolist() == [
    'the sound has 3 channels: the first alone is used',
    'the sound has 8000 Hz: nothing above 4000 Hz',
    'the sound is silent',
  ]
  assert facts['columns'] == 1 + (8000 - 200) // 80 and facts['rate'] == 8000
  spectrum = np.load(tmp_path / 'store' / 'half' / 'a.npy')
  assert spectrum.shape[1] == facts['columns'] and (spectrum == -20).all()


@pytest.mark.parametrize('rate', [999, 768_001, 2**31 - 1])
def test_a_rate_that_no_sound_has_is_refused(tmp_path: Path, rate: int) -> None:
  with wav.open(str(tmp_path / 'a.wav'), 'wb') as file:
    file.setparams((1, 2, rate, 0, 'NONE', ''))
    file.writeframes(bytes(2000))
  with pytest.raises(media.UnreadableMedia, match=f'a sample rate of {rate} Hz'):
    halves._audio(tmp_path / 'a.wav', tmp_path / 'half' / 'a', {'low_hz': LOW, 'high_hz': HIGH}, lambda: None)

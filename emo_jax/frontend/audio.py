"""Sound to log-mel spectrogram: 64 bands, one column every 10 ms (pipeline step: prepare; method.md A1).

After the tool that the first author names (m-r-s/reference-feature-extraction): native sample rate, no padding and no
centring, magnitude spectra, triangles of height 1, decibels above a floor. Bins are counted from 0 here, so a band
sits where its frequency is; the tool's own filters lie one bin low.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np

from emo_jax.frontend import media

BANDS = 64
FLOOR_DB, CEILING_DB, OFFSET_DB = -20.0, 130.0, 130.0
CHUNK = 1000  # frames handled at a time: bounds the memory that a long clip takes
FULL_SCALE, CLIPPED = 0.999, 0.01  # samples from here on are clipped; the share of them that is worth a warning
# No sine and no noise of the peak media.SILENT is above this level. The bins of a sine's spectrum, within a band wide
# enough for all of them, add up to half its peak times the window's middle, 1.59: 0.79 of the peak at any rate, 68 dB;
# in narrow bands to less. Noise is 4 dB and more below that. A voice's level lies some 13 dB under that of its peak.
SILENT_DB = OFFSET_DB + 20 * math.log10(media.SILENT)  # 70


def half_up(value: float | np.ndarray) -> np.ndarray:
  """MATLAB's rounding of positive numbers: halves go up (Python's go to the even neighbour)."""
  return np.floor(np.asarray(value) + 0.5).astype(np.int64)


def frame_lengths(rate: int) -> tuple[int, int]:
  """Samples in a frame of 25 ms and in a shift of 10 ms at a sample rate in Hz (method.md A1)."""
  return int(half_up(0.025 * rate)), int(half_up(0.010 * rate))


def filterbank(rate: int, n_fft: int, *, low: float, high: float) -> np.ndarray:
  """Triangular mel filters, float32 [64, n_fft // 2 + 1], height 1, edges rounded to bins (method.md A1).

  Bands above half the sample rate stay empty. At 16 kHz and below, low bands narrower than a bin share one.
  """
  to_mel = lambda hertz: 2595 * np.log10(1 + hertz / 700)
  edges = 700 * (10 ** (np.linspace(to_mel(low), to_mel(high), BANDS + 2) / 2595) - 1)
  bins = half_up(edges / rate * n_fft)
  axis = np.arange(n_fft // 2 + 1)
  filters = np.zeros((BANDS, axis.size), np.float32)
  for band, (left, centre, right) in enumerate(zip(bins, bins[1:], bins[2:], strict=False)):
    rising = (axis - left) / max(centre - left, 1)
    falling = (right - axis) / max(right - centre, 1)
    inside = (axis > left) & (axis < right) | (axis == centre)
    filters[band] = np.where(inside, np.where(axis == centre, 1.0, np.minimum(rising, falling)), 0.0)
  return filters


def heed(blocks: Iterable[np.ndarray], notes: list[str], *, rate: int, high: float) -> Iterator[np.ndarray]:
  """Passes a sound on as it is; sentences about what it lacks go into `notes` when it is at its end.

  Args:
    blocks: float32 [samples] each, full scale 1.
    notes: takes the sentences.
    rate: sample rate in Hz.
    high: upper edge of the last mel band, in Hz.
  """
  peak, clipped, count = 0.0, 0, 0
  for block in blocks:
    level = np.abs(block)
    peak = max(peak, float(level.max(initial=0)))
    clipped += int(np.sum(level >= FULL_SCALE))
    count += block.size
    yield block
  if rate / 2 < high:
    notes.append(f'the sound has {rate} Hz: nothing above {rate / 2:g} Hz')
  if peak < media.SILENT:
    notes.append('the sound is silent')
  if clipped > CLIPPED * count:
    notes.append(f'{clipped / count:.0%} of the samples are clipped')


def silent(windows: np.ndarray) -> np.ndarray:
  """Which windows hold no sound that a voice could be: bool [N], of static log-mel windows [N, 64, T] in decibels."""
  return windows.max(axis=(1, 2)) <= SILENT_DB


def log_mel(blocks: Iterable[np.ndarray], rate: int, *, low: float, high: float) -> Iterator[np.ndarray]:
  """Log-mel spectrogram of a sound that arrives in blocks.

  Args:
    blocks: float32 [samples] each, full scale 1.
    rate: sample rate in Hz.
    low, high: lower edge of the first and upper edge of the last band, in Hz.

  Yields:
    float32 [64, frames], lowest band first, in decibels between -20 and 130; in all 1 + (L - N) // M frames for L
    samples, frame length N and shift M.
  """
  import librosa

  length, shift = frame_lengths(rate)
  n_fft = 1 << (length - 1).bit_length()
  window = np.hamming(length)
  window = (window / np.sqrt(np.mean(window**2))).astype(np.float32)
  filters = filterbank(rate, n_fft, low=low, high=high)

  def spectrogram(samples: np.ndarray) -> np.ndarray:
    framed = librosa.util.frame(samples, frame_length=length, hop_length=shift)
    spectrum = np.abs(np.fft.rfft(framed * window[:, None], n_fft, axis=0)) / n_fft
    with np.errstate(divide='ignore'):  # silence is clipped to the floor
      level = 20 * np.log10(filters @ spectrum) + OFFSET_DB
    return np.clip(level, FLOOR_DB, CEILING_DB).astype(np.float32)

  waiting: list[np.ndarray] = []
  count = 0
  for block in blocks:
    waiting.append(block)
    count += block.size
    if count >= length + CHUNK * shift:
      samples = np.concatenate(waiting)
      while samples.size >= length + CHUNK * shift:  # pieces of one size: the last bits hang on it
        yield spectrogram(samples[: length + (CHUNK - 1) * shift])
        samples = samples[CHUNK * shift :]
      waiting, count = [samples], samples.size
  if count >= length:
    yield spectrogram(np.concatenate(waiting))

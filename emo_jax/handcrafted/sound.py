"""A clip's sound to one vector by rules that nobody trained (pipeline step: handcrafted).

librosa's and openSMILE's numbers are named as what they are: librosa has no formants, jitter or shimmer.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

RATE = 16_000  # Hz, of what is described: what lies higher differs between corpora more than between emotions
SHORTEST = 1600  # samples; a shorter sound is followed by silence
_WINDOW, _SHIFT = 400, 160  # samples: 25 ms every 10 ms, as the networks' log-mel frames
_PITCH_WINDOW = 1024  # samples: three periods of the lowest voice
_PITCH_HZ = 60.0, 600.0
_PITCH_STEP = 0.2  # semitones; 0.1 takes 3 times as long
_SILENCE_DB = -100.0
_ROOM_DB = -50.0  # of a mel band's power: white noise at 57 dB below full scale; less is the room, not the voice
_SEMITONE_0 = 27.5  # Hz; as eGeMAPS counts
OPENSMILE = {'egemaps': 'eGeMAPSv02', 'compare': 'ComParE_2016'}  # config.handcrafted.sound -> the package's name

_MFCC = [f'mfcc_{number}' for number in range(1, 14)]
_CEPSTRAL = [f'{name}{order}' for order in ('', '_delta', '_delta2') for name in _MFCC]
_SPECTRAL = ['centroid_hz', 'bandwidth_hz', 'rolloff_hz', 'flatness_db', 'zero_crossings']
_FRAMES = [*_CEPSTRAL, *_SPECTRAL, 'energy_db', 'energy_delta']  # of every frame
_VOICED = ['pitch_semitones', 'pitch_delta']  # of voiced frames
# Of a descriptor's values [T] through the clip. Least, largest and range beside these did not help on held speakers.
FUNCTIONALS: dict[str, Callable[[np.ndarray], Any]] = {
  'mean': np.mean,
  'deviation': np.std,
  'slope': lambda values: _slope(values),
}


def names(kind: str) -> list[str]:
  """What the numbers of `describe` are, in their order.

  Args:
    kind: 'librosa', 'egemaps' or 'compare'.

  Raises:
    ModuleNotFoundError: openSMILE is wanted and not installed.
  """
  if kind in OPENSMILE:
    return list(_smile(kind).feature_names)
  return [*(f'{name}_{what}' for name in _FRAMES + _VOICED for what in FUNCTIONALS), 'seconds', 'voiced_share']


def describe(samples: np.ndarray, rate: int, *, kind: str) -> np.ndarray:
  """Functionals of a whole clip's sound.

  Args:
    samples: float32 [n], full scale 1.
    rate: Hz.
    kind: 'librosa' (MFCC, spectrum, energy, pitch), 'egemaps' (88 functionals, Eyben 2016) or 'compare' (6373, Schuller
      2016), both by openSMILE.

  Returns:
    float32 [F], finite, in the order of `names`.

  Raises:
    ModuleNotFoundError: openSMILE is wanted and not installed.
  """
  import librosa

  sound = samples.astype(np.float32)
  if rate != RATE:
    sound = librosa.resample(sound, orig_sr=rate, target_sr=RATE)
  sound = np.pad(sound, (0, max(SHORTEST - len(sound), 0)))
  if kind in OPENSMILE:
    result = _smile(kind).process_signal(sound, RATE).to_numpy()[0]
  else:
    result = _by_librosa(sound, seconds=len(samples) / rate)
  return np.nan_to_num(result.astype(np.float32), posinf=0.0, neginf=0.0)


def _smile(kind: str) -> Any:
  try:
    import opensmile
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      f"config.handcrafted.sound={kind} is computed by openSMILE: pip install -e '.[opensmile]' (its licence is for "
      'research, not for products), or set config.handcrafted.sound=librosa'
    ) from error
  level = opensmile.FeatureLevel.Functionals
  return opensmile.Smile(feature_set=opensmile.FeatureSet[OPENSMILE[kind]], feature_level=level)


def _by_librosa(sound: np.ndarray, *, seconds: float) -> np.ndarray:
  frames, pitch, voiced = _descriptors(sound)
  rows = [*frames, *(_voiced_alone(row, voiced) for row in (pitch, _delta(pitch)))]
  told = [what(row) for row in rows for what in FUNCTIONALS.values()]
  return np.array([*told, seconds, voiced.mean()])


def _descriptors(sound: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """_FRAMES [D, T]; pitch [T] in semitones, straight lines through what is voiceless; voiced, bool [T]."""
  import librosa

  of = librosa.feature
  magnitude = np.abs(librosa.stft(sound, n_fft=512, win_length=_WINDOW, hop_length=_SHIFT))
  mfcc = of.mfcc(S=_decibels(of.melspectrogram(S=magnitude**2, sr=RATE, n_mels=40), floor=_ROOM_DB), n_mfcc=13)
  energy = _decibels(of.rms(y=sound, frame_length=_WINDOW, hop_length=_SHIFT) ** 2)
  crossings = of.zero_crossing_rate(sound, frame_length=_WINDOW, hop_length=_SHIFT)
  spectrum = [of.spectral_centroid(S=magnitude, sr=RATE), of.spectral_bandwidth(S=magnitude, sr=RATE)]
  spectrum += [of.spectral_rolloff(S=magnitude, sr=RATE), _decibels(of.spectral_flatness(S=magnitude)), crossings]
  frames = np.concatenate([mfcc, _delta(mfcc), _delta(_delta(mfcc)), *spectrum, energy, _delta(energy)])
  low, high = _PITCH_HZ
  hertz, voiced, _ = librosa.pyin(
    sound, fmin=low, fmax=high, sr=RATE, frame_length=_PITCH_WINDOW, hop_length=_SHIFT, resolution=_PITCH_STEP
  )
  if not voiced.any():
    return frames, np.zeros(len(voiced)), voiced
  place = np.arange(len(hertz))
  return frames, np.interp(place, place[voiced], 12 * np.log2(hertz[voiced] / _SEMITONE_0)), voiced


def _voiced_alone(values: np.ndarray, voiced: np.ndarray) -> np.ndarray:
  return values[voiced] if voiced.any() else np.zeros(1)


def _decibels(power: np.ndarray, *, floor: float = _SILENCE_DB) -> np.ndarray:
  return 10 * np.log10(np.maximum(power, 10 ** (floor / 10)))


def _delta(values: np.ndarray) -> np.ndarray:
  """The slope through 9 frames of [..., T], in units a frame."""
  import librosa

  return librosa.feature.delta(values, width=9, mode='nearest')


def _slope(values: np.ndarray) -> np.ndarray:
  """Of the straight line through [T] values, in units a second; 0 for one value."""
  time = (np.arange(len(values)) - (len(values) - 1) / 2) * _SHIFT / RATE
  return values @ time / max(float(time @ time), 1e-12)

"""Functionals of sounds whose pitch, energy and length are known in closed form."""

import sys

import numpy as np
import pytest

from emo_jax.handcrafted import sound

RATE = 16_000


def tone(hertz: float, *, seconds: float = 1.0, rate: int = RATE, amplitude: float = 0.5) -> np.ndarray:
  return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def described(samples: np.ndarray, rate: int = RATE, kind: str = 'librosa') -> dict[str, float]:
  values = sound.describe(samples, rate, kind=kind)
  assert values.dtype == np.float32 and np.isfinite(values).all()
  return dict(zip(sound.names(kind), values.tolist(), strict=True))


def test_names_are_one_for_each_number() -> None:
  names = sound.names('librosa')
  assert len(set(names)) == len(names) == 48 * 3 + 2


@pytest.mark.parametrize('rate', [RATE, 44_100])
def test_a_tone_has_its_own_pitch_energy_and_spectrum(rate: int) -> None:
  found = described(tone(220, rate=rate), rate)
  assert found['pitch_semitones_mean'] == pytest.approx(36, abs=0.15)  # 220 Hz are three octaves above 27.5 Hz
  assert found['pitch_semitones_deviation'] < 0.2 and abs(found['pitch_semitones_slope']) < 0.2
  assert found['voiced_share'] > 0.9
  assert found['energy_db_mean'] == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.2)
  assert found['zero_crossings_mean'] == pytest.approx(2 * 220 / RATE, rel=0.1)
  assert found['centroid_hz_mean'] == pytest.approx(220, abs=30)
  assert found['flatness_db_mean'] < -40
  assert found['seconds'] == pytest.approx(1)


def test_a_gliding_voice_is_told_by_its_slope() -> None:
  time = np.arange(2 * RATE) / RATE
  octave = np.sin(2 * np.pi * 150 * 2 * (2 ** (time / 2) - 1) / np.log(2)).astype(np.float32)  # 6 semitones a second
  found = described(octave)
  assert found['pitch_semitones_slope'] == pytest.approx(6, abs=0.3)
  assert found['pitch_delta_mean'] == pytest.approx(0.06, abs=0.01)  # a frame of 10 ms
  assert found['pitch_semitones_deviation'] == pytest.approx(12 / np.sqrt(12), rel=0.05)  # of an even spread


def test_a_fading_noise_is_told_by_its_slope() -> None:
  noise = np.random.default_rng(0).normal(size=2 * RATE) * 0.2 * 10 ** (-np.arange(2 * RATE) / RATE)  # 20 dB a second
  found = described(noise.astype(np.float32))
  assert found['energy_db_slope'] == pytest.approx(-20, abs=0.7)
  assert found['energy_delta_mean'] == pytest.approx(-0.2, abs=0.05)
  assert found['voiced_share'] < 0.5 and found['flatness_db_mean'] > -10


def test_a_louder_sound_differs_in_its_level_alone() -> None:
  rng = np.random.default_rng(0)
  samples = tone(180) * (1 + 0.1 * rng.normal(size=RATE)).astype(np.float32) / 3
  quiet, loud = described(samples), described(2 * samples)
  level = 20 * np.log10(2)
  assert loud.pop('energy_db_mean') - quiet.pop('energy_db_mean') == pytest.approx(level, abs=1e-3)
  # The first coefficient is the orthonormal transform of 40 bands' equal rise.
  assert loud.pop('mfcc_1_mean') - quiet.pop('mfcc_1_mean') == pytest.approx(level * np.sqrt(40), abs=0.05)
  assert list(quiet) == list(loud)
  np.testing.assert_allclose(list(loud.values()), list(quiet.values()), rtol=1e-3, atol=2e-3)


def test_silence_is_finite_and_voiceless() -> None:
  found = described(np.zeros(RATE, np.float32))
  assert found['energy_db_mean'] == pytest.approx(-100) and found['energy_db_deviation'] == 0
  assert found['voiced_share'] == found['pitch_semitones_mean'] == 0
  assert found['mfcc_1_mean'] == pytest.approx(-50 * np.sqrt(40)) and found['mfcc_2_mean'] == pytest.approx(0, abs=1e-3)


def test_pitch_is_that_of_voiced_frames_alone() -> None:
  found = described(np.concatenate([tone(220), np.zeros(2 * RATE, np.float32), tone(440, seconds=0.5)]))
  assert found['pitch_semitones_mean'] == pytest.approx((36 + 48 / 2) / 1.5, abs=0.4)  # a line between: 41.1
  assert found['voiced_share'] == pytest.approx(1.5 / 3.5, abs=0.05)


@pytest.mark.parametrize('kind', ['librosa', 'egemaps', 'compare'])
@pytest.mark.parametrize('samples', [1, 400])
def test_a_sound_shorter_than_a_frame_is_described(kind: str, samples: int) -> None:
  if kind != 'librosa':
    pytest.importorskip('opensmile')
  found = described(tone(220)[:samples], kind=kind)
  if kind == 'librosa':
    assert found['seconds'] == pytest.approx(samples / RATE)


@pytest.mark.parametrize(('kind', 'count'), [('egemaps', 88), ('compare', 6373)])
def test_opensmile_gives_as_many_functionals_as_are_published(kind: str, count: int) -> None:
  pytest.importorskip('opensmile')
  assert len(set(sound.names(kind))) == count
  low, high = described(tone(220), kind=kind), described(tone(440, rate=44_100), 44_100, kind=kind)
  if kind == 'egemaps':
    pitch = 'F0semitoneFrom27.5Hz_sma3nz_amean'
    assert (low[pitch], high[pitch]) == (pytest.approx(36, abs=0.2), pytest.approx(48, abs=0.2))
    return
  pitch = 'F0final_sma_quartile2'
  assert (low[pitch], high[pitch]) == (pytest.approx(220, rel=0.02), pytest.approx(440, rel=0.02))


def test_without_opensmile_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setitem(sys.modules, 'opensmile', None)
  with pytest.raises(ModuleNotFoundError, match=r'pip install -e .*opensmile.*licence is for research'):
    sound.names('egemaps')
  with pytest.raises(ModuleNotFoundError, match=r'handcrafted\.sound=compare'):
    sound.describe(tone(220), RATE, kind='compare')

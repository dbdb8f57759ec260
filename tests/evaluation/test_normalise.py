"""Standardising by speaker, against scikit-learn's scaler; what is constant, and who is alone."""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from emo_jax.evaluation.normalise import by_speaker


@pytest.fixture
def pooled() -> tuple[np.ndarray, np.ndarray]:
  """Clips of three speakers, mixed; each speaker has a scale of their own."""
  rng = np.random.default_rng(0)
  speaker = rng.permutation(np.repeat(['anna', 'bo', 'cy'], [4, 7, 9]))
  scale = np.select([speaker == 'anna', speaker == 'bo'], [1, 50], 1e-6)[:, None]
  return (scale * rng.normal(3, 1, size=(20, 6))).astype(np.float32), speaker


def test_each_speaker_is_standardised_as_scikit_learn_does_it(pooled: tuple[np.ndarray, np.ndarray]) -> None:
  features, speaker = pooled
  result = by_speaker(features, speaker)
  assert result.dtype == np.float32
  for name in ('anna', 'bo', 'cy'):
    own = speaker == name
    np.testing.assert_allclose(result[own], StandardScaler().fit_transform(features[own].astype(float)), atol=1e-5)


def test_other_speakers_change_nothing(pooled: tuple[np.ndarray, np.ndarray]) -> None:
  features, speaker = pooled
  own = speaker == 'bo'
  np.testing.assert_array_equal(by_speaker(features, speaker)[own], by_speaker(features[own], speaker[own]))


def test_what_does_not_vary_for_a_speaker_is_zero_for_that_speaker_only() -> None:
  features = np.array([[0.1, 1], [0.1, 2], [0.1, 3], [0.1, 4], [5, 4]], np.float32)
  result = by_speaker(features, np.array(['a', 'a', 'a', 'b', 'b']))
  np.testing.assert_allclose(result[:3], [[0, -(1.5**0.5)], [0, 0], [0, 1.5**0.5]], atol=1e-6)
  np.testing.assert_allclose(result[3:], [[-1, 0], [1, 0]], atol=1e-6)


def test_a_speakers_only_clip_is_zero() -> None:
  features = np.array([[5, -1e30, 7], [1, 2, 3], [3, 2, 9]], np.float32)
  result = by_speaker(features, np.array(['alone', 'two', 'two']))
  np.testing.assert_array_equal(result, [[0, 0, 0], [-1, 0, -1], [1, 0, 1]])


def test_no_clips_stay_no_clips() -> None:
  assert by_speaker(np.zeros((0, 3), np.float32), np.zeros(0, str)).shape == (0, 3)

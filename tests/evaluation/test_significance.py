"""Intervals, tests and effect sizes against enumeration, closed forms and slow numpy."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from emo_jax.evaluation import significance


def enumerated(gains: np.ndarray) -> float:
  """Two-sided p over all 2**n ways to flip."""
  sums = [np.dot(signs, gains) for signs in itertools.product((1, -1), repeat=len(gains))]
  return float(np.mean(np.abs(sums) >= abs(np.sum(gains))))


@pytest.mark.parametrize('speakers', [2, 3, 5, 8])
def test_sign_flips_are_all_enumerated(speakers: int) -> None:
  rng = np.random.default_rng(speakers)
  for _ in range(12):  # small whole numbers: ties and zeros abound
    gains = rng.integers(-3, 5, speakers)
    assert significance.sign_flip(gains) == pytest.approx(enumerated(gains), abs=1e-12), gains


@pytest.mark.parametrize(('speakers', 'p'), [(0, 1.0), (1, 1.0), (2, 0.5), (5, 2 / 32), (8, 2 / 256), (16, 2 / 65536)])
def test_an_effect_that_all_share_has_the_smallest_p(speakers: int, p: float) -> None:
  assert significance.sign_flip(np.arange(1, speakers + 1)) == pytest.approx(p, rel=1e-12)
  assert significance.sign_flip(-np.arange(1, speakers + 1)) == pytest.approx(p, rel=1e-12)
  assert significance.smallest_p(speakers) == (pytest.approx(p, rel=1e-12) if speakers else 1.0)


def test_speakers_without_a_gain_add_nothing() -> None:
  assert significance.sign_flip(np.array([1, 0, 4, 0, 2, 1, 0, 3])) == pytest.approx(2 / 2**5)
  assert significance.sign_flip(np.zeros(8)) == 1.0


def test_without_an_effect_p_is_uniform() -> None:
  rng = np.random.default_rng(0)
  p = np.array([significance.sign_flip(rng.normal(size=8)) for _ in range(400)])
  assert stats.kstest(p, 'uniform').pvalue > 0.01
  assert np.mean(p <= 0.05) < 0.09


def test_many_speakers_are_flipped_at_random_and_always_the_same() -> None:
  """The distribution of the sum of whole numbers is counted by convolution."""
  gains = np.random.default_rng(3).integers(-3, 5, 20)
  ways = {0: 1}
  for gain in gains.tolist():
    longer: dict[int, int] = {}
    for (total, count), sign in itertools.product(ways.items(), (1, -1)):
      longer[total + sign * gain] = longer.get(total + sign * gain, 0) + count
    ways = longer
  exact = sum(count for total, count in ways.items() if abs(total) >= abs(gains.sum())) / 2**20
  p = significance.sign_flip(gains)
  assert p == pytest.approx(exact, abs=0.006) and 0.02 < exact < 0.98
  assert p == significance.sign_flip(gains)
  assert significance.sign_flip(np.ones(20)) >= significance.smallest_p(20) == pytest.approx(2e-5)


def test_fewest_speakers_reach_a_level_and_one_less_does_not() -> None:
  assert [significance.fewest_speakers(level) for level in (0.05, 0.05 / 3, 0.01)] == [6, 7, 8]
  with pytest.raises(ValueError, match='1e-06'):
    significance.fewest_speakers(1e-6)


def test_a_bootstrap_interval_is_that_of_a_slow_bootstrap() -> None:
  """Speakers weigh as many clips as they have; one of them has most."""
  rng = np.random.default_rng(1)
  clips = np.array([10, 12, 9, 11, 60, 8, 10, 12])
  right = np.array([5, 9, 2, 7, 55, 4, 8, 3.5])
  rates = []
  for _ in range(20000):
    drawn = rng.integers(0, 8, 8)
    rates.append(right[drawn].sum() / clips[drawn].sum())
  low, high = np.percentile(rates, [2.5, 97.5])
  assert significance.bootstrap_interval(right, clips) == (
    pytest.approx(low, abs=0.012),
    pytest.approx(high, abs=0.012),
  )
  assert significance.bootstrap_interval(right, clips) == significance.bootstrap_interval(right, clips)


def test_an_interval_of_many_clips_is_that_of_the_normal_law() -> None:
  values = np.random.default_rng(5).normal(0.2, 1, 3000)
  low, high = significance.bootstrap_interval(values, np.ones(3000)) or (0, 0)
  error = 1.96 * values.std() / math.sqrt(3000)
  assert low == pytest.approx(values.mean() - error, abs=0.003)
  assert high == pytest.approx(values.mean() + error, abs=0.003)


def test_equal_speakers_have_an_interval_without_width_and_one_speaker_has_none() -> None:
  assert significance.bootstrap_interval(np.full(8, 6), np.full(8, 24)) == (0.25, 0.25)
  assert significance.bootstrap_interval(np.full(8, 24), np.full(8, 24)) == (1, 1)
  assert significance.bootstrap_interval(np.zeros(2), np.ones(2)) == (0, 0)
  assert significance.bootstrap_interval(np.array([3]), np.array([4])) is None
  assert significance.bootstrap_interval(np.array([3, 0, 0]), np.array([4, 0, 0])) is None
  assert significance.bootstrap_interval(np.zeros(0), np.zeros(0)) is None


@pytest.mark.parametrize(('right', 'clips'), [(0, 10), (10, 10), (7, 10), (95 + 1 / 3, 192)])
def test_a_clip_interval_is_wilsons(right: float, clips: int) -> None:
  z = stats.norm.ppf(0.975)
  share = right / clips
  middle = (share + z**2 / (2 * clips)) / (1 + z**2 / clips)
  half = z / (1 + z**2 / clips) * math.sqrt(share * (1 - share) / clips + z**2 / (4 * clips**2))
  assert significance.clip_interval(right, clips) == (
    pytest.approx(middle - half, abs=1e-12),
    pytest.approx(middle + half, abs=1e-12),
  )


def test_no_clips_have_no_interval() -> None:
  assert significance.clip_interval(0, 0) is None


def test_effect_size_is_the_mean_over_the_deviation() -> None:
  assert significance.effect_size(np.array([1, 2, 3])) == pytest.approx(2)
  assert significance.effect_size(np.array([-1, -3])) == pytest.approx(-2 / math.sqrt(2))
  assert significance.effect_size(np.full(8, 0.1)) is None
  assert significance.effect_size(np.array([4])) is None
  assert significance.effect_size(np.zeros(0)) is None


@pytest.mark.parametrize('speakers', [6, 8, 43])
def test_a_detectable_effect_is_found_four_times_in_five(speakers: int) -> None:
  """By the noncentral t distribution."""
  shift = significance.detectable_effect(speakers) * math.sqrt(speakers)
  limit = stats.t.ppf(0.975, speakers - 1)
  power = stats.nct.sf(limit, speakers - 1, shift) + stats.nct.cdf(-limit, speakers - 1, shift)
  assert power == pytest.approx(0.8, abs=1e-4)


def test_holm_by_hand() -> None:
  assert significance.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
  assert significance.holm([0.0078125, 0.6, 0.9]) == pytest.approx([0.0234375, 1, 1])
  assert significance.holm([]) == []


@pytest.mark.parametrize(('only_first', 'only_second'), [(0, 0), (5, 0), (3, 9), (7, 7)])
def test_mcnemar_is_a_binomial_test_of_the_clips_that_differ(only_first: int, only_second: int) -> None:
  first = np.array([True] * (only_first + 6) + [False] * (only_second + 2))
  second = np.array([False] * only_first + [True] * (6 + only_second) + [False] * 2)
  different = only_first + only_second
  wanted = stats.binomtest(only_first, different).pvalue if different else 1
  assert significance.mcnemar(first, second) == pytest.approx(wanted)

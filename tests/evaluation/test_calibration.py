"""Temperature scaling and reliability against grids, samples of a known temperature, and figures by hand."""

import numpy as np
import pytest

from emo_jax.evaluation import calibration


def drawn(temperature: float, clips: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
  """Scores, and truths that are drawn from their softmax at a temperature."""
  rng = np.random.default_rng(7)
  scores = rng.normal(0, 2, (clips, classes))
  odds = np.exp(scores / temperature)
  truth = [rng.choice(classes, p=row / row.sum()) for row in odds]
  return scores, np.array(truth)


def log_loss(scores: np.ndarray, truth: np.ndarray, temperature: float) -> float:
  odds = np.exp(scores / temperature)
  return float(-np.mean(np.log(odds[np.arange(len(truth)), truth] / odds.sum(1))))


def test_probabilities_are_the_softmax_and_nothing_for_a_class_that_was_not_learnt() -> None:
  scores = np.array([[1.0, 3.0, -np.inf], [2.0, 2.0, 2.0]])
  wanted = [[1 / (1 + np.e), np.e / (1 + np.e), 0], [1 / 3] * 3]
  np.testing.assert_allclose(calibration.probabilities(scores, 2.0), wanted, rtol=1e-12)
  each = calibration.probabilities(scores, np.array([[1.0], [2.0]]))
  np.testing.assert_allclose(each[0], [1 / (1 + np.e**2), np.e**2 / (1 + np.e**2), 0], rtol=1e-12)


@pytest.mark.parametrize('temperature', [0.4, 1.0, 3.0])
def test_a_known_temperature_is_found_again(temperature: float) -> None:
  scores, truth = drawn(temperature, 6000)
  assert calibration.fit_temperature(scores, truth) == pytest.approx(temperature, rel=0.06)
  assert calibration.fit_temperature(10 * scores, truth) == pytest.approx(10 * temperature, rel=0.06)


def test_no_temperature_of_a_grid_is_better() -> None:
  scores, truth = drawn(2.0, 60)
  fitted = log_loss(scores, truth, calibration.fit_temperature(scores, truth))
  assert fitted <= min(log_loss(scores, truth, t) for t in np.geomspace(0.05, 50, 400)) + 1e-9


def test_clips_of_a_class_that_was_not_learnt_change_no_temperature() -> None:
  scores, truth = drawn(2.0, 200)
  unknown = np.array([[0.0, 5.0, 1.0, -np.inf]] * 30)
  more = calibration.fit_temperature(np.concatenate([scores, unknown]), np.concatenate([truth, np.full(30, 3)]))
  assert more == pytest.approx(calibration.fit_temperature(scores, truth), rel=1e-4)


@pytest.mark.parametrize(
  ('scores', 'truth'),
  [(np.zeros((5, 3)), [0, 1, 2, 0, 1]), (np.array([[0.0, 1.0, -np.inf]]), [2]), (np.zeros((0, 3)), [])],
)
def test_where_nothing_can_be_fitted_scores_stay_as_they_are(scores: np.ndarray, truth: list[int]) -> None:
  assert calibration.fit_temperature(scores, np.array(truth, int)) == 1.0


def test_scores_that_are_always_right_or_always_wrong_keep_a_finite_temperature() -> None:
  scores = np.array([[3.0, 1.0], [2.5, 1.0], [1.0, 4.0]])
  low, high = calibration.TEMPERATURES
  assert low <= calibration.fit_temperature(scores, np.array([0, 0, 1])) < 0.1
  assert 10 < calibration.fit_temperature(scores, np.array([1, 1, 0])) <= high


def test_calibration_error_by_hand() -> None:
  """Two clips at 0.95, one of them right; two at 0.65, one right; two at 0.5, the upper edge of its bin, both right."""
  first = np.array([0.95, 0.95, 0.65, 0.65, 0.5, 0.5])
  of_clips, truth = np.stack([first, 1 - first], 1), np.array([0, 1, 0, 1, 0, 0])
  found = calibration.reliability(of_clips, truth)
  assert found['ece'] == pytest.approx((2 * 0.45 + 2 * 0.15 + 2 * 0.5) / 6)
  assert found['nll'] == pytest.approx(-np.mean(np.log([0.95, 0.05, 0.65, 0.35, 0.5, 0.5])))
  assert [b['clips'] for b in found['bins']] == [0, 0, 0, 0, 2, 0, 2, 0, 0, 2]
  assert found['bins'][4] == {'low': 0.4, 'high': 0.5, 'clips': 2, 'confidence': 0.5, 'accuracy': 1.0}
  assert found['bins'][9]['accuracy'] == 0.5
  assert found['bins'][0]['confidence'] is None and found['bins'][0]['accuracy'] is None


def test_all_that_is_sure_and_wrong_is_as_far_off_as_can_be_and_finite() -> None:
  found = calibration.reliability(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([1, 1]))
  assert found['ece'] == 1.0 and found['bins'][-1]['clips'] == 2
  assert found['nll'] == pytest.approx(-np.log(1e-12))


def test_scores_of_a_known_temperature_are_calibrated_at_it() -> None:
  scores, truth = drawn(3.0, 6000)
  before, after = (calibration.reliability(calibration.probabilities(scores, t), truth) for t in (1.0, 3.0))
  assert before['ece'] > 0.15 and after['ece'] < 0.03 and after['nll'] < before['nll']


def test_coupling_is_the_product_of_pairwise_chances() -> None:
  """By hand for three classes; one that was never seen gets nothing."""
  margins = np.array([[[0.0, 2.0, -1.0], [-2.0, 0.0, 0.5], [1.0, -0.5, 0.0]]])
  chance = lambda margin: 1 / (1 + np.exp(-1.5 * margin))
  products = np.array([chance(2.0) * chance(-1.0), chance(-2.0) * chance(0.5), chance(1.0) * chance(-0.5)]) ** (1 / 0.7)
  found = calibration.coupled(margins, sharpness=1.5, temperature=0.7)
  np.testing.assert_allclose(found[0], products / products.sum(), rtol=1e-9)
  unseen = np.full((1, 4, 4), np.inf)
  unseen[:, 3], unseen[:, :3, :3] = -np.inf, margins
  np.testing.assert_allclose(calibration.coupled(unseen, sharpness=1.5, temperature=0.7)[0], [*found[0], 0], rtol=1e-9)


def test_a_coupling_is_found_again_from_its_own_draws() -> None:
  rng = np.random.default_rng(5)
  upper = np.triu(rng.normal(0, 2, (20000, 4, 4)), 1)
  margins = upper - upper.transpose(0, 2, 1)
  shares = calibration.coupled(margins, sharpness=0.6, temperature=2.0)
  truth = (shares.cumsum(1) > rng.random((20000, 1))).argmax(1)
  fitted = calibration.fit_coupling(margins, truth)
  np.testing.assert_allclose(calibration.coupled(margins[:500], **fitted), shares[:500], atol=0.03)


def test_a_few_clips_that_are_all_right_are_no_certainty_and_none_change_nothing() -> None:
  margins = np.zeros((8, 3, 3))
  margins[:, 0, 1:], margins[:, 1:, 0] = 1.0, -1.0
  few = calibration.fit_coupling(margins, np.zeros(8, int))
  assert 0.7 < calibration.coupled(margins, **few)[0, 0] < 0.99
  none = calibration.fit_coupling(margins[:0], np.zeros(0, int))
  assert none == pytest.approx({'sharpness': 1, 'temperature': 1}, abs=1e-3)

"""Accuracy, UAR and confusion against scikit-learn."""

import warnings

import numpy as np
import pytest
from sklearn import metrics as oracle

from emo_jax.evaluation.metrics import confusion, summary


@pytest.mark.parametrize('classes', [2, 6])
@pytest.mark.parametrize('absent', [0, 1])
def test_figures_equal_scikit_learns(classes: int, absent: int) -> None:
  """With a class that never occurs but is a verdict, UAR is over those that occur."""
  rng = np.random.default_rng(classes)
  truth = rng.integers(absent if classes > 2 else 0, classes, 97)
  verdict = np.where(rng.random(97) < 0.5, truth, rng.integers(0, classes, 97))
  table = confusion(truth, verdict, classes=classes)
  np.testing.assert_array_equal(table, oracle.confusion_matrix(truth, verdict, labels=range(classes)))
  got = summary(table)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # a verdict that is never the truth
    uar = oracle.balanced_accuracy_score(truth, verdict)
  assert got == {
    'clips': 97,
    'accuracy': pytest.approx(oracle.accuracy_score(truth, verdict)),
    'uar': pytest.approx(uar),
  }
  assert type(got['clips']) is int and type(got['accuracy']) is float and type(got['uar']) is float


def test_without_clips_the_figures_are_zero() -> None:
  none = np.zeros(0, int)
  assert summary(confusion(none, none, classes=3)) == {'clips': 0, 'accuracy': 0.0, 'uar': 0.0}

"""The SVM that is saved as arrays against scikit-learn's own decision values and verdicts."""

import io

import numpy as np
import pytest
from sklearn import datasets
from sklearn.svm import SVC

from emo_jax.evaluation import svm

Split = tuple[np.ndarray, np.ndarray, np.ndarray]


def data(name: str, kept: int) -> Split:
  """Training features and labels, and features to judge: the first `kept` classes of a set, shuffled."""
  features, labels = {'iris': datasets.load_iris, 'digits': datasets.load_digits}[name](return_X_y=True)
  features = features.astype(np.float32)  # as the networks' are
  order = np.random.default_rng(0).permutation(np.flatnonzero(labels < kept))[:600]
  half = len(order) // 2
  return features[order[:half]], labels[order[:half]], features[order[half:]]


def oracle(split: Split, c: float) -> tuple[SVC, np.ndarray]:
  """scikit-learn's machine on features scaled by the training rows, and the rows to judge, scaled alike."""
  train, labels, test = split
  low, high = train.min(0), train.max(0)
  scale = lambda x: (x - low) / np.where(high > low, high - low, 1)
  return SVC(kernel='linear', C=c, break_ties=len(np.unique(labels)) > 2).fit(scale(train), labels), scale(test)


@pytest.mark.parametrize('c', [0.05, 1.0])
@pytest.mark.parametrize(('name', 'classes'), [('iris', 3), ('digits', 10), ('digits', 4)])
def test_scores_and_verdicts_equal_scikit_learns(name: str, classes: int, c: float) -> None:
  split = data(name, classes)
  machine, scaled = oracle(split, c)
  scores = svm.scores(svm.fit(*split[:2], c=c, classes=classes), split[2])
  np.testing.assert_allclose(scores, machine.decision_function(scaled), atol=1e-5)
  np.testing.assert_array_equal(scores.argmax(1), machine.predict(scaled))


@pytest.mark.parametrize('name', ['iris', 'digits'])
def test_two_classes_get_scikit_learns_verdicts(name: str) -> None:
  train, labels, test = data(name, 3)
  split = train[labels > 0], labels[labels > 0], test  # 1 and 2, not linearly separable in iris
  machine, scaled = oracle(split, 0.1)
  scores = svm.scores(svm.fit(*split[:2], c=0.1, classes=3), test)
  np.testing.assert_array_equal(scores.argmax(1), machine.predict(scaled))
  assert set(scores.argmax(1)) == {1, 2} and (scores[:, 0] == -np.inf).all()
  margin = scores[:, 2] - scores[:, 1]
  np.testing.assert_array_equal(np.argsort(margin), np.argsort(machine.decision_function(scaled)))


def test_classes_that_training_lacks_are_never_the_verdict() -> None:
  train, labels, test = data('digits', 10)
  seen = ~np.isin(labels, (0, 4, 9))
  split = train[seen], labels[seen], test
  machine, scaled = oracle(split, 1.0)
  scores = svm.scores(svm.fit(*split[:2], c=1.0, classes=10), test)
  assert (scores[:, [0, 4, 9]] == -np.inf).all()
  np.testing.assert_allclose(scores[:, [1, 2, 3, 5, 6, 7, 8]], machine.decision_function(scaled), atol=1e-5)
  np.testing.assert_array_equal(scores.argmax(1), machine.predict(scaled))


def test_a_clips_scores_do_not_depend_on_the_clips_beside_it() -> None:
  """Scaling by the judged clips would be a leak."""
  train, labels, test = data('iris', 3)
  machine = svm.fit(train, labels, c=1.0, classes=3)
  alone = np.concatenate([svm.scores(machine, 3 * row[None]) for row in test])
  np.testing.assert_allclose(alone, svm.scores(machine, 3 * test), rtol=1e-12)


def test_units_and_constant_features_do_not_matter() -> None:
  train, labels, test = data('iris', 3)
  padded = lambda x: np.column_stack([x * [1e-3, 1, 1e3, 1e5] + [5, 0, -7, 0], np.full(len(x), 4.0)])
  plain = svm.scores(svm.fit(train, labels, c=1.0, classes=3), test)
  scaled = svm.scores(svm.fit(padded(train), labels, c=1.0, classes=3), padded(test))
  np.testing.assert_allclose(scaled, plain, atol=1e-3)


def test_float32_features_survive_saving_without_pickle() -> None:
  train, labels, test = data('digits', 10)
  machine = svm.fit(train, labels, c=1.0, classes=10)
  file = io.BytesIO()
  np.savez(file, **machine)
  file.seek(0)
  with np.load(file, allow_pickle=False) as loaded:
    np.testing.assert_array_equal(svm.scores(dict(loaded), test), svm.scores(machine, test))


def test_one_class_alone_is_refused() -> None:
  with pytest.raises(ValueError, match='two emotions'):
    svm.fit(np.random.default_rng(0).normal(size=(4, 2)), np.array([1, 1, 1, 1]), c=1.0, classes=3)


def right(split: Split, held_labels: np.ndarray, c: float) -> int:
  """How many of the rows to judge scikit-learn's machine with this penalty gets right."""
  machine, scaled = oracle(split, c)
  return int((machine.predict(scaled) == held_labels).sum())


@pytest.mark.parametrize('candidates', [(10.0, 0.003, 0.1), (0.1, 10, 0.003)])
def test_the_penalty_that_is_best_on_held_rows_is_kept(candidates: tuple[float, ...]) -> None:
  """Each penalty in turn is made the best one, by taking its own verdicts for the truth."""
  split = data('digits', 10)
  for best in candidates:
    held_labels = oracle(split, best)[0].predict(oracle(split, best)[1])
    machine = svm.choose(*split[:2], split[2], held_labels, candidates=candidates, classes=10)
    assert max(candidates, key=lambda c: right(split, held_labels, c)) == best == machine['c']
    fixed = svm.fit(*split[:2], c=best, classes=10)
    assert machine.keys() == fixed.keys()
    for name, array in fixed.items():
      np.testing.assert_array_equal(machine[name], array, err_msg=name)


def test_the_smallest_of_equally_good_penalties_is_kept() -> None:
  rng = np.random.default_rng(0)
  labels = np.arange(20) % 2
  features = (labels[:, None] + 0.1 * rng.random((20, 3))).astype(np.float32)  # any penalty parts these
  machine = svm.choose(features, labels, features, labels, candidates=(10, 1, 100.0), classes=2)
  assert machine['c'] == 1


def test_without_held_rows_no_penalty_is_chosen() -> None:
  train, labels, test = data('iris', 3)
  with pytest.raises(ValueError, match=r'no held clip .*config.svm.candidates=\(\)'):
    svm.choose(train, labels, test[:0], labels[:0], candidates=(1.0,), classes=3)


def test_margins_are_those_of_scikit_learns_pairwise_machines() -> None:
  """decision_function_shape='ovo' gives them, pair by pair; a class that was never seen loses against all."""
  rng = np.random.default_rng(3)
  features, labels = rng.normal(size=(60, 5)), np.array([0, 1, 3])[rng.integers(3, size=60)]
  arrays = svm.fit(features, labels, c=1.0, classes=4)
  scaled = (features - arrays['low']) / arrays['spread']
  oracle = SVC(kernel='linear', C=1.0, decision_function_shape='ovo').fit(scaled, labels).decision_function(scaled)
  margins = svm.margins(arrays, features)
  for number, (first, second) in enumerate([(0, 1), (0, 3), (1, 3)]):
    np.testing.assert_allclose(margins[:, first, second], oracle[:, number], atol=1e-6)
    np.testing.assert_allclose(margins[:, second, first], -oracle[:, number], atol=1e-6)
  assert (margins[:, [0, 1, 3], 2] == np.inf).all() and (margins[:, 2] == -np.inf).all()

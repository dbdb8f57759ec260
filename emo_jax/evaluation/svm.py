"""Clip vectors to emotions: a linear SVM on min-max features (pipeline step: decide; method.md A5).

The fitted machine is a dict of plain arrays, saved without pickle.
"""

from collections.abc import Sequence

import numpy as np

Arrays = dict[str, np.ndarray]


def fit_scaler(features: np.ndarray, weight: np.ndarray | float = 1.0) -> Arrays:
  """What brings features [clips, F] to [0, weight]: 'low' and 'spread' [F]; what never varies becomes 0."""
  spread = np.ptp(features, axis=0)
  return {'low': features.min(0), 'spread': (np.where(spread > 0, spread, 1) / weight).astype(np.float32)}


def fit(
  features: np.ndarray, labels: np.ndarray, *, c: float, classes: int, weight: np.ndarray | float = 1.0
) -> Arrays:
  """Fits LIBSVM's linear machine, one against one, on features scaled to [0, 1] by these very rows.

  Args:
    features: [clips, F].
    labels: int [clips], class indices.
    c: penalty.
    classes: C, of which some may be missing here.
    weight: [F], what each feature is scaled up to in place of 1.

  Returns:
    arrays: low, spread [F]; coefficients [pairs, F], intercepts [pairs]; present [k], the classes that were seen;
    classes [] and c [], as given.

  Raises:
    ValueError: all rows have one label.
  """
  from sklearn.svm import SVC

  present = np.unique(labels)
  if len(present) < 2:
    raise ValueError(f'{len(labels)} training clips, all of class {present}: an SVM needs clips of two emotions')
  scaler = fit_scaler(features, weight)
  machine = SVC(kernel='linear', C=c).fit((features - scaler['low']) / scaler['spread'], labels)
  sign = -1.0 if len(present) == 2 else 1.0  # scikit-learn turns the sign of a two-class machine
  return {
    **scaler,
    'coefficients': sign * np.asarray(machine.coef_),
    'intercepts': sign * machine.intercept_,
    'present': present,
    'classes': np.asarray(classes),
    'c': np.asarray(float(c)),
  }


def _pairwise(arrays: Arrays, features: np.ndarray) -> np.ndarray:
  """What each pairwise machine says, float [clips, pairs]; above 0 it is the first of its classes."""
  return ((features - arrays['low']) / arrays['spread']) @ arrays['coefficients'].T + arrays['intercepts']


def margins(arrays: Arrays, features: np.ndarray) -> np.ndarray:
  """How far each pairwise machine decides for the first of its classes.

  Args:
    arrays: from `fit`.
    features: [clips, F].

  Returns:
    float [clips, C, C], for the class of the row, against that of the column; infinite against a class that the
    training clips did not have, and of that -infinite.
  """
  count, present = int(arrays['classes']), arrays['present']
  known = np.isin(np.arange(count), present)
  result = np.zeros((len(features), count, count))
  result[:, known[:, None] & ~known], result[:, ~known] = np.inf, -np.inf
  first, second = (present[of] for of in np.triu_indices(len(present), 1))
  given = _pairwise(arrays, features)
  result[:, first, second], result[:, second, first] = given, -given
  return result


def scores(arrays: Arrays, features: np.ndarray) -> np.ndarray:
  """One score a class: votes of the pairwise machines, ties broken by their summed margins (scikit-learn's 'ovr').

  Args:
    arrays: from `fit`.
    features: [clips, F].

  Returns:
    float [clips, C]; the highest is the verdict, -inf stands at classes that the training clips did not have.
  """
  given = _pairwise(arrays, features)
  count = len(arrays['present'])
  votes, confidence = np.zeros((len(features), count)), np.zeros((len(features), count))
  pairs = [(first, second) for first in range(count) for second in range(first + 1, count)]
  for (first, second), margin in zip(pairs, given.T, strict=True):
    votes[:, first] += margin >= 0
    votes[:, second] += margin < 0
    confidence[:, first] += margin
    confidence[:, second] -= margin
  result = np.full((len(features), int(arrays['classes'])), -np.inf)
  result[:, arrays['present']] = votes + confidence / (3 * (np.abs(confidence) + 1))
  return result


def choose(
  features: np.ndarray,
  labels: np.ndarray,
  held: np.ndarray,
  held_labels: np.ndarray,
  *,
  candidates: Sequence[float],
  classes: int,
  weight: np.ndarray | float = 1.0,
) -> Arrays:
  """Fits a machine with each penalty to the training clips, and keeps the one that is right on most held clips.

  Args:
    features, labels: [clips, F] and int [clips], to fit.
    held, held_labels: [held clips, F] and int [held clips], of speakers that are neither fitted nor judged.
    candidates: penalties, one or more; the smallest of the equally good ones is kept.
    classes: C.
    weight: [F], as `fit` has it.

  Returns:
    arrays, as `fit` does; `c` is the penalty that was chosen.

  Raises:
    ValueError: nothing to choose on, or nothing to fit.
  """
  if not len(held_labels):
    raise ValueError("no held clip can be used to choose the SVM's C; set config.svm.candidates=() for a fixed one")
  machines = [fit(features, labels, c=c, classes=classes, weight=weight) for c in sorted(candidates)]
  right = [np.sum(scores(machine, held).argmax(1) == held_labels) for machine in machines]
  return machines[int(np.argmax(right))]

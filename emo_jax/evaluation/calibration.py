"""Whether a contender is as often right as it is sure: temperature scaling, reliability (pipeline step: report).

Sources: Guo, Pleiss, Sun, Weinberger, On Calibration of Modern Neural Networks, 2017. For pairs of classes Platt 1999;
Price, Knerr, Personnaz, Dreyfus, Pairwise Neural Network Classifiers with Probabilistic Outputs, 1995.
"""

from typing import Any

import numpy as np

BINS = 10
TEMPERATURES = (0.01, 100.0)  # the bounds of what is fitted
_LEAST = 1e-12  # a probability below it counts as this


def probabilities(scores: np.ndarray, temperature: float | np.ndarray = 1.0) -> np.ndarray:
  """softmax(scores / temperature).

  Args:
    scores: [N, C]; -inf for classes that were not learnt, never all of a row.
    temperature: one for all, or [N, 1].

  Returns:
    float [N, C].
  """
  from scipy import special

  return special.softmax(np.asarray(scores, float) / temperature, axis=1)


def fit_temperature(scores: np.ndarray, truth: np.ndarray) -> float:
  """The temperature at which `probabilities` give these clips the least log-loss.

  Clips of a class that was not learnt (-inf) say nothing about it. Where no temperature betters 1, or there is no clip
  to fit to, it is 1.

  Args:
    scores: [N, C], of clips that are neither learnt from nor judged.
    truth: int [N].
  """
  from scipy import optimize, special

  own = np.asarray(scores, float)[np.arange(len(truth)), truth]
  known = np.isfinite(own)
  own, rest = own[known], np.asarray(scores, float)[known]
  loss = lambda log: float(np.sum(special.logsumexp(rest / np.exp(log), axis=1) - own / np.exp(log)))
  best = optimize.minimize_scalar(loss, bounds=np.log(TEMPERATURES), method='bounded', options={'xatol': 1e-6})
  return float(np.exp(best.x)) if best.fun < loss(0.0) else 1.0


def coupled(margins: np.ndarray, *, sharpness: float, temperature: float) -> np.ndarray:
  """Probabilities from an SVM's pairwise margins: of each class the product of its chances against all others.

  The votes of `svm.scores` come in whole numbers and are as sure of a clip at a border as of one far from it.

  Args:
    margins: [N, C, C], from svm.margins.
    sharpness: of the margins, before a logistic function makes a chance of each.
    temperature: of the products.

  Returns:
    float [N, C].
  """
  from scipy import special

  return special.softmax(special.log_expit(margins * sharpness).sum(2) / temperature, axis=1)


def fit_coupling(margins: np.ndarray, truth: np.ndarray) -> dict[str, float]:
  """'sharpness' and 'temperature' with which `coupled` gives these clips the least log-loss, and a weak wish for 1.

  Their logarithms have a standard normal prior: without it, a few clips that are all right come to certainty, and
  margins that say little are sharpened without end.

  Args:
    margins: [N, C, C], of clips that are neither learnt from nor judged; without any, both are 1.
    truth: int [N], classes that were learnt.
  """
  from scipy import optimize

  def loss(logs: np.ndarray) -> float:
    shares = coupled(margins, sharpness=np.exp(logs[0]), temperature=np.exp(logs[1]))
    likelihood = np.maximum(shares[np.arange(len(truth)), truth], _LEAST)
    return float(np.sum(np.square(logs)) / 2 - np.sum(np.log(likelihood)))

  best = optimize.minimize(loss, np.zeros(2), method='Nelder-Mead')
  return {'sharpness': float(np.exp(best.x[0])), 'temperature': float(np.exp(best.x[1]))}


def reliability(of_clips: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
  """How far sureness and rightness are apart.

  Args:
    of_clips: probabilities [N, C] of one clip and more.
    truth: int [N].

  Returns:
    'ece': expected calibration error, the mean gap between confidence (the largest probability) and accuracy over bins
    of equal width, weighted by their clips; 'nll': mean negative log likelihood in nats; 'bins': BINS dicts with
    'low' and 'high' (a bin holds its upper edge), 'clips', and the means 'confidence' and 'accuracy', None without
    clips.
  """
  confidence, right = of_clips.max(1), of_clips.argmax(1) == truth
  edges = np.linspace(0, 1, BINS + 1)
  place = np.searchsorted(edges[1:-1], confidence, side='left')
  bins: list[dict[str, Any]] = []
  for number in range(BINS):
    own = place == number
    means = (float(confidence[own].mean()), float(right[own].mean())) if own.any() else (None, None)
    of_bin = {'low': float(edges[number]), 'high': float(edges[number + 1]), 'clips': int(own.sum())}
    bins.append({**of_bin, 'confidence': means[0], 'accuracy': means[1]})
  gaps = [b['clips'] * abs(b['confidence'] - b['accuracy']) for b in bins if b['clips']]
  likelihood = np.maximum(of_clips[np.arange(len(truth)), truth], _LEAST)
  return {'ece': sum(gaps) / len(truth), 'nll': float(-np.mean(np.log(likelihood))), 'bins': bins}

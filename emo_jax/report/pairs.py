"""Two contenders held against each other, speaker by speaker (pipeline step: report)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from emo_jax.evaluation import significance
from emo_jax.report.cells import Clips, Results, Row

Dict = dict[str, Any]


def ends(interval: significance.Interval | None) -> list[float | None]:
  return list(interval) if interval else [None, None]


def sums(values: np.ndarray, speaker: np.ndarray) -> np.ndarray:
  """Of each speaker that occurs, in order, the sum of its values."""
  return np.bincount(np.unique(speaker, return_inverse=True)[1], weights=values)


def shared_runs(rows: Sequence[Row]) -> list[list[int]]:
  """Of each run that all rows have, its place in each row; a run of a row without fusion seeds pairs with all."""
  nets = set.intersection(*({nets_seed for nets_seed, _ in row.runs} for row in rows))
  seeded = [set(row.runs) for row in rows if row.seeded]
  runs = set.intersection(*seeded) if seeded else set(rows[0].runs)
  paired = sorted(run for run in runs if run[0] in nets)
  place = lambda row, run: [of if row.seeded else of[0] for of in row.runs].index(run if row.seeded else run[0])
  return [[place(row, run) for row in rows] for run in paired]


def rights(rows: Sequence[Row], clips: Clips) -> list[np.ndarray]:
  """Of each row bool [R, K], over the runs that all have: whether it is right."""
  places = np.array(shared_runs(rows), int).reshape(-1, len(rows))
  return [row.test.verdict[places[:, number]] == clips.truth for number, row in enumerate(rows)]


def best_rival(rivals: Sequence[Row], results: Results) -> np.ndarray | None:
  """Which rival [K] stands at each clip: its fold's best on held clips; None where there are none."""
  held, chosen = results.held, np.zeros(len(results.test.clip), int)
  common = np.all([row.held.verdict[0] >= 0 for row in rivals], axis=0)
  for fold in np.unique(results.test.fold):
    own = common & (held.fold == fold)
    if not own.any():
      return None
    accuracies = [(row.held.verdict[:, own] == held.truth[own]).mean() for row in rivals]
    chosen[results.test.fold == fold] = int(np.argmax(accuracies))
  return chosen


def difference(first: np.ndarray, second: np.ndarray, speaker: np.ndarray) -> tuple[Dict, np.ndarray, np.ndarray]:
  """How far apart two are, of the same runs and clips bool [R, K], and each speaker's gain, in clips times runs.

  A speaker weighs as many clips as it has, so that the difference is that of the accuracies. Third the gains in
  accuracy, which do not hang on how many.
  """
  gain = first.sum(0) - second.sum(0)
  gains, clips = sums(gain, speaker), sums(np.full(len(gain), len(first)), speaker)
  return (
    {
      'difference': float(gains.sum() / clips.sum()),
      'interval': ends(significance.bootstrap_interval(gains, clips)),
      'dz': significance.effect_size(gains / clips),
      'better': int(np.sum(gains > 0)),
      'equal': int(np.sum(gains == 0)),
      'worse': int(np.sum(gains < 0)),
    },
    gains,
    gains / clips,
  )


def contrast(row: Row, rivals: Sequence[Row], results: Results) -> tuple[Dict, np.ndarray] | str:
  """The test of a contrast, and the speakers' gains in accuracy; or why there is none."""
  chosen = best_rival(rivals, results) if len(rivals) > 1 else np.zeros(len(results.test.clip), int)
  if chosen is None:
    return 'a fold has no held clips to choose the rival on'
  first, *seconds = rights([row, *rivals], results.test)
  every = np.arange(len(chosen))
  could = np.array([rival.test.verdict[0] >= 0 for rival in rivals])[chosen, every] & (row.test.verdict[0] >= 0)
  if not len(first) or not could.any():
    return 'they share no run or no clip'
  second = np.array(seconds)[chosen, :, every].T
  found, gains, in_accuracy = difference(first[:, could], second[:, could], results.test.speaker[could])
  by_fold = [int(chosen[results.test.fold == fold][0]) for fold in np.unique(results.test.fold)]
  told = {
    **{name: found[name] for name in ('difference', 'interval')},
    'p': significance.sign_flip(gains),
    **{name: found[name] for name in ('dz', 'better', 'equal', 'worse')},
    'chosen': [rivals[number].name for number in by_fold] if len(rivals) > 1 else None,
  }
  return told, in_accuracy

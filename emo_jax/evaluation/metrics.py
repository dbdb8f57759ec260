"""How good the verdicts are: accuracy, unweighted average recall, confusion (pipeline step: decide)."""

import numpy as np


def confusion(truth: np.ndarray, verdict: np.ndarray, *, classes: int) -> np.ndarray:
  """Raw counts int [C, C]; rows are the truth."""
  table = np.zeros((classes, classes), np.int64)
  np.add.at(table, (truth, verdict), 1)
  return table


def summary(table: np.ndarray) -> dict[str, float | int]:
  """Clips, accuracy and UAR of a confusion matrix [C, C]; UAR is over the classes that occur, both are 0 to 1.

  Without any clip both are 0, and `clips` says so.
  """
  count = table.sum(1)
  recall = np.diag(table)[count > 0] / count[count > 0]
  clips = int(count.sum())
  return {
    'clips': clips,
    'accuracy': float(np.trace(table) / clips) if clips else 0.0,
    'uar': float(recall.mean()) if clips else 0.0,
  }

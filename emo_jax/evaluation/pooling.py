"""Segments to clips: one vector a clip (pipeline step: pool; method.md A5)."""

from collections.abc import Callable

import numpy as np


def _mean_std(segments: np.ndarray) -> np.ndarray:
  return np.concatenate([segments.mean(0), segments.std(0)])


def _mean_std_deltas(segments: np.ndarray) -> np.ndarray:
  padded = np.pad(segments, ((1, 1), (0, 0)), mode='edge')
  return np.concatenate([_mean_std(segments), _mean_std(padded[2:] - padded[:-2])])


def _pyramid(segments: np.ndarray) -> np.ndarray:
  count = len(segments)
  means = []
  for cells, weight in ((1, 1 / 4), (2, 1 / 4), (4, 1 / 2)):
    for cell in range(cells):
      start, stop = cell * count // cells, -(-(cell + 1) * count // cells)  # down and up: a cell is never empty
      means.append(weight * segments[start:stop].mean(0))
  return np.concatenate(means)


# What becomes of one clip: float64 [S, F], S >= 1, in the order of time -> [F'].
POOLS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
  'mean': lambda segments: segments.mean(0),
  'max': lambda segments: segments.max(0),
  'mean_std': _mean_std,
  'mean_std_deltas': _mean_std_deltas,
  'pyramid': _pyramid,
}


def pool(features: np.ndarray, clip: np.ndarray, *, kind: str) -> tuple[np.ndarray, np.ndarray]:
  """Pools the segments of each clip (method.md A5).

  Args:
    features: [N, F].
    clip: int [N], which clip each segment belongs to; the segments of one clip are in the order of time, and those
      that lack the half in question are not among them.
    kind: 'mean' (F' = F); 'max' (F); 'mean_std', with the population's deviation (2 F); 'mean_std_deltas', the same of
      the segments and then of their deltas c[t+1] - c[t-1], the first and last segment repeated at the edges (4 F);
      'pyramid', the means of the whole, of two halves and of four quarters, weighted 1/4, 1/4, 1/2 (7 F). A cell of
      the pyramid is every segment that lies in it at least in part: neighbours share one where the segments do not
      divide, and a clip of fewer than four segments repeats them. The weights hold for these vectors alone: an SVM
      that scales each feature to [0, 1] (svm.py) evens them out.

  Returns:
    float32 [clips, F'], int [clips] the clips that have any segment, ascending.

  Raises:
    ValueError: another word for `kind`.
  """
  if kind not in POOLS:
    raise ValueError(f'config.pool={kind!r}: use {" or ".join(POOLS)}')
  order = np.argsort(clip, kind='stable')
  clips, first = np.unique(clip[order], return_index=True)
  of_clip = POOLS[kind]
  pooled = [of_clip(part.astype(np.float64)) for part in np.split(features[order], first)[1:]]
  width = of_clip(np.zeros((1, features.shape[1]))).size  # also where there is no clip
  return np.array(pooled, np.float32).reshape(len(clips), width), clips

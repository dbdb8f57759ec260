"""Segments to clips: one vector a clip (pipeline step: pool; method.md A5)."""

import numpy as np


def mean_of_clips(features: np.ndarray, clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Averages the segments of each clip.

  Args:
    features: [N, F].
    clip: int [N], which clip each segment belongs to.

  Returns:
    float32 [clips, F], int [clips] the clips that have any segment, ascending.
  """
  clips, position, count = np.unique(clip, return_inverse=True, return_counts=True)
  sums = np.zeros((len(clips), features.shape[1]), np.float64)
  np.add.at(sums, position, features)
  return (sums / count[:, None]).astype(np.float32), clips

"""Pooling against a loop."""

import numpy as np

from emo_jax.evaluation.pooling import mean_of_clips


def test_segments_are_averaged_clip_by_clip_in_any_order() -> None:
  rng = np.random.default_rng(0)
  features, clip = rng.normal(size=(40, 5)).astype(np.float32), rng.choice([7, 2, 9, 30], 40)
  pooled, clips = mean_of_clips(features, clip)
  assert clips.tolist() == [2, 7, 9, 30] and pooled.dtype == np.float32
  for row, name in zip(pooled, clips, strict=True):
    np.testing.assert_allclose(
      row,
      [np.mean([f[i] for f, c in zip(features, clip, strict=True) if c == name]) for i in range(5)],
      rtol=1e-5,
      atol=1e-6,
    )


def test_no_segments_make_no_clips() -> None:
  pooled, clips = mean_of_clips(np.zeros((0, 5), np.float32), np.zeros(0, int))
  assert pooled.shape == (0, 5) and clips.shape == (0,)

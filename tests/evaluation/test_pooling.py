"""Pooling against loops and closed forms."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from emo_jax.evaluation.pooling import pool

Segments = list[list[float]]  # of one clip, in the order of time


def columns(segments: Segments) -> Segments:
  return [list(column) for column in zip(*segments, strict=True)]


def mean(segments: Segments) -> list[float]:
  return [sum(column) / len(column) for column in columns(segments)]


def mean_std(segments: Segments) -> list[float]:
  pairs = zip(columns(segments), mean(segments), strict=True)
  return mean(segments) + [(sum((v - m) ** 2 for v in column) / len(column)) ** 0.5 for column, m in pairs]


def mean_std_deltas(segments: Segments) -> list[float]:
  last = len(segments) - 1
  neighbours = [(segments[max(t - 1, 0)], segments[min(t + 1, last)]) for t in range(last + 1)]
  return mean_std(segments) + mean_std([[b - a for a, b in zip(*pair, strict=True)] for pair in neighbours])


def pyramid(segments: Segments) -> list[float]:
  """A segment t is the stretch of time [t, t + 1]; a cell holds those that overlap with it."""
  pooled = []
  for cells in (1, 2, 4):
    for cell in range(cells):
      begin, end = (Fraction(len(segments) * edge, cells) for edge in (cell, cell + 1))
      inside = [segment for t, segment in enumerate(segments) if t < end and t + 1 > begin]
      pooled += [value * (0.5 if cells == 4 else 0.25) for value in mean(inside)]
  return pooled


ORACLES: dict[str, Callable[[Segments], list[float]]] = {
  'mean': mean,
  'max': lambda segments: [max(column) for column in columns(segments)],
  'mean_std': mean_std,
  'mean_std_deltas': mean_std_deltas,
  'pyramid': pyramid,
}


@pytest.mark.parametrize('kind', ORACLES)
def test_each_clip_is_pooled_by_itself_in_the_order_of_its_segments(kind: str) -> None:
  """Clips of 1 to 13 segments, dealt at random among each other; their numbers are neither dense nor in order."""
  rng = np.random.default_rng(0)
  clip = rng.permutation(np.repeat(rng.permutation(40)[:13], np.arange(1, 14)))
  features = rng.normal(size=(len(clip), 3)).astype(np.float32)
  pooled, clips = pool(features, clip, kind=kind)
  assert clips.tolist() == sorted(set(clip.tolist())) and pooled.dtype == np.float32
  for row, name in zip(pooled, clips, strict=True):
    segments = [f.tolist() for f, c in zip(features, clip, strict=True) if c == name]
    np.testing.assert_allclose(row, ORACLES[kind](segments), rtol=1e-5, atol=1e-6)


def test_a_ramp_has_the_closed_forms() -> None:
  count = 8
  clip, ramp = np.zeros(count, int), np.arange(count, dtype=np.float32)[:, None]
  centre, spread = (count - 1) / 2, ((count**2 - 1) / 12) ** 0.5
  steps = [1] + [2] * (count - 2) + [1]  # the edges are repeated, so the outer deltas span one step
  want: dict[str, list[Any]] = {
    'mean': [centre],
    'max': [count - 1],
    'mean_std': [centre, spread],
    'mean_std_deltas': [centre, spread, np.mean(steps), np.std(steps)],
    'pyramid': [centre / 4, 1.5 / 4, 5.5 / 4, 0.5 / 2, 2.5 / 2, 4.5 / 2, 6.5 / 2],
  }
  for kind, values in want.items():
    np.testing.assert_allclose(pool(ramp, clip, kind=kind)[0], [values], rtol=1e-6, err_msg=kind)


@pytest.mark.parametrize(
  ('count', 'cells'),
  [
    (1, [[0], [0], [0], [0], [0], [0], [0]]),
    (2, [[0, 1], [0], [1], [0], [0], [1], [1]]),
    (3, [[0, 1, 2], [0, 1], [1, 2], [0], [0, 1], [1, 2], [2]]),
    (5, [[0, 1, 2, 3, 4], [0, 1, 2], [2, 3, 4], [0, 1], [1, 2], [2, 3], [3, 4]]),
  ],
)
def test_no_cell_of_a_pyramid_is_empty(count: int, cells: list[list[int]]) -> None:
  marks = 2.0 ** np.arange(count)[:, None]
  weights = [0.25] * 3 + [0.5] * 4
  want = [weight * np.mean([2.0**t for t in cell]) for weight, cell in zip(weights, cells, strict=True)]
  np.testing.assert_allclose(pool(marks, np.zeros(count, int), kind='pyramid')[0], [want], rtol=1e-6)


@pytest.mark.parametrize(
  ('kind', 'width'), [('mean', 5), ('max', 5), ('mean_std', 10), ('mean_std_deltas', 20), ('pyramid', 35)]
)
def test_no_segments_make_no_clips_of_the_usual_width(kind: str, width: int) -> None:
  pooled, clips = pool(np.zeros((0, 5), np.float32), np.zeros(0, int), kind=kind)
  assert pooled.shape == (0, width) and clips.shape == (0,)
  assert pool(np.zeros((2, 5), np.float32), np.array([3, 3]), kind=kind)[0].shape == (1, width)


def test_large_means_do_not_swallow_small_deviations() -> None:
  features = (4096 + np.array([0, 0.5, 0, 0.5])).astype(np.float32)[:, None]
  np.testing.assert_array_equal(pool(features, np.zeros(4, int), kind='mean_std')[0], [[4096.25, 0.25]])


def test_another_word_is_refused() -> None:
  with pytest.raises(ValueError, match=r"config.pool='median': use mean or max or mean_std or mean_std_deltas or pyr"):
    pool(np.zeros((1, 1)), np.zeros(1, int), kind='median')

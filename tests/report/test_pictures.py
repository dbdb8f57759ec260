"""Pictures: the shaded cells of a confusion matrix lie where the counts are."""

import pathlib

import imageio.v3 as iio
import numpy as np
import pytest

from emo_jax.report import pictures

DARK = (8, 48, 107)  # the colour map's end: a whole row's clips in one cell


def dark_cells(path: pathlib.Path, classes: int) -> np.ndarray:
  """bool [C, C]: which cells of the matrix are as dark as can be; the matrix is found by its frame."""
  image = iio.imread(path)[..., :3].astype(int)
  ink = image.sum(-1) < 60  # the frame is the only long black line
  rows = np.flatnonzero(ink.sum(1) > 0.25 * image.shape[1])
  columns = np.flatnonzero(ink.sum(0) > 0.25 * image.shape[0])
  inside = image[rows[0] + 2 : rows[-1] - 1, columns[0] + 2 : columns[-1] - 1]
  dark = np.abs(inside - DARK).max(-1) <= 2
  step = np.array(dark.shape) / classes
  cell = lambda r, c: dark[int(r * step[0]) : int((r + 1) * step[0]), int(c * step[1]) : int((c + 1) * step[1])]
  return np.array([[cell(r, c).mean() > 0.6 for c in range(classes)] for r in range(classes)])


@pytest.mark.parametrize(
  'table',
  [
    [[7, 0], [0, 3]],
    [[0, 5], [0, 5]],  # rows are the truth: both rows' clips were called the second class
    [[0, 0, 4], [9, 0, 0], [0, 0, 0]],  # nothing of the third class
    np.diag([1, 20, 300, 4, 5, 6]).tolist(),
  ],
)
def test_cells_are_shaded_by_their_share_of_the_truth(tmp_path: pathlib.Path, table: list[list[int]]) -> None:
  counts = np.array(table)
  pictures.confusion(tmp_path / 'a.png', counts, list('abcdef')[: len(counts)], title='audio')
  np.testing.assert_array_equal(dark_cells(tmp_path / 'a.png', len(counts)), counts > 0)


def test_the_same_counts_make_the_same_file(tmp_path: pathlib.Path) -> None:
  counts = np.array([[3, 1], [0, 4]])
  for name in ('a', 'b'):
    pictures.confusion(tmp_path / f'{name}.png', counts, ['joy', 'fear'], title='audio')
  assert (tmp_path / 'a.png').read_bytes() == (tmp_path / 'b.png').read_bytes()


def test_a_matrix_without_clips_is_drawn(tmp_path: pathlib.Path) -> None:
  pictures.confusion(tmp_path / 'a.png', np.zeros((3, 3), int), ['a', 'b', 'c'], title='audio')
  assert not dark_cells(tmp_path / 'a.png', 3).any()

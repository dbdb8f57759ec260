"""HOG of edges, and LBP-TOP against loops over pixels."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from emo_jax.handcrafted import face

SIZE = 16
RNG = np.random.default_rng(0)


def film(frames: int = 7) -> np.ndarray:
  """Blurred noise: neighbours differ, but not at random."""
  noise = RNG.normal(size=(frames + 2, SIZE + 2, SIZE + 2))
  for axis in range(3):
    noise = noise + np.roll(noise, 1, axis)
  return np.clip(128 + 25 * noise[2:, 2:, 2:], 0, 255).astype(np.uint8)


def everywhere(clip: np.ndarray) -> np.ndarray:
  return np.ones(len(clip), bool)


def uniform_codes() -> dict[tuple[int, ...], int]:
  """Bits of the neighbours, counter-clockwise from the right -> a number: 0 and 57 for none and all, 58 for mixed ones.

  Uniform patterns are one run of ones: they are counted by the run's length, then by where it begins.
  """
  codes = dict.fromkeys(itertools.product((0, 1), repeat=8), 58)
  codes[(0,) * 8], codes[(1,) * 8] = 0, 57
  for length, begin in itertools.product(range(1, 8), range(8)):
    bits = [0] * 8
    for step in range(length):
      bits[(begin + step) % 8] = 1
    codes[tuple(bits)] = 1 + 8 * (length - 1) + begin
  return codes


def slow_code(value: Callable[[float, float], float]) -> tuple[int, ...]:
  """The bits of eight neighbours on a circle of radius 1; value(down, right) interpolates."""
  centre = value(0, 0)
  angles = [2 * np.pi * number / 8 for number in range(8)]
  return tuple(int(value(round(-np.sin(a), 5), round(np.cos(a), 5)) >= centre) for a in angles)


def bilinear(picture: np.ndarray, row: float, column: float) -> float:
  top, left = int(np.floor(row)), int(np.floor(column))
  down, right = row - top, column - left
  at = lambda r, c: float(picture[min(r, picture.shape[0] - 1), min(c, picture.shape[1] - 1)])
  upper = (1 - right) * at(top, left) + right * at(top, left + 1)
  lower = (1 - right) * at(top + 1, left) + right * at(top + 1, left + 1)
  return (1 - down) * upper + down * lower


def slow_lbp_top(clip: np.ndarray, seen: np.ndarray) -> np.ndarray:
  """[3, CELLS, CELLS, 256 by uniform_codes -> 59], pixel by pixel."""
  codes, counts = uniform_codes(), np.zeros((3, face.CELLS, face.CELLS, 59))
  for t, y, x in np.ndindex(*clip.shape):
    cell = y * face.CELLS // SIZE, x * face.CELLS // SIZE
    inside_t = 0 < t < len(clip) - 1 and seen[t - 1 : t + 2].all()
    inside_y, inside_x = 0 < y < SIZE - 1, 0 < x < SIZE - 1
    slices = (
      (seen[t] and inside_y and inside_x, clip[t], y, x),
      (inside_t and inside_x, clip[:, y], t, x),
      (inside_t and inside_y, clip[:, :, x], t, y),
    )
    for plane, (counted, picture, row, column) in enumerate(slices):
      if counted:
        bits = slow_code(lambda d, r, p=picture, i=row, j=column: bilinear(p, i + d, j + r))
        counts[plane, *cell, codes[bits]] += 1
  return counts / np.maximum(counts.sum(-1, keepdims=True), 1)


@pytest.mark.parametrize('seen', [[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1, 1], [0, 1, 1, 1, 1, 0, 1]])
def test_lbp_top_counts_the_codes_of_a_loop_over_pixels(seen: list[int]) -> None:
  clip, has = film(), np.array(seen, bool)
  found, slow = face.lbp_top(clip, has), slow_lbp_top(clip, has)
  # The library numbers uniform patterns in its own order: histograms are compared bin by bin in a common one.
  order = library_order()
  np.testing.assert_allclose(found, slow[..., order], atol=1e-12)
  assert np.count_nonzero(slow[..., :58].sum((0, 1, 2))) > 40  # most patterns occur


def library_order() -> list[int]:
  """For each of the library's codes the one of `uniform_codes`: found by showing it every pattern around one pixel."""
  from skimage import feature

  ours, order = uniform_codes(), [58] * 59
  rows, columns = [1, 0, 0, 0, 1, 2, 2, 2], [2, 2, 1, 0, 0, 0, 1, 2]
  for bits, code in ours.items():
    picture = np.full((3, 3), 100, np.uint8)
    picture[rows, columns] = np.where(bits, 150, 50)  # a corner outweighs both edges beside it
    theirs = int(feature.local_binary_pattern(picture, 8, 1, 'nri_uniform')[1, 1])
    assert code == 58 or order[theirs] in (58, code)
    order[theirs] = code
  assert sorted(order) == list(range(59))
  return order


def test_a_still_film_has_the_same_histogram_in_every_frame_and_none_but_rows_across_time() -> None:
  still = np.repeat(film()[:1], 9, 0)
  xy, xt, yt = face.lbp_top(still, everywhere(still))
  np.testing.assert_allclose(xy, face.lbp_top(still[:3], everywhere(still[:3]))[0])
  # Along time nothing changes: both neighbours in time are as the pixel, those beside it as in the other frames.
  assert np.count_nonzero(xt.sum((0, 1))) <= 4 and np.count_nonzero(yt.sum((0, 1))) <= 4
  assert np.count_nonzero(xy.sum((0, 1))) > 20


def test_a_film_backwards_looks_the_same_but_moves_otherwise() -> None:
  clip = film(12)
  forth, back = (face.lbp_top(way, everywhere(clip)) for way in (clip, clip[::-1]))
  np.testing.assert_allclose(forth[0], back[0])
  for plane in (1, 2):
    assert np.abs(forth[plane] - back[plane]).max() > 0.01
    np.testing.assert_allclose(forth[plane, ..., 58], back[plane, ..., 58])  # mixed patterns stay mixed
    np.testing.assert_allclose(forth[plane, ..., 57], back[plane, ..., 57])


def test_a_turned_film_swaps_the_planes_of_time() -> None:
  clip = film()
  forth, turned = (face.lbp_top(way, everywhere(clip)) for way in (clip, clip.transpose(0, 2, 1)))
  np.testing.assert_allclose(forth[1], turned[2].transpose(1, 0, 2))


@pytest.mark.parametrize('frames', [1, 2])
def test_a_clip_too_short_to_move_has_no_histogram_across_time(frames: int) -> None:
  clip = film()[:frames]
  xy, xt, yt = face.lbp_top(clip, everywhere(clip))
  assert not xt.any() and not yt.any()
  np.testing.assert_allclose(xy.sum(-1), 1)


@pytest.mark.parametrize('upright', [True, False])
def test_hog_of_an_edge_lies_in_the_cells_and_the_direction_of_the_edge(upright: bool) -> None:
  image = np.zeros((64, 64), np.uint8)
  image[:, 36:] = 200  # amid the cells of the fifth column
  histograms = face.hog(image if upright else image.T).reshape(7, 7, 2, 2, 8)
  where = histograms.sum((2, 3, 4)) if upright else histograms.sum((2, 3, 4)).T
  np.testing.assert_allclose(where[:, [0, 1, 2, 5, 6]], 0)
  assert (where[:, 3:5] > 0).all()
  strength = histograms.sum((0, 1, 2, 3))
  across, along = strength[0], strength[4]  # gradients along x, along y
  assert (along, across) == (0, across) if upright else (along, across) == (along, 0)
  assert max(across, along) > 0


def test_hog_does_not_see_the_light() -> None:
  image = film()[0].repeat(4, 0).repeat(4, 1) // 2
  np.testing.assert_allclose(face.hog(image), face.hog(image + 60), atol=1e-12)
  assert np.abs(face.hog(image) - face.hog(image.T)).max() > 0.1


def test_a_clip_is_described_by_the_frames_with_a_face() -> None:
  clip = film(6).repeat(4, 1).repeat(4, 2)
  seen = np.array([True, True, True, True, False, False])
  found = face.describe(clip, seen)
  noise = clip.copy()
  noise[4:] = 255 - noise[4:]
  np.testing.assert_array_equal(found, face.describe(noise, seen))
  names = face.names(64)
  assert found.dtype == np.float32 and len(names) == len(found) == len(set(names))
  each = np.stack([face.hog(frame) for frame in clip[:4]])
  wanted = {'hog_mean': each.mean(0), 'hog_deviation': each.std(0)}
  for start, values in wanted.items():
    of = [number for number, name in enumerate(names) if name.startswith(start)]
    np.testing.assert_allclose(found[of], values, rtol=1e-5, atol=1e-7)
  of = [number for number, name in enumerate(names) if name.startswith('lbp_xt_1_2_')]
  np.testing.assert_allclose(found[of], face.lbp_top(clip, seen)[1, 1, 2], rtol=1e-5)


def test_grey_is_the_eyes_weighing_of_colours_at_the_wanted_size() -> None:
  colours = np.zeros((3, 20, 30, 3), np.uint8)
  for channel in range(3):
    colours[channel, ..., channel] = 200
  found = face.grey(colours, size=8)
  assert found.shape == (3, 8, 8) and found.dtype == np.uint8
  np.testing.assert_allclose(found[:, 4, 4], [200 * 0.299, 200 * 0.587, 200 * 0.114], atol=1)

"""Following eyes by optical flow: motions that are known, blinks, and pictures in which nothing can be followed."""

import cv2
import numpy as np
import pytest

from emo_jax.frontend import flow

EYES = np.array([[140.0, 97.0], [180.0, 101.0]])


def wall(*, seed: int = 0, zoom: int = 4) -> np.ndarray:
  """A grey picture [60 zoom, 80 zoom] in which every place looks its own."""
  rough = np.random.default_rng(seed).integers(0, 256, (60, 80), np.uint8)
  return cv2.resize(rough, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize(
  ('shift', 'turn', 'growth'),
  [((0, 0), 0, 1), ((3.3, -2.6), 0, 1), ((-5, 4), 0, 1), ((0.4, 0.2), 6, 1), ((-2, 1.5), -4, 1.07), ((1, 3), 2, 0.94)],
)
@pytest.mark.parametrize('zoom', [1, 3])
def test_eyes_go_where_the_picture_goes(shift: tuple[float, float], turn: float, growth: float, zoom: int) -> None:
  image, eyes = wall(zoom=4 * zoom), EYES * zoom
  motion = cv2.getRotationMatrix2D(eyes.mean(0).tolist(), turn, growth)
  motion[:, 2] += np.array(shift) * zoom
  then = cv2.warpAffine(image, motion, image.shape[::-1], borderMode=cv2.BORDER_REFLECT)
  moved = flow.moved(image, then, eyes)
  assert moved is not None
  np.testing.assert_allclose(moved, eyes @ motion[:, :2].T + motion[:, 2], atol=0.15 * zoom)


def test_eyelids_that_close_move_nothing() -> None:
  image = wall()
  for x, y in EYES.astype(int):
    image[y - 4 : y + 5, x - 7 : x + 8] = 20
  then = np.roll(image, (1, 2), (0, 1))
  for x, y in EYES.astype(int) + (2, 1):
    then[y - 4 : y + 5, x - 7 : x + 8] = np.linspace(200, 120, 9)[:, None]
  moved = flow.moved(image, then, EYES)
  assert moved is not None
  np.testing.assert_allclose(moved, EYES + (2, 1), atol=0.1)


@pytest.mark.parametrize(
  ('before', 'now'),
  [
    (wall(), wall(seed=1)),  # a cut
    (wall(), np.full((240, 320), 90, np.uint8)),
    (np.zeros((240, 320), np.uint8), np.zeros((240, 320), np.uint8)),
    (wall(), np.roll(wall(), (60, 90), (0, 1))),  # too far
    (wall(), cv2.resize(wall(), None, fx=1.5, fy=1.5)[:240, :320]),
  ],
)
def test_what_cannot_be_followed_is_unsure(before: np.ndarray, now: np.ndarray) -> None:
  assert flow.moved(before, now, EYES) is None


def test_parts_that_go_different_ways_are_unsure() -> None:
  parts = [
    np.roll(wall(), shift, 0)[:, slice(*span)] for shift, span in ((-3, (0, 147)), (0, (147, 172)), (3, (172, 320)))
  ]
  assert flow.moved(wall(), np.hstack(parts), EYES) is None


@pytest.mark.parametrize('corner', [(-300.0, 50.0), (315.0, 235.0), (400.0, 90.0), (100.0, -200.0)])
def test_eyes_beyond_the_picture_are_unsure(corner: tuple[float, float]) -> None:
  assert flow.moved(wall(), wall(), np.array([[0.0, 0.0], [40.0, 0.0]]) + corner) is None


def test_half_hidden_eyes_are_followed() -> None:
  eyes = np.array([[2.0, 60.0], [42.0, 60.0]])
  moved = flow.moved(wall(), np.roll(wall(), 2, 1), eyes)
  assert moved is not None
  np.testing.assert_allclose(moved, eyes + (2, 0), atol=0.2)

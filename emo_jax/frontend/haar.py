"""Faces with their eyes by OpenCV's Haar cascades (Viola-Jones, method.md A2; pipeline step: clips in)."""

import functools
import pathlib
from typing import Any

import numpy as np

# Eyes in a box of the frontal face cascade, as shares of its width: the median over java_sed, CREMA-D and RAVDESS.
_TYPICAL = np.array([[0.33, 0.375], [0.64, 0.375]])
_FACE_HEIGHT = 36  # px of the smallest face looked for: whole frames are shrunk to this (the cascade knows 20 px)
_EYE_WIDTH = 128  # px of a face box when eyes are looked for: below about 100 the eye cascade misses pairs


@functools.cache
def _cascade(name: str) -> Any:
  import cv2

  cv2.setNumThreads(1)  # the fan-out is by processes
  path = pathlib.Path(cv2.__file__).parent / 'data' / f'haarcascade_{name}.xml'
  if not path.exists():
    raise ImportError(f'OpenCV {cv2.__version__} has no {path.name}: opencv-python-headless>=4.14,<5 has it')
  return cv2.CascadeClassifier(str(path))


def _resized(gray: np.ndarray, scale: float) -> np.ndarray:
  import cv2

  return cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _boxes(gray: np.ndarray, near: np.ndarray | None, smallest: float) -> np.ndarray:
  """The face boxes [K, 4] in the grey frame [H, W]: all of it, or with `near` at most the one about that box [4]."""
  x0, y0, low, high, part = 0, 0, smallest, float(min(gray.shape)), gray
  if near is not None:
    x, y, w, h = near
    x0, y0 = max(0, int(x - w / 2)), max(0, int(y - h / 2))
    part = gray[y0 : max(0, int(y + 1.5 * h)), x0 : max(0, int(x + 1.5 * w))]
    low, high = max(low, w / 1.4), min(1.4 * w, *part.shape)
  scale = min(1.0, _FACE_HEIGHT / low)
  if high < low or min(part.shape) * scale < 1:
    return np.zeros((0, 4))
  limits = {'minSize': (int(low * scale),) * 2, 'maxSize': (int(np.ceil(high * scale)),) * 2}
  found = _cascade('frontalface_alt2').detectMultiScale(_resized(part, scale), 1.1, 3, **limits)
  if len(found) == 0:
    return np.zeros((0, 4))
  boxes = np.asarray(found, float) / scale + (x0, y0, 0, 0)
  if near is None:
    return boxes
  away = np.abs(boxes[:, :2] - near[:2] + (boxes[:, 2:] - near[2:]) / 2).sum(1) / near[2]
  return boxes[[(boxes[:, 2] * np.exp(-away)).argmax()]]


def _eyes(gray: np.ndarray, box: np.ndarray) -> np.ndarray | None:
  """The two eyes [2, 2] in a face box [4] of the grey frame [H, W], or None where no pair looks like eyes."""
  x, y, w = (int(v) for v in box[:3])
  x, top = max(0, x), max(0, y + int(0.15 * w))
  scale = _EYE_WIDTH / w
  part = _resized(gray[top : y + int(0.6 * w), x : x + w], scale)
  half, shift = int(0.55 * _EYE_WIDTH), int(0.45 * _EYE_WIDTH)  # a turned face's eye may lie beyond the middle
  limits = {'minSize': (int(0.16 * _EYE_WIDTH),) * 2, 'maxSize': (int(0.38 * _EYE_WIDTH),) * 2}
  for name in ('eye', 'eye_tree_eyeglasses'):
    lefts, rights = (_cascade(name).detectMultiScale(p, 1.05, 2, **limits) for p in (part[:, :half], part[:, shift:]))
    pairs = [np.array([a[:2] + a[2:] / 2, b[:2] + b[2:] / 2 + (shift, 0)]) for a in lefts for b in rights]
    odd = {_oddness(pair, box): pair for pair in [pair / scale - 0.5 + (x, top) for pair in pairs]}
    if min(odd, default=np.inf) < np.inf:
      return odd[min(odd)]
  return None


def _oddness(pair: np.ndarray, box: np.ndarray) -> float:
  """How far a pair of eyes [2, 2] lies from where they are in most boxes [4]; infinite where it cannot be a pair."""
  across, down = (pair[1] - pair[0]) / box[2]
  apart = np.hypot(across, down)
  if not 0.25 <= apart <= 0.65 or abs(down) > across * np.tan(np.pi / 6):
    return np.inf
  middle = (pair.mean(0) - box[:2]) / box[2] - _TYPICAL.mean(0)
  return float(np.hypot(*middle) + abs(apart - (_TYPICAL[1, 0] - _TYPICAL[0, 0])))


def find(image: np.ndarray, near: np.ndarray | None, smallest: float) -> list[tuple[np.ndarray, np.ndarray | None]]:
  """The faces of a frame.

  Args:
    image: uint8 RGB [H, W, 3].
    near: box [4], x, y, width, height in px, of a face: it alone is looked for, thereabouts; or None: all faces.
    smallest: least height of a face in px.

  Returns:
    of each face the box [4] and the eyes [2, 2], as in `faces.Track`, or None in place of eyes that are not found.
  """
  import cv2

  gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
  return [(box, _eyes(gray, box)) for box in _boxes(gray, near, smallest)]

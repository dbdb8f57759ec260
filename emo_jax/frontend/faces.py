"""Face frames of a film: where the eyes are in every frame, and the aligned crops (pipeline step: clips in).

Faces and eyes are found with OpenCV's Haar cascades (Viola-Jones, method.md A2), or by MTCNN (mtcnn.py), which finds
turned faces as well. `track` makes one pass over a film and keeps only numbers; a second pass hands each frame and its
eyes to `align`, so memory does not grow with the film. Points are x, y in pixels of the frame, a pixel's centre having
whole numbers.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from emo_jax.frontend import mtcnn

CROP = (150, 110)  # height, width of the crop in which the eyes are 55 px apart
EYE_LINE = 0.27  # share of the crop's height above the eyes: keeps raised brows and open mouths (0.35 cuts mouths)

# Eyes in a box of the frontal face cascade, as shares of its width: the median over java_sed, CREMA-D and RAVDESS.
_TYPICAL = np.array([[0.33, 0.375], [0.64, 0.375]])
_FACE_HEIGHT = 36  # px of the smallest face looked for: whole frames are shrunk to this (the cascade knows 20 px)
_EYE_WIDTH = 128  # px of a face box when eyes are looked for: below about 100 the eye cascade misses pairs
_SHARE = 0.1  # of the searched frames must show both eyes, else what was found is no face (noise: up to 0.03)
_JUMP = 0.35  # eye distances off the running median beyond which a detection is an outlier
_WINDOW = 7  # detections of the running median
_BLUR = 0.04  # seconds, standard deviation of the smoothing of eye positions
_BRIDGE = 0.25  # seconds to the nearest found pair up to which interpolating beats estimating eyes from the box
_BOX_ONLY = 0.5  # confidence where the face was found but not both eyes
_Seen = tuple[int, np.ndarray, np.ndarray | None]  # frame, face box [4], eyes [2, 2] if both were found


@dataclasses.dataclass(frozen=True)
class Track:
  """A face through the F frames of a film; all zero but the times where the film has no face.

  Attributes:
    times: float64 [F], seconds.
    box: float32 [F, 4], x, y, width, height of the face in px.
    eyes: float32 [F, 2, 2], the eye on the left of the picture then the one on the right, each x, y in px.
    confidence: float32 [F], 1 where the face and both eyes were found in this very frame, 0.5 or more where the face
      was, else falling linearly with the time to the nearest frame where they were, to 0 after `hold` seconds.
  """

  times: np.ndarray
  box: np.ndarray
  eyes: np.ndarray
  confidence: np.ndarray


@functools.cache
def _cascade(name: str) -> Any:
  import cv2

  cv2.setNumThreads(1)  # the fan-out is by processes
  path = pathlib.Path(cv2.__file__).parent / 'data' / f'haarcascade_{name}.xml'
  if not path.exists():
    raise RuntimeError(f'OpenCV {cv2.__version__} has no {path.name}; install opencv-python-headless>=4.10,<5')
  return cv2.CascadeClassifier(str(path))


def _resized(gray: np.ndarray, scale: float) -> np.ndarray:
  import cv2

  return cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _find_box(gray: np.ndarray, near: np.ndarray | None, smallest: float) -> np.ndarray | None:
  """The face box [4] in the grey frame [H, W]: first about the last one (`near`), then anywhere; or None."""
  x0, y0, low, high, part = 0, 0, smallest, float(min(gray.shape)), gray
  if near is not None:
    x, y, w, h = near
    x0, y0 = max(0, int(x - w / 2)), max(0, int(y - h / 2))
    part = gray[y0 : int(y + 1.5 * h), x0 : int(x + 1.5 * w)]
    low, high = max(low, w / 1.4), min(1.4 * w, *part.shape)
  scale = min(1.0, _FACE_HEIGHT / low)
  limits = {'minSize': (int(low * scale),) * 2, 'maxSize': (int(np.ceil(high * scale)),) * 2}
  found = _cascade('frontalface_alt2').detectMultiScale(_resized(part, scale), 1.1, 3, **limits)
  if len(found) == 0:
    return None if near is None else _find_box(gray, None, smallest)
  boxes = np.asarray(found, float) / scale + (x0, y0, 0, 0)
  away = 0 if near is None else np.abs(boxes[:, :2] - near[:2] + (boxes[:, 2:] - near[2:]) / 2).sum(1) / near[2]
  return boxes[(boxes[:, 2] * np.exp(-away)).argmax()]


def _find_eyes(gray: np.ndarray, box: np.ndarray) -> np.ndarray | None:
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


def _find(image: np.ndarray, near: np.ndarray | None, smallest: float) -> tuple[np.ndarray, np.ndarray | None] | None:
  """The face box [4] and the eyes [2, 2] (or None) in an RGB frame [H, W, 3], or None where there is no face."""
  import cv2

  gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
  box = _find_box(gray, near, smallest)
  return None if box is None else (box, _find_eyes(gray, box))


def track(
  frames: Iterable[tuple[float, np.ndarray]], *, detector: str, every: int, min_face: float, hold: float
) -> Track:
  """Follows the largest face of a film (method.md A2).

  Args:
    frames: time in seconds and uint8 RGB [H, W, 3] of each frame, in the order of time; read once.
    detector: 'haar' or 'mtcnn'.
    every: faces are looked for in every so-many-th frame (the paper: 1) and interpolated between.
    min_face: smallest face, as a share of the frame's height.
    hold: seconds after which a face that is no longer found counts as gone.

  Raises:
    ModuleNotFoundError: MTCNN's networks are not installed.
  """
  find = {'haar': _find, 'mtcnn': mtcnn.find}[detector]
  times: list[float] = []
  seen: list[_Seen] = []
  last: np.ndarray | None = None
  since, shape = -np.inf, (0, 0, 0)
  for i, (time, image) in enumerate(frames):
    times.append(time)
    near = last if time - since <= hold and image.shape == shape else None
    if i % every == 0 and (found := find(image, near, min_face * image.shape[0])) is not None:
      seen.append((i, *found))
      if found[1] is not None:  # a box without eyes is not followed: it may be no face
        last, since, shape = found[0], time, image.shape
  return _joined(np.array(times, float), seen, searched=-(-len(times) // every), hold=hold)


def _joined(times: np.ndarray, seen: list[_Seen], *, searched: int, hold: float) -> Track:
  """A track from the frames in which a face was seen: (frame, box [4], eyes [2, 2] or None) each."""
  empty = Track(times, *(np.zeros((len(times), *shape), 'f4') for shape in ((4,), (2, 2), ())))
  paired = np.array([eyes is not None for _, _, eyes in seen], bool)
  if not paired.any():
    return empty
  at = times[[i for i, _, _ in seen]]
  box = np.array([b for _, b, _ in seen], float)
  # Eyes not found are put where this face has them in its box.
  own = np.median([(e - b[:2]) / b[2] for _, b, e in seen if e is not None], axis=0)
  eyes = np.array([b[:2] + own * b[2] if e is None else e for _, b, e in seen])
  kept = _steady(eyes)
  if (kept & paired).sum() < max(1, _SHARE * searched):
    return empty
  at, paired = at[kept], paired[kept]
  confidence = np.maximum(_nearness(times, at[paired], hold), _BOX_ONLY * _nearness(times, at, hold))
  used = paired | (_nearness(at, at[paired], _BRIDGE) == 0)
  flat = _smooth(at[used], np.hstack([box, eyes.reshape(-1, 4)])[kept][used])
  flat = np.stack([np.interp(times, at[used], column) for column in flat.T], axis=1)
  return Track(times, flat[:, :4].astype('f4'), flat[:, 4:].reshape(-1, 2, 2).astype('f4'), confidence.astype('f4'))


def _steady(eyes: np.ndarray) -> np.ndarray:
  """Which of the eye pairs [N, 2, 2], in the order of time, lie close to the median of their neighbours: bool [N]."""
  flat, apart = eyes.reshape(-1, 4), np.linalg.norm(eyes[:, 1] - eyes[:, 0], axis=1)
  starts = np.clip(np.arange(len(eyes)) - _WINDOW // 2, 0, max(0, len(eyes) - _WINDOW))  # moved, not cut, at the ends
  middle = np.array([np.median(flat[s : s + _WINDOW], axis=0) for s in starts])
  usual = np.array([np.median(apart[s : s + _WINDOW]) for s in starts])
  return np.abs(flat - middle).max(1) <= _JUMP * usual


def _smooth(at: np.ndarray, values: np.ndarray) -> np.ndarray:
  """Values [N, K] at times [N] in seconds, averaged with their neighbours in time by a Gaussian."""
  smoothed = np.empty_like(values)
  for i, time in enumerate(at):
    lo, hi = np.searchsorted(at, [time - 4 * _BLUR, time + 4 * _BLUR])
    share = np.exp(-0.5 * ((at[lo:hi] - time) / _BLUR) ** 2)
    smoothed[i] = share @ values[lo:hi] / share.sum()
  return smoothed


def _nearness(times: np.ndarray, at: np.ndarray, hold: float) -> np.ndarray:
  """1 at the sorted times `at`, falling linearly to 0 `hold` seconds away from the nearest of them: [F]."""
  right = np.searchsorted(at, times).clip(max=len(at) - 1)
  left = (right - 1).clip(min=0)
  away = np.minimum(np.abs(times - at[left]), np.abs(times - at[right]))
  return np.clip(1 - away / max(hold, 1e-9), 0, 1)


def align(frame: np.ndarray, eyes: np.ndarray, *, size: tuple[int, int]) -> np.ndarray:
  """The face turned level and cut out: eyes half the width apart, centred, EYE_LINE of the height from the top.

  Args:
    frame: uint8 RGB [H, W, 3].
    eyes: [2, 2], as in `Track.eyes`.
    size: height, width of the result; the 150 x 110 crop of the paper (method.md A2) is scaled to it.

  Returns:
    uint8 [height, width, 3]; the frame's border is repeated outwards (a black area's edge would move with the head).
  """
  import cv2

  (x0, y0), (x1, y1) = np.asarray(eyes, float)
  apart = np.hypot(x1 - x0, y1 - y0)
  if not apart > 0:
    raise ValueError(f'align: eyes at {np.asarray(eyes).tolist()} are no pair; leave out frames of confidence 0')
  # Large faces are cut out at a multiple of the crop and averaged down: a warp alone would drop pixels.
  zoom = max(1, round(apart / (CROP[1] / 2)))
  height, width = CROP[0] * zoom, CROP[1] * zoom
  turn = np.array([[x1 - x0, y1 - y0], [y0 - y1, x1 - x0]]) / apart * (width / 2 / apart)
  target = np.array([width / 2, EYE_LINE * height]) - 0.5
  matrix = np.column_stack([turn, target - turn @ [(x0 + x1) / 2, (y0 + y1) / 2]])
  crop = cv2.warpAffine(frame, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
  method = cv2.INTER_AREA if size[0] <= height and size[1] <= width else cv2.INTER_LINEAR
  return cv2.resize(crop, size[::-1], interpolation=method)

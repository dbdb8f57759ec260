"""Face frames of a film: where the eyes are in every frame, and the aligned crops (pipeline step: clips in).

Faces and eyes are found by Haar cascades (haar.py) or by MTCNN (mtcnn.py), which finds turned faces as well, in some
frames, and followed from frame to frame between those (following.py). `track` makes one pass over a film and keeps only
numbers; then each frame and its eyes go to `align`, so memory does not grow with the film. Points are x, y in pixels of
the frame, a pixel's centre having whole numbers.
"""

import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np

from emo_jax.frontend import following, haar, mtcnn
from emo_jax.frontend.following import Face

CROP = (150, 110)  # height, width of the crop in which the eyes are 55 px apart
EYE_LINE = 0.27  # share of the crop's height above the eyes: keeps raised brows and open mouths (0.35 cuts mouths)

_FAIR = 0.3  # of the searches must show both eyes of a face that fills a gap, or that is warned of,
_STAYS = 0.5  # and so many seconds it must be there
_CROWD = 0.2  # share of the film with another face from which that is worth a warning
_SELDOM = 0.9  # share of the film with the face below which that is worth a warning
_SHARE = 0.1  # of the frames must show both eyes, else what was found is no face (noise: up to 0.03)
_JUMP = 0.35  # eye distances off the running median beyond which a detection is an outlier
_WINDOW = 7  # detections of the running median
_BLUR = 0.04  # seconds, times `every`: standard deviation of the smoothing of what detections add to following
_BRIDGE = 0.25  # seconds to the nearest found pair up to which interpolating beats estimating eyes from the box
_BOX_ONLY = 0.5  # confidence where the face was found but not both eyes


@dataclasses.dataclass(frozen=True)
class Track:
  """A face through the F frames of a film; all zero but the times where the film has no face.

  Attributes:
    times: float64 [F], seconds.
    box: float32 [F, 4], x, y, width, height of the face in px.
    eyes: float32 [F, 2, 2], the eye on the left of the picture then the one on the right, each x, y in px.
    confidence: float32 [F], 1 where the face and both eyes were found in this very frame, 0.5 or more where the face
      was, else falling linearly with the time to the nearest frame where they were, to 0 after `hold` seconds.
    others: share of the frames in which another face was followed beside this one.
  """

  times: np.ndarray
  box: np.ndarray
  eyes: np.ndarray
  confidence: np.ndarray
  others: float = 0.0


def track(
  frames: Iterable[tuple[float, np.ndarray]], *, detector: str, every: int, min_face: float, hold: float
) -> Track:
  """Follows the largest, steadiest face of a film (method.md A2).

  Faces are followed side by side; in the end that with the largest sum of its widths is taken, and while it is gone
  the next best that is never seen beside it.

  Args:
    frames: time in seconds and uint8 RGB [H, W, 3] of each frame, in the order of time; read once.
    detector: 'haar' or 'mtcnn'.
    every: faces are looked for in every so-many-th frame (the paper: 1), and where there are none, one was missed, or
      following is unsure.
    min_face: smallest face, as a share of the frame's height.
    hold: seconds after which a face that is no longer found counts as gone.

  Raises:
    ModuleNotFoundError: MTCNN's networks are not installed.
  """
  detectors: dict[str, following.Find] = {'haar': haar.find, 'mtcnn': mtcnn.find}
  times, known = following.follow(frames, detectors[detector], every=every, min_face=min_face, hold=hold)
  people = [face for face in map(_cleaned, known) if face.widths()]
  sure = [face for face in people if face.share() >= _FAIR and times[face.last] - times[face.first] >= _STAYS]
  chosen = _chosen(people, sure)
  if sum(face.share() * (face.last - face.first + 1) for face in chosen) < _SHARE * len(times) or not chosen:
    box, eyes, confidence = (np.zeros((len(times), *shape), 'f4') for shape in ((4,), (2, 2), ()))
    return Track(times, box, eyes, confidence)
  turns = [(a.last + b.first + 1) // 2 for a, b in itertools.pairwise(chosen)]
  spans = zip(chosen, [0, *turns], [*turns, len(times)], strict=True)
  parts = [_joined(times, face, np.arange(*span), blur=_BLUR * every, hold=hold) for face, *span in spans]
  box, eyes, confidence = (np.concatenate(part).astype('f4') for part in zip(*parts, strict=True))
  beside = sum(face.last - face.first + 1 for face in sure if face not in chosen)
  return Track(times, box, eyes, confidence, beside / len(times))


def _chosen(people: list[Face], sure: list[Face]) -> list[Face]:
  """The weightiest face and, in the order of time, sure ones for when it is gone: no two of them overlap in time."""
  chosen: list[Face] = []
  for face in sorted(people, key=Face.weight, reverse=True):
    beside = any(face.first <= other.last and other.first <= face.last for other in chosen)
    if not chosen or (face in sure and not beside):
      chosen.append(face)
  return sorted(chosen, key=lambda face: face.first)


def _detections(face: Face) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The frames [N] in which a face was found, box and eyes in them [N, 8], and its path in the same columns [P, 8]."""
  frames = np.array([frame for frame, _ in face.seen])
  # Eyes not found are put where this face has them in its box.
  own = np.median([(eyes - box[:2]) / box[2] for _, (box, eyes) in face.seen if eyes is not None], axis=0)
  found = [(box, box[:2] + own * box[2] if eyes is None else eyes) for _, (box, eyes) in face.seen]
  path = np.array(face.path)
  way = np.hstack([path.mean(1), np.zeros((len(path), 2)), path.reshape(-1, 4)])
  return frames, np.array([np.append(box, eyes) for box, eyes in found]), way


def _cleaned(face: Face) -> Face:
  """The face without detections that lie off the path and the median of their neighbours in time."""
  if not face.widths():
    return face
  frames, found, way = _detections(face)
  off, apart = (found - way[frames - face.first])[:, 4:], np.linalg.norm(found[:, 6:] - found[:, 4:6], axis=1)
  starts = np.clip(np.arange(len(off)) - _WINDOW // 2, 0, max(0, len(off) - _WINDOW))  # moved, not cut, at the ends
  middle = np.array([np.median(off[s : s + _WINDOW], axis=0) for s in starts])
  usual = np.array([np.median(apart[s : s + _WINDOW]) for s in starts])
  kept = np.abs(off - middle).max(1) <= _JUMP * usual
  return dataclasses.replace(face, seen=list(itertools.compress(face.seen, kept)))


def _joined(
  times: np.ndarray, face: Face, span: np.ndarray, *, blur: float, hold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Box [F, 4], eyes [F, 2, 2] and confidence [F] of a face in the frames `span` [F]."""
  frames, found, way = _detections(face)
  at, paired = times[frames], np.array([eyes is not None for _, (_, eyes) in face.seen])
  confidence = np.maximum(_nearness(times[span], at[paired], hold), _BOX_ONLY * _nearness(times[span], at, hold))
  used = paired | (_nearness(at, at[paired], _BRIDGE) == 0)
  off = _smooth(at[used], (found - way[frames - face.first])[used], blur)
  flat = np.stack([np.interp(times[span], at[used], column) for column in off.T], axis=1)
  flat += way[(span - face.first).clip(0, len(way) - 1)]
  return flat[:, :4], flat[:, 4:].reshape(-1, 2, 2), confidence


def _smooth(at: np.ndarray, values: np.ndarray, blur: float) -> np.ndarray:
  """Values [N, K] at times [N] in seconds, averaged with their neighbours in time by a Gaussian of `blur` seconds."""
  smoothed = np.empty_like(values)
  for i, time in enumerate(at):
    lo, hi = np.searchsorted(at, [time - 4 * blur, time + 4 * blur])
    share = np.exp(-0.5 * ((at[lo:hi] - time) / blur) ** 2)
    smoothed[i] = share @ values[lo:hi] / share.sum()
  return smoothed


def _nearness(times: np.ndarray, at: np.ndarray, hold: float) -> np.ndarray:
  """1 at the sorted times `at`, falling linearly to 0 `hold` seconds away from the nearest of them: [F]."""
  right = np.searchsorted(at, times).clip(max=len(at) - 1)
  left = (right - 1).clip(min=0)
  away = np.minimum(np.abs(times - at[left]), np.abs(times - at[right]))
  return np.clip(1 - away / max(hold, 1e-9), 0, 1)


def warnings(track: Track) -> list[str]:
  """What a user should know of a film with a face."""
  share = np.mean(track.confidence > 0) if track.confidence.any() else 1.0
  seldom = [f'the face is seen in {100 * share:.0f} % of the frames'] if share < _SELDOM else []
  return seldom + ['several faces: the largest, steadiest was followed'] * (track.others >= _CROWD)


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

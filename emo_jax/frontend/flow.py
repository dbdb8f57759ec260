"""Following a pair of eyes from one frame of a film to the next by optical flow (pipeline step: clips in).

Points about the eyes are followed by pyramidal Lucas-Kanade flow; those that do not come back when followed backwards
are left out (Kalal, Mikolajczyk, Matas, "Forward-backward error: automatic detection of tracking failures", 2010), and
the rest agree by RANSAC on one shift, turn and scaling, so that a blink moves nothing.
"""

import numpy as np

_APART = 40  # px between the eyes: larger faces are shrunk to this
# The points, in eye distances from the eye on the left, along the line of the eyes and across it: brows to nose tip.
_GRID = np.stack(np.meshgrid(np.linspace(-0.4, 1.4, 7), np.linspace(-0.5, 0.7, 5)), -1).reshape(-1, 2)
_MARGIN = 0.6  # eye distances about the points that the flow may look at
_WINDOW = 15  # px about a point that are to be found again
_RETURN = 0.03  # eye distances off which a point that was followed there and back may come out
_SURE = 0.5  # share of the points that must come back, and agree
_GROWTH = 1.2  # largest change of size from a frame to the next


def _followed(before: np.ndarray, now: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Where points float32 [P, 2] of a grey frame are in another one [P, 2], and which of them were found: bool [P]."""
  import cv2

  ends = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 10, 0.03)  # after 10 steps, or one of less than 0.03 px
  there, found, _ = cv2.calcOpticalFlowPyrLK(
    before, now, points, np.zeros_like(points), winSize=(_WINDOW,) * 2, maxLevel=2, criteria=ends
  )
  return there, found[:, 0].astype(bool)


def moved(before: np.ndarray, now: np.ndarray, eyes: np.ndarray) -> np.ndarray | None:
  """Where a pair of eyes has gone.

  Args:
    before, now: uint8 [H, W], two frames in grey.
    eyes: [2, 2], in `before`, as in `faces.Track`.

  Returns:
    [2, 2], in `now`; None where that is unsure.
  """
  import cv2

  along = eyes[1] - eyes[0]
  apart = np.hypot(*along)
  points = eyes[0] + _GRID @ np.array([along, [-along[1], along[0]]])
  low = (points.min(0) - _MARGIN * apart).astype(int).clip(min=0)
  high = (points.max(0) + _MARGIN * apart).astype(int).clip(min=0)
  parts = [image[low[1] : high[1], low[0] : high[0]] for image in (before, now)]
  scale = min(1.0, _APART / apart)
  if min(parts[0].shape) * scale < _WINDOW:
    return None
  if scale < 1:
    parts = [cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for part in parts]
  start = ((points - low + 0.5) * scale - 0.5).astype(np.float32)
  there, found = _followed(parts[0], parts[1], start)
  back, returned = _followed(parts[1], parts[0], there)
  limit = _RETURN * apart * scale
  good = found & returned & (np.linalg.norm(back - start, axis=1) < limit)
  if good.mean() < _SURE:
    return None
  motion, agree = cv2.estimateAffinePartial2D(start[good], there[good], ransacReprojThreshold=limit)
  if motion is None or agree.sum() < _SURE * len(start) or not 1 / _GROWTH < np.hypot(*motion[0, :2]) < _GROWTH:
    return None
  small = (eyes - low + 0.5) * scale - 0.5
  return (small @ motion[:, :2].T + motion[:, 2] + 0.5) / scale - 0.5 + low

"""Following the faces of a film side by side, by optical flow from detection to detection (pipeline step: clips in)."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from emo_jax.frontend import flow

_LOOK = 1.0  # seconds between looks over the whole frame, for other faces
_MOST = 4  # faces followed side by side
Found = tuple[np.ndarray, np.ndarray | None]  # face box [4], eyes [2, 2] or None in place of eyes that are not found
Find = Callable[..., Sequence[Found]]  # as haar.find


@dataclasses.dataclass(eq=False)
class Face:
  """A face of a film: where it is in the present frame, and its way so far.

  Attributes:
    first: the frame in which it was first found.
    box: [4], x, y, width, height in px.
    eyes: [2, 2], the eye on the left of the picture then the one on the right, each x, y in px.
    last: the frame up to which it was found, or followed without a doubt.
    path: of each frame from the first on, [2, 2]: where flow alone puts the eyes.
    seen: the frames in which it was found, with what was found.
    searched: the number of searches, up to the last in which it was found.
    missed: the number of those since.
    lost: flow was unsure since it was last found.
  """

  first: int
  box: np.ndarray
  eyes: np.ndarray
  last: int
  path: list[np.ndarray]
  seen: list[tuple[int, Found]]
  searched: int = 1
  missed: int = 0
  lost: bool = False

  def flow(self, before: np.ndarray, now: np.ndarray) -> None:
    """Goes on from one grey frame [H, W] to the next."""
    eyes = flow.moved(before, now, self.eyes)
    self.lost |= eyes is None
    self.last += not self.lost and not self.missed
    step = np.zeros((2, 2)) if eyes is None else eyes - self.eyes
    self.path[-1] = self.path[-1] + step
    self.eyes = self.eyes + step
    self.box = self.box + (*step.mean(0), 0, 0)

  def see(self, frame: int, box: np.ndarray, eyes: np.ndarray | None) -> None:
    """Takes in what was found in the present frame; since flow was lost, the path leads straight there."""
    self.seen.append((frame, (box, eyes)))
    if eyes is None:
      shift = box[:2] + box[2:] / 2 - self.box[:2] - self.box[2:] / 2
      eyes = self.eyes + self.lost * shift
    if self.lost:
      gap = frame - self.last
      for back in range(gap):
        self.path[-1 - back] = self.path[-1 - back] + (eyes - self.eyes) * (1 - back / gap)
    self.box, self.eyes, self.last = box, eyes, frame
    self.searched, self.missed, self.lost = self.searched + self.missed, 0, False

  def widths(self) -> list[float]:
    """The box's width in px in each frame in which both eyes were found."""
    return [box[2] for _, (box, eyes) in self.seen if eyes is not None]

  def share(self) -> float:
    """The share of the searches in which both eyes were found."""
    return len(self.widths()) / self.searched

  def weight(self) -> float:
    """Width in px times frames with both eyes, as far as searches tell."""
    return sum(self.widths()) / self.searched * (self.last - self.first + 1)


def follow(
  frames: Iterable[tuple[float, np.ndarray]], find: Find, *, every: int, min_face: float, hold: float
) -> tuple[np.ndarray, list[Face]]:
  """Follows all faces of a film, each until it is gone.

  Args:
    frames, every, min_face, hold: as of `faces.track`.
    find: a detector, as haar.find.

  Returns:
    times in seconds float64 [F], and the faces, of which several may be the same person's, one after the other.
  """
  import cv2

  times: list[float] = []
  alive: list[Face] = []
  known: list[Face] = []
  looked = -np.inf
  before: np.ndarray = np.zeros(0)
  for i, (time, image) in enumerate(frames):
    times.append(time)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    for face in alive:
      face.path.append(face.path[-1])
      if every > 1:
        face.flow(before, gray)
    before = gray
    if alive and i % every and not any(face.lost or face.missed for face in alive):
      continue
    look = functools.partial(find, image, smallest=min_face * image.shape[0])
    for face in alive:
      face.missed += 1
      for found in look(near=face.box)[:1]:
        face.see(i, *found)
    alive = _apart([face for face in alive if time - times[face.last] <= hold])
    if time - looked >= _LOOK or all(face.missed for face in alive):
      looked = time
      fresh = _new(alive, look(near=None), i)
      alive, known = alive + fresh, known + fresh
  return np.array(times, float), known


def _same(a: np.ndarray, b: np.ndarray) -> bool:
  """Whether the middle of one of two boxes [4] lies in the other one."""
  away = np.abs(a[:2] + a[2:] / 2 - b[:2] - b[2:] / 2)
  return bool((away < np.maximum(a[2:], b[2:]) / 2).all())


def _apart(alive: list[Face]) -> list[Face]:
  """Of faces that have become one, that with most eyes so far."""
  apart: list[Face] = []
  for face in sorted(alive, key=lambda face: -len(face.widths())):
    if not any(_same(face.box, other.box) for other in apart):
      apart.append(face)
  return apart


def _new(alive: list[Face], found: Sequence[Found], frame: int) -> list[Face]:
  """The new ones among faces of a whole frame, the largest first; a known one that was not found before is seen now."""
  fresh: list[Face] = []
  for box, eyes in sorted(found, key=lambda each: -each[0][2]):
    known = next((face for face in alive + fresh if _same(face.box, box)), None)
    if known is not None and known.missed:
      known.see(frame, box, eyes)
    elif known is None and eyes is not None and len(alive + fresh) < _MOST:  # a box without eyes may be no face
      fresh.append(Face(frame, box, eyes, frame, [eyes], [(frame, (box, eyes))]))
  return fresh

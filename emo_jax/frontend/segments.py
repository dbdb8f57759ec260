"""Clips to segments of 655 ms: which log-mel columns and which 16 face frames belong together.

A segment is a window of 64 log-mel frames, every 30 frames (method.md A1), and the face frames whose time stamps lie
in it (contract.md, Frames to 16). Segments are indices into the store, never copies.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from emo_jax.frontend.audio import half_up

FRAMES = 16
COLUMN_S = 0.01  # seconds between log-mel frames, where there is no sound to say it exactly
FRAME_S = 0.025  # what the last log-mel frame of a window sees: 63 x 10 + 25 = 655 ms
MOST_TRIMMED = 24  # with more frames than this in a window the frame rate is high: they are thinned, not trimmed


@dataclasses.dataclass(frozen=True)
class Segments:
  """N segments of many clips, clip by clip.

  Attributes:
    clip: int32 [N], index of the clip in the clip list.
    start: int32 [N], first log-mel frame.
    frames: int32 [N, 16], indices of the face frames.
    has_audio, has_face: bool [N], which halves there are.
  """

  clip: np.ndarray
  start: np.ndarray
  frames: np.ndarray
  has_audio: np.ndarray
  has_face: np.ndarray

  def __len__(self) -> int:
    return len(self.clip)

  def take(self, rows: np.ndarray) -> 'Segments':
    """The segments at `rows` (indices or a mask)."""
    return Segments(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

  def digest(self) -> str:
    """Names the table: rows are stored by their places in it."""
    arrays = (getattr(self, field.name) for field in dataclasses.fields(self))
    return hashlib.sha256(b''.join(array.tobytes() for array in arrays)).hexdigest()[:16]

  @staticmethod
  def join(parts: Sequence['Segments']) -> 'Segments':
    """One table of several clips' segments."""
    return Segments(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(Segments)))


def window_count(frames: int, *, length: int, shift: int) -> int:
  """Windows in a spectrogram: drop-remainder; a sound shorter than a window is padded to one (contract.md)."""
  return 1 + max(frames - length, 0) // shift


def choose_frames(inside: np.ndarray) -> np.ndarray:
  """16 of the frames that lie in a window (contract.md, Frames to 16).

  More than 24: evenly spaced. 17 to 24: trimmed at both ends, an odd one from the end. Fewer than 16: the last and the
  first repeated alternately.

  Args:
    inside: int [n], n >= 1, the frames' indices in order.

  Returns:
    int [16].
  """
  count = len(inside)
  if count > MOST_TRIMMED:
    return inside[half_up(np.linspace(0, count - 1, FRAMES))]
  if count > FRAMES:
    front = (count - FRAMES) // 2
    return inside[front : front + FRAMES]
  missing = FRAMES - count
  return np.concatenate([np.repeat(inside[:1], missing // 2), inside, np.repeat(inside[-1:], missing - missing // 2)])


def _shown(times: np.ndarray, column_s: float, *, length: int, shift: int) -> np.ndarray:
  """The windows of a film without sound, int [S], but for those in which no frame is shown.

  Time stamps may leap by years: what there is to see must not be looked for window by window.
  """
  seen = times - times[0]
  picture_s = seen[-1] + (np.median(np.diff(times)) if len(times) > 1 else 0.0)
  most = min(1 + int((picture_s - FRAME_S) / column_s), np.iinfo(np.int32).max)  # the table's starts are int32
  count = window_count(most, length=length, shift=shift)
  reach = int(np.ceil(((length - 1) * column_s + FRAME_S) / (shift * column_s)))
  near = np.floor(seen / (shift * column_s)).astype(np.int64)[:, None] - np.arange(-1, reach + 1)
  windows = np.unique(near.clip(0, count - 1))
  begin = windows * shift * column_s + times[0]
  end = begin + (length - 1) * column_s + FRAME_S
  return windows[np.searchsorted(times, begin - 1e-9) < np.searchsorted(times, end - 1e-9)]


def of_clip(
  clip: int,
  columns: int,
  column_s: float,
  times: np.ndarray,
  confidence: np.ndarray,
  *,
  length: int,
  shift: int,
) -> Segments:
  """The segments of one clip. The sound decides how many there are; without sound, the picture does.

  Args:
    clip: the clip's index.
    columns: log-mel frames that the clip has, 0 without sound.
    column_s: seconds between log-mel frames (shift in samples over the rate).
    times: float [F], when each face frame is shown, in seconds.
    confidence: float [F], 0 where a frame has no face.
    length, shift: of a window, in log-mel frames.
  """
  if columns:
    windows = np.arange(window_count(columns, length=length, shift=shift))
  elif len(times):
    windows = _shown(times, column_s, length=length, shift=shift)
  else:
    windows = np.arange(0)
  count, start = len(windows), windows * shift
  begin = start * column_s + (0.0 if columns or not len(times) else times[0])
  first = np.searchsorted(times, begin - 1e-9)  # a frame shown just at the window's start is in it
  last = np.searchsorted(times, begin + (length - 1) * column_s + FRAME_S - 1e-9)
  frames = np.zeros((count, FRAMES), np.int32)
  has_face = np.zeros(count, bool)
  for row in range(count):
    inside = np.arange(first[row], last[row])
    if len(inside):
      frames[row] = choose_frames(inside)
      has_face[row] = np.mean(confidence[frames[row]] > 0) >= 0.5
  return Segments(
    clip=np.full(count, clip, np.int32),
    start=start.astype(np.int32),
    frames=frames,
    has_audio=np.full(count, columns > 0),
    has_face=has_face,
  )

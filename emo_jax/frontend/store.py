"""The store: every clip's log-mel columns and aligned faces, once, as memory-mapped files (pipeline step: prepare).

One `.npy` a clip and modality, named by a digest of the clip's bytes in a folder named by a digest of the front end's
settings: a clip is prepared once for all experiments, in any number of processes. The small `.npz` beside it (times,
boxes, eyes; size and checksum of the array) is written last and marks it done; it exists alone where a clip has no such
half. What is being written lies in the folder `partial` until it is whole.
"""

import contextlib
import fcntl
import functools
import os
import pathlib
import shutil
import tempfile
import threading
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

import joblib
import numpy as np

from emo_jax.frontend import audio, segments

# numpy reads headers by Python's own parser, which in 3.11 fails now and then where threads meet in it (SystemError).
_PARSING = threading.Lock()
Beat = Callable[[], None]  # called now and then while a clip is being decoded: a sign of life
_Item = TypeVar('_Item')
_PART = 256  # face frames that a mean takes in at a time


def nothing() -> None:
  """No sign of life."""


def watched(items: Iterable[_Item], beat: Beat) -> Iterator[_Item]:
  """The items, with a sign of life at each."""
  for item in items:
    beat()
    yield item


def append_npy(path: pathlib.Path, blocks: Iterator[np.ndarray], *, fortran: bool = False) -> int:
  """Writes blocks one after the other into a `.npy` file; the growing axis is the last (`fortran`) or the first.

  Returns:
    the length of the growing axis; with 0 no file is left.
  """
  count = 0
  with open(path, 'wb') as file:

    def header(shape: tuple[int, ...], dtype: np.dtype) -> None:
      file.seek(0)
      description = {'descr': np.lib.format.dtype_to_descr(dtype), 'fortran_order': fortran, 'shape': shape}
      np.lib.format.write_array_header_1_0(file, description)  # numpy leaves room for the growing axis

    for block in blocks:
      rest = block.shape[:-1] if fortran else block.shape[1:]
      if not count:
        header((*rest, 0) if fortran else (0, *rest), block.dtype)
      file.write(np.asarray(block).tobytes(order='F' if fortran else 'C'))
      count += block.shape[-1] if fortran else block.shape[0]
    if count:
      header((*rest, count) if fortran else (count, *rest), block.dtype)
  if not count:
    path.unlink()
  return count


@contextlib.contextmanager
def _own_folder(store: pathlib.Path) -> Iterator[pathlib.Path]:
  """A folder for what is not whole yet. While it is in use, `tidy` removes none."""
  (store / 'partial').mkdir(parents=True, exist_ok=True)
  with open(store / 'lock', 'a+') as lock:
    fcntl.flock(lock, fcntl.LOCK_SH)
    (store / 'partial').mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store / 'partial') as own:
      yield pathlib.Path(own)


def _checksum(path: pathlib.Path, beat: Beat) -> int:
  """CRC-32 of a file, read a MiB at a time."""
  crc = 0
  with open(path, 'rb') as file:
    for piece in watched(iter(lambda: file.read(1 << 20), b''), beat):
      crc = zlib.crc32(piece, crc)
  return crc


def write(
  target: pathlib.Path, blocks: Iterator[np.ndarray], facts: dict[str, Any], beat: Beat, *, fortran: bool
) -> None:
  """Array first, facts last, each under a name of its own until it is whole. Lists in facts may grow until then."""
  target.parent.mkdir(parents=True, exist_ok=True)
  with _own_folder(target.parents[1]) as own:
    partial, size, crc = own / 'partial', 0, 0
    if append_npy(partial, watched(blocks, beat), fortran=fortran):
      size, crc = partial.stat().st_size, _checksum(partial, beat)
      os.replace(partial, target.with_suffix('.npy'))
    else:
      target.with_suffix('.npy').unlink(missing_ok=True)
    with open(partial, 'wb') as file:
      np.savez(file, **cast(Any, {**facts, 'bytes': size, 'crc32': crc}))
    os.replace(partial, target.with_suffix('.npz'))


def read_facts(target: pathlib.Path) -> dict[str, np.ndarray] | None:
  """What is known of a half that is done, None of one that is not."""
  try:
    with _PARSING, open(target.with_suffix('.npz'), 'rb') as file, np.load(file, allow_pickle=False) as facts:
      return dict(facts) if 'crc32' in facts else None  # which stores of old lack
  except Exception:  # absent, or damaged in one of zipfile's and numpy's many ways
    return None


def _is_whole(target: pathlib.Path) -> bool:
  """Whether a half is done and its array is the one that was written."""
  facts, array = read_facts(target), target.with_suffix('.npy')
  if facts is None or not facts['bytes']:
    return facts is not None and not array.exists()
  try:
    return array.stat().st_size == facts['bytes'] and _checksum(array, nothing) == facts['crc32']
  except OSError:
    return False


def tidy(folder: pathlib.Path) -> None:
  """Removes from the store what killed processes left, unless somebody is writing."""
  with contextlib.suppress(OSError), open(folder / 'lock', 'a+') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    shutil.rmtree(folder / 'partial', ignore_errors=True)


def mend(folder: pathlib.Path, stems: Collection[str]) -> set[str]:
  """Makes what is not whole undone, so that it is prepared again.

  Args:
    folder: the store.
    stems: of the halves to look at; those that are not done are passed over.

  Returns:
    the stems of what was damaged.
  """
  done = [stem for stem in stems if (folder / f'{stem}.npz').exists()]
  whole = joblib.Parallel(n_jobs=-1, prefer='threads')(joblib.delayed(_is_whole)(folder / stem) for stem in done)
  damaged = {stem for stem, good in zip(done, whole, strict=True) if not good}
  for stem in damaged:
    (folder / f'{stem}.npz').unlink()
  return damaged


class Store:
  """Reads prepared clips. Arrays are memory-mapped when first asked for, and what was read of them counts as memory of
  the process until `release`.

  Args:
    folder: the store.
    records: of each clip, as halves.prepare_clip returned them.
    length, shift: of a window, in log-mel frames.
    refuse_short: a sound shorter than a window gives no segment, where else it is padded to one.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    records: Sequence[dict[str, Any]],
    *,
    length: int,
    shift: int,
    refuse_short: bool = False,
  ):
    self.folder, self.records, self.length, self.shift = folder, records, length, shift
    self.refuse_short = refuse_short
    # A mapped file holds a file descriptor, of which a process may have as few as 256.
    self._array = functools.lru_cache(maxsize=128)(self._mapped)
    self._mean_face = functools.lru_cache(maxsize=4096)(self._fresh_mean_face)

  def _mapped(self, stem: str) -> np.ndarray:
    return np.load(self.folder / f'{stem}.npy', mmap_mode='r', allow_pickle=False)

  def release(self) -> None:
    """Lets go of all arrays: with this after every batch, the length of a clip does not matter to the memory."""
    self._array.cache_clear()

  def facts(self, clip: int, modality: str) -> dict[str, np.ndarray]:
    """What is known beside the array: audio column_s (seconds), rate (Hz); faces times [F], box, eyes, confidence."""
    with np.load(self.folder / f'{self.records[clip][modality]}.npz', allow_pickle=False) as file:
      return dict(file)

  def table(self) -> segments.Segments:
    """The segments of all clips, in the order of the clips."""
    parts = [segments.of_clip(0, 0, 0.01, np.zeros(0), np.zeros(0), length=self.length, shift=self.shift)]
    for clip, record in enumerate(self.records):
      columns, column_s, times, confidence = 0, 0.01, np.zeros(0), np.zeros(0)
      if record['audio']:
        columns = self._array(record['audio']).shape[1]
        if columns < self.length and self.refuse_short:
          continue
        column_s = float(self.facts(clip, 'audio')['column_s'])
      if record['faces']:
        known = self.facts(clip, 'faces')
        frames = len(self._array(record['faces']))  # a film that broke off differently the second time is cut to it
        times, confidence = known['times'][:frames], known['confidence'][:frames]
      parts.append(segments.of_clip(clip, columns, column_s, times, confidence, length=self.length, shift=self.shift))
    return segments.Segments.join(parts)

  def audio(self, wanted: segments.Segments) -> np.ndarray:
    """Static log-mel windows, float32 [N, 64, length] (mel, time), in decibels; short sounds padded with their edge."""
    windows = np.zeros((len(wanted), audio.BANDS, self.length), np.float32)
    for row, (clip, start) in enumerate(zip(wanted.clip, wanted.start, strict=True)):
      part = self._array(self.records[clip]['audio'])[:, start : start + self.length]
      windows[row, :, : part.shape[1]] = part
      windows[row, :, part.shape[1] :] = part[:, -1:]
    return windows

  def _fresh_mean_face(self, clip: int) -> np.ndarray:
    stem = self.records[clip]['faces']
    seen = self.facts(clip, 'faces')['confidence'][: len(self._mapped(stem))] > 0
    places = np.split(np.flatnonzero(seen), range(_PART, int(seen.sum()), _PART))
    # Mapped afresh for each part, which is let go of with it. Sums of whole numbers are exact.
    total = sum(self._mapped(stem)[part].sum(axis=0, dtype=np.int64) for part in places)
    return (total / seen.sum()).round().astype(np.uint8)

  def mean_faces(self, wanted: segments.Segments) -> np.ndarray:
    """The mean of all frames with a face of each segment's clip, uint8 RGB [N, 1, h, w, 3]."""
    return np.stack([self._mean_face(clip) for clip in wanted.clip])[:, None]

  def faces(self, wanted: segments.Segments) -> np.ndarray:
    """Aligned face frames, uint8 RGB [N, 16, h, w, 3]."""
    return np.stack(
      [
        self._array(self.records[clip]['faces'])[frames]
        for clip, frames in zip(wanted.clip, wanted.frames, strict=True)
      ]
    )

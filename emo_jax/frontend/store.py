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
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

import joblib
import numpy as np

from emo_jax import stages
from emo_jax.corpora.clip import Clip
from emo_jax.frontend import audio, faces, media, segments

VERSIONS = {'audio': 1, 'faces': 2}  # raised when the front end's code changes what it computes
KEPT = 256 << 20  # bytes of a film's decoded frames that are kept; a larger film is decoded a second time

Beat = Callable[[], None]  # called now and then while a clip is being decoded: a sign of life
_Item = TypeVar('_Item')


def _nothing() -> None:
  pass


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
  with open(store / 'lock', 'a') as lock:
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


def _write(
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


def _facts(target: pathlib.Path) -> dict[str, np.ndarray] | None:
  """What is known of a half that is done, None of one that is not."""
  try:
    with open(target.with_suffix('.npz'), 'rb') as file, np.load(file, allow_pickle=False) as facts:
      return dict(facts) if 'crc32' in facts else None  # which stores of old lack
  except Exception:  # absent, or damaged in one of zipfile's and numpy's many ways
    return None


def _is_whole(target: pathlib.Path) -> bool:
  """Whether a half is done and its array is the one that was written."""
  facts, array = _facts(target), target.with_suffix('.npy')
  if facts is None or not facts['bytes']:
    return facts is not None and not array.exists()
  try:
    return array.stat().st_size == facts['bytes'] and _checksum(array, _nothing) == facts['crc32']
  except OSError:
    return False


def tidy(folder: pathlib.Path) -> None:
  """Removes from the store what killed processes left, unless somebody is writing."""
  with contextlib.suppress(OSError), open(folder / 'lock', 'a') as lock:
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


def _audio(path: pathlib.Path, target: pathlib.Path, settings: dict[str, Any], beat: Beat) -> None:
  rate = media.probe(str(path)).rate
  if not 1000 <= rate <= 768_000:
    raise media.UnreadableMedia(f'{path}: claims a sample rate of {rate} Hz')
  notes: list[str] = []
  blocks = audio.heed(media.sound(str(path), notes), notes, rate=rate, high=settings['high_hz'])
  facts = {'column_s': np.asarray(audio.frame_lengths(rate)[1] / rate), 'rate': np.asarray(rate)}

  def columns() -> Iterator[np.ndarray]:
    count = 0
    for block in audio.log_mel(blocks, rate, low=settings['low_hz'], high=settings['high_hz']):
      count += block.shape[1]
      yield block
    facts['columns'], facts['warnings'] = np.asarray(count), np.array(notes, str)  # known at the end of the sound

  _write(target, columns(), facts, beat, fortran=True)


def _faces(path: pathlib.Path, target: pathlib.Path, settings: dict[str, Any], beat: Beat) -> None:
  notes: list[str] = []
  kept: list[tuple[float, media.Picture]] | None = []

  def first_pass() -> Iterator[tuple[float, np.ndarray]]:
    nonlocal kept
    size = 0
    for time, picture in media.pictures(str(path), notes):
      size += picture.nbytes
      if size > KEPT:
        kept = None
      if kept is not None:
        kept.append((time, picture))
      yield time, picture.rgb()

  search = {name: settings[name] for name in ('detector', 'every', 'min_face', 'hold')}
  track = faces.track(watched(first_pass(), beat), **search)
  again = media.pictures(str(path)) if kept is None else kept
  aligned = (
    faces.align(picture.rgb(), eyes, size=tuple(settings['size']))[None]
    for (_, picture), eyes in zip(again, track.eyes, strict=False)
  )
  facts = {name: getattr(track, name) for name in ('times', 'box', 'eyes', 'confidence')}
  facts['warnings'] = np.array(notes + faces.warnings(track), str)
  _write(target, aligned if np.any(track.confidence > 0) else iter(()), facts, beat, fortran=False)


def prepare_half(half: str, path: str, target: str, settings: dict[str, Any], beat: Beat = _nothing) -> dict[str, Any]:
  """Prepares the sound or the face of one clip, and never raises for what a media file can hold.

  Args:
    half: 'audio' or 'faces'.
    path: the media file.
    target: what is written, without its ending.
    settings: config.frontend.sound or config.frontend.faces.
    beat: called at every frame and block.

  Returns:
    {'reason': why nothing was written, '' if it was}.

  Raises:
    OSError, ImportError, MemoryError: the machine's fault, not the clip's.
  """
  import av

  stream, prepare = {'audio': ('sound', _audio), 'faces': ('picture', _faces)}[half]
  try:
    if not getattr(media.probe(path), stream):
      return {'reason': f'{pathlib.Path(path).name} has no {stream}'}
    prepare(pathlib.Path(path), pathlib.Path(target), settings, beat)
  except media.UnreadableMedia as error:
    return {'reason': str(error)}
  except Exception as error:
    if isinstance(error, OSError | ImportError | MemoryError) and not isinstance(error, av.error.FFmpegError):
      raise
    return {'reason': f'{pathlib.Path(path).name}: {stream} failed with {type(error).__name__}: {error}'}
  return {'reason': ''}


def halves(clip: Clip, hashes: dict[str, str], settings: dict[str, Any]) -> dict[str, tuple[str, str, dict[str, Any]]]:
  """The halves that a clip may have.

  Args:
    hashes: file name -> hash of its content.
    settings: config.frontend.

  Returns:
    'audio' and 'faces' -> media file, stem (where it lies in the store, without an ending), settings of this half.
  """
  found = {}
  for half, path, part in (('audio', clip.sound, 'sound'), ('faces', clip.picture, 'faces')):
    if path is not None:
      digest = stages.digest({'version': VERSIONS[half], **settings[part]})
      found[half] = str(path), f'{half}-{digest}/{hashes[str(path)][:32]}', settings[part]
  return found


def prepare_clip(
  clip: Clip,
  hashes: dict[str, str],
  folder: str,
  settings: dict[str, Any],
  prepare: Callable[..., dict[str, Any]] = prepare_half,
) -> dict[str, Any]:
  """Prepares one clip unless that is done, and never raises for what a media file can hold.

  Args:
    hashes: file name -> hash of its content.
    folder: the store.
    settings: config.frontend.
    prepare: does it, for one half; as prepare_half.

  Returns:
    {'audio': stem | None, 'faces': stem | None, 'reason': why a half is missing, '' if none is, 'warnings': sentences
    about halves that there are}; and 'again' where `prepare` said so: see decoder.prepare_half.
  """
  record: dict[str, Any] = {'audio': None, 'faces': None, 'reason': '', 'warnings': []}
  reasons = []
  for half, (path, stem, wanted) in halves(clip, hashes, settings).items():
    target = pathlib.Path(folder) / stem
    why, unread, _ = hashes[path].partition(':')
    if unread:  # what might be read by now would lie in the store under the name of something else
      reasons.append(f'{path}: cannot be read ({why})')
      continue
    facts = _facts(target)
    if facts is None:
      answer = prepare(half, path, str(target), wanted)
      reasons.append(answer.pop('reason'))
      record |= answer
      facts = _facts(target)
    if facts is None:
      continue
    if facts['bytes']:
      record[half] = stem
      record['warnings'] += facts['warnings'].tolist() if 'warnings' in facts else []
    else:
      reasons.append('no face was found' if half == 'faces' else 'the sound is shorter than one frame of 25 ms')
  return {**record, 'reason': '; '.join(dict.fromkeys(filter(None, reasons)))}


class Store:
  """Reads prepared clips. Arrays are memory-mapped when first asked for.

  Args:
    folder: the store.
    records: of each clip, as prepare_clip returned them.
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
    self._array = functools.lru_cache(maxsize=128)(
      lambda stem: np.load(folder / f'{stem}.npy', mmap_mode='r', allow_pickle=False)
    )
    self._mean_face = functools.lru_cache(maxsize=4096)(self._fresh_mean_face)

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
    frames = self._array(self.records[clip]['faces'])
    seen = self.facts(clip, 'faces')['confidence'][: len(frames)] > 0
    return np.mean(frames[seen], axis=0).round().astype(np.uint8)

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

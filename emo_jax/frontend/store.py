"""The store: every clip's log-mel columns and aligned faces, once, as memory-mapped files (pipeline step: prepare).

One `.npy` a clip and modality, named by a digest of the clip's bytes in a folder named by a digest of the front end's
settings: a clip is prepared once for all experiments, in any number of processes. The small `.npz` beside it (times,
boxes, eyes) is written last and marks it done; it exists alone where a clip has no such half.
"""

import functools
import os
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np

from emo_jax import stages
from emo_jax.corpora.clip import Clip
from emo_jax.frontend import audio, faces, media, segments

VERSION = 1  # raised when the front end's code changes what it computes


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


def _write(target: pathlib.Path, blocks: Iterator[np.ndarray], facts: dict[str, np.ndarray], *, fortran: bool) -> None:
  """Array first, facts last, each under a name of its own until it is whole."""
  target.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=target.parent) as own:
    partial = pathlib.Path(own) / 'partial'
    if append_npy(partial, blocks, fortran=fortran):
      os.replace(partial, target.with_suffix('.npy'))
    with open(partial, 'wb') as file:
      np.savez(file, **cast(Any, facts))
    os.replace(partial, target.with_suffix('.npz'))


def _audio(path: pathlib.Path, target: pathlib.Path, settings: dict[str, Any]) -> None:
  rate = media.probe(str(path)).rate
  if rate < 1000:
    raise media.UnreadableMedia(f'{path}: claims a sample rate of {rate} Hz')
  columns = audio.log_mel(media.sound(str(path)), rate, low=settings['low_hz'], high=settings['high_hz'])
  column_s = audio.frame_lengths(rate)[1] / rate
  _write(target, columns, {'column_s': np.asarray(column_s), 'rate': np.asarray(rate)}, fortran=True)


def _faces(path: pathlib.Path, target: pathlib.Path, settings: dict[str, Any]) -> None:
  search = {name: settings[name] for name in ('detector', 'every', 'min_face', 'hold')}
  track = faces.track(media.frames(str(path)), **search)
  aligned = (
    faces.align(frame, eyes, size=tuple(settings['size']))[None]
    for (_, frame), eyes in zip(media.frames(str(path)), track.eyes, strict=False)
  )
  facts = {name: getattr(track, name) for name in ('times', 'box', 'eyes', 'confidence')}
  _write(target, aligned if np.any(track.confidence > 0) else iter(()), facts, fortran=False)


def prepare_clip(clip: Clip, hashes: dict[str, str], folder: str, settings: dict[str, Any]) -> dict[str, Any]:
  """Prepares one clip unless that is done, and never raises for what a media file can hold.

  Args:
    hashes: file name -> hash of its content.
    folder: the store.
    settings: config.frontend.

  Returns:
    {'audio': stem | None, 'faces': stem | None, 'reason': why a half is missing, '' if none is}.
  """
  made: dict[str, str | None] = {'audio': None, 'faces': None}
  reasons = []
  halves = (
    ('audio', clip.sound, 'sound', _audio, settings['sound']),
    ('faces', clip.picture, 'picture', _faces, settings['faces']),
  )
  for name, path, stream, prepare, wanted in halves:
    if path is None:
      continue
    digest = stages.digest({'version': VERSION, **wanted})
    stem = f'{name}-{digest}/{hashes[str(path)][:32]}'
    target = pathlib.Path(folder) / stem
    try:
      if not target.with_suffix('.npz').exists():
        if not getattr(media.probe(str(path)), stream):
          reasons.append(f'{path.name} has no {stream}')
          continue
        prepare(path, target, wanted)
      if target.with_suffix('.npy').exists():
        made[name] = stem
      else:
        reasons.append('no face was found' if name == 'faces' else 'the sound is shorter than one frame of 25 ms')
    except media.UnreadableMedia as error:
      reasons.append(str(error))
    except (OSError, ImportError, MemoryError, RuntimeError):  # the machine's fault, not the clip's
      raise
    except Exception as error:
      reasons.append(f'{path.name}: {stream} failed with {type(error).__name__}: {error}')
  return {**made, 'reason': '; '.join(dict.fromkeys(reasons))}


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

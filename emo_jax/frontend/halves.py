"""The halves of a clip, sound and face, from its media files into the store (pipeline step: prepare)."""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from emo_jax import stages
from emo_jax.corpora.clip import Clip
from emo_jax.frontend import audio, faces, media, store

VERSIONS = {'audio': 1, 'faces': 2}  # raised when the front end's code changes what it computes
KEPT = 256 << 20  # bytes of a film's decoded frames that are kept; a larger film is decoded a second time


def _audio(path: pathlib.Path, target: pathlib.Path, settings: dict[str, Any], beat: store.Beat) -> None:
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

  store.write(target, columns(), facts, beat, fortran=True)


def _faces(path: pathlib.Path, target: pathlib.Path, settings: dict[str, Any], beat: store.Beat) -> None:
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
  track = faces.track(store.watched(first_pass(), beat), **search)
  again = media.pictures(str(path)) if kept is None else kept
  aligned = (
    faces.align(picture.rgb(), eyes, size=tuple(settings['size']))[None]
    for (_, picture), eyes in zip(again, track.eyes, strict=False)
  )
  facts = {name: getattr(track, name) for name in ('times', 'box', 'eyes', 'confidence')}
  facts['warnings'] = np.array(notes + faces.warnings(track), str)
  store.write(target, aligned if np.any(track.confidence > 0) else iter(()), facts, beat, fortran=False)


def prepare_half(
  half: str, path: str, target: str, settings: dict[str, Any], beat: store.Beat = store.nothing
) -> dict[str, Any]:
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


def of_clip(clip: Clip, hashes: dict[str, str], settings: dict[str, Any]) -> dict[str, tuple[str, str, dict[str, Any]]]:
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
  for half, (path, stem, wanted) in of_clip(clip, hashes, settings).items():
    target = pathlib.Path(folder) / stem
    why, unread, _ = hashes[path].partition(':')
    if unread:  # what might be read by now would lie in the store under the name of something else
      reasons.append(f'{path}: cannot be read ({why})')
      continue
    facts = store.read_facts(target)
    if facts is None:
      answer = prepare(half, path, str(target), wanted)
      reasons.append(answer.pop('reason'))
      record |= answer
      facts = store.read_facts(target)
    if facts is None:
      continue
    if facts['bytes']:
      record[half] = stem
      record['warnings'] += facts['warnings'].tolist() if 'warnings' in facts else []
    else:
      reasons.append('no face was found' if half == 'faces' else 'the sound is shorter than one frame of 25 ms')
  return {**record, 'reason': '; '.join(dict.fromkeys(filter(None, reasons)))}

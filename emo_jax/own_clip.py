"""A clip of one's own, opened: an experiment with one clip in it (all steps of the pipeline, on one clip).

It is decoded by the same child processes, into a store of its own that is deleted afterwards, so it is seen as training
clips were; but for long silences, which count as no sound here.
"""

import contextlib
import functools
import math
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from emo_jax.context import Experiment
from emo_jax.corpora.clip import Clip
from emo_jax.frontend import audio, decoder, halves
from emo_jax.frontend import segments as segmenting
from emo_jax.report import report
from emo_jax.steps import prepare

LIMIT_S = 60.0  # without a frame, after which a clip's decoder is stopped
SILENCE_S = 2.0  # a shorter silence within a sound is part of how somebody speaks, and was learnt from
BLOCK = 256  # segments at once: what is made of all of them, of a long clip, takes much memory


class Unreadable(ValueError):
  """A clip in which nothing can be used; the message says which and why."""


@contextlib.contextmanager
def opened(
  config: Any,
  classes: list[str],
  path: str | pathlib.Path,
  sound: str | pathlib.Path | None = None,
  *,
  limit: float = LIMIT_S,
  total: float = math.inf,
) -> Iterator[Experiment]:
  """A clip, decoded: an experiment of this one clip. Segments in which the sound is silent for long have none.

  Args:
    config: with 'frontend', as of the networks that shall see it.
    classes: what it may be.
    path: a film, or a sound.
    sound: the file of the sound, where it is not in the film.
    limit: seconds without a frame after which decoding is given up.
    total: seconds after which it is given up in any case.

  Raises:
    Unreadable: nothing in it can be used.
    decoder.MachineFailure: no fault of the clip's.
  """
  picture, voice = pathlib.Path(path).absolute(), pathlib.Path(sound or path).absolute()
  if missing := [str(file) for file in dict.fromkeys((picture, voice)) if not file.exists()]:
    raise Unreadable(f'{", ".join(missing)}: no such file')
  clip = Clip(pathlib.Path(path).name, picture, voice, speaker='', emotion='', corpus='')
  prepare_half = functools.partial(decoder.prepare_half, limit=limit, total=total)
  with tempfile.TemporaryDirectory(prefix='emo_jax_') as folder:
    x = Experiment(config, pathlib.Path(folder), pathlib.Path(folder), [clip], classes, [])
    settings, names = config.frontend.to_dict(), {str(picture): 'clip', str(voice): 'clip'}
    x.records = [halves.prepare_clip(clip, names, str(x.cache / 'store'), settings, prepare_half)]
    prepare.open_store(x)
    if not len(x.segments):
      raise Unreadable(f'{clip.id}: {x.records[0]["reason"] or "shorter than a segment"}')
    x.segments.has_audio[_silent(x)] = False
    yield x


def blocks(rows: np.ndarray) -> list[np.ndarray]:
  """Rows in parts: what is made of all of them at once, of a long clip, takes much memory."""
  return np.split(rows, range(BLOCK, len(rows), BLOCK)) if len(rows) else []


def _silent(x: Experiment) -> np.ndarray:
  """bool [S]: the segments with a sound in which nothing is to be heard, as no pause for breath would explain it."""
  rows = np.flatnonzero(x.segments.has_audio)
  silent = np.zeros(len(x.segments), bool)
  for part in blocks(rows):
    silent[part] = audio.silent(x.store.audio(x.segments.take(part)))
    x.store.release()
  edges = np.flatnonzero(np.diff(silent, prepend=False, append=False)).reshape(-1, 2)  # of each stretch
  spans = times(x, None)
  for first, last in edges:
    if spans[last - 1, 1] - spans[first, 0] < SILENCE_S and last - first < len(rows):
      silent[first:last] = False
  return silent


def nothing(x: Experiment) -> str:
  """Why no segment can be used."""
  silent = x.records[0]['audio'] is not None
  return '; '.join(filter(None, ['the sound is silent' * silent, x.records[0]['reason'] or 'no face was found']))


def warnings(x: Experiment) -> list[str]:
  """Sentences about what a clip lacks, and what is odd about it."""
  record = x.records[0]
  said = [record['reason']] if record['reason'] else []
  if record['audio'] and x.store.facts(0, 'audio')['columns'] < x.config.frontend.segments.length:
    said.append(report.SHORT)
  return [*said, *record['warnings']]


def times(x: Experiment, track: dict[str, np.ndarray] | None) -> np.ndarray:
  """float [S, 2]: when each segment begins and ends, in seconds."""
  sound = x.records[0]['audio']
  column_s = float(x.store.facts(0, 'audio')['column_s']) if sound else segmenting.COLUMN_S
  begin = x.segments.start * column_s + (0.0 if sound or track is None else float(track['times'][0]))
  length = x.config.frontend.segments.length
  return np.stack([begin, begin + (length - 1) * column_s + segmenting.FRAME_S], axis=1)


def boxes(x: Experiment, track: dict[str, np.ndarray] | None) -> dict[int, list[float]]:
  """Segment -> the median box of its face, in px of the film."""
  if track is None:
    return {}
  found = {}
  for row in np.flatnonzero(x.segments.has_face):
    frames = x.segments.frames[row]
    seen = frames[track['confidence'][frames] > 0]
    found[int(row)] = [round(float(value), 1) for value in np.median(track['box'][seen], axis=0)]
  return found


def seconds(x: Experiment, track: dict[str, np.ndarray] | None) -> float:
  """How long the clip is: its sound or its picture, whichever is longer."""
  ends = [0.0]
  if x.records[0]['audio']:
    known = x.store.facts(0, 'audio')
    ends.append((float(known['columns']) - 1) * float(known['column_s']) + segmenting.FRAME_S)
  if track is not None:
    shown = track['times']
    ends.append(float(shown[-1] + (np.median(np.diff(shown)) if len(shown) > 1 else 0)))
  return round(max(ends), 3)

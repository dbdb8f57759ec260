"""A clip of one's own: from a file to an emotion over time, by a model folder (all steps of the pipeline, on one clip).

A clip is an experiment with one clip in it, decoded by the same child processes into a store of its own, which is
deleted afterwards; so it is seen exactly as training clips were.
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
from emo_jax.evaluation import calibration, pooling, svm
from emo_jax.frontend import audio, decoder, halves
from emo_jax.frontend import segments as segmenting
from emo_jax.model import FORMAT, METHODS, MODALITIES, Model, load
from emo_jax.report import report
from emo_jax.report import saliency as grad_cam
from emo_jax.steps import filling, prepare, start
from emo_jax.training import supervised

__all__ = ['Model', 'Unreadable', 'judge', 'load', 'opened', 'saliency']
BATCH = 4  # segments at once, of one shape, so that programs are compiled once; with more no core is faster a segment
LIMIT_S = 60.0  # without a frame, after which a clip's decoder is stopped
BLOCK = 256  # segments of which the sound is looked at together
SILENCE_S = 2.0  # a shorter silence within a sound is part of how somebody speaks, and was learnt from
Shares = dict[str, float]


class Unreadable(ValueError):
  """A clip in which nothing can be used; the message says which and why."""


@contextlib.contextmanager
def opened(
  model: Model,
  path: str | pathlib.Path,
  sound: str | pathlib.Path | None = None,
  *,
  limit: float = LIMIT_S,
  total: float = math.inf,
) -> Iterator[Experiment]:
  """A clip, decoded: an experiment of this one clip. Segments in which the sound is silent for
  long count as segments without sound.

  Args:
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
    x = Experiment(model.config, pathlib.Path(folder), pathlib.Path(folder), [clip], model.classes, [])
    settings, names = model.config.frontend.to_dict(), {str(picture): 'clip', str(voice): 'clip'}
    x.records = [halves.prepare_clip(clip, names, str(x.cache / 'store'), settings, prepare_half)]
    prepare.open_store(x)
    if not len(x.segments):
      raise Unreadable(f'{clip.id}: {x.records[0]["reason"] or "shorter than a segment"}')
    x.segments.has_audio[_silent(x)] = False
    yield x


def _blocks(rows: np.ndarray) -> list[np.ndarray]:
  """Rows in parts: what is made of all of them at once, of a long clip, takes much memory."""
  return np.split(rows, range(BLOCK, len(rows), BLOCK)) if len(rows) else []


def _silent(x: Experiment) -> np.ndarray:
  """bool [S]: the segments with a sound in which nothing is to be heard, as no pause for breath would explain it."""
  rows = np.flatnonzero(x.segments.has_audio)
  silent = np.zeros(len(x.segments), bool)
  for part in _blocks(rows):
    silent[part] = audio.silent(x.store.audio(x.segments.take(part)))
    x.store.release()
  edges = np.flatnonzero(np.diff(silent, prepend=False, append=False)).reshape(-1, 2)  # of each stretch
  times = _times(x, None)
  for first, last in edges:
    if times[last - 1, 1] - times[first, 0] < SILENCE_S and last - first < len(rows):
      silent[first:last] = False
  return silent


def judge(model: Model, x: Experiment) -> dict[str, Any]:
  """What a model says of an opened clip.

  The verdict is the hybrid's, or where it has none that of the half that is there: the class that the SVM's pairwise
  margins make most probable (calibration.coupled; mostly that of its votes, which an experiment counts). Confidences
  are calibrated: of strangers' clips with 0.7 about 70 % should be right. A segment's are for its 655 ms alone.

  Returns:
    plain data:
    'file': its name; 'seconds': its length; 'classes': C words;
    'verdict', 'confidence' (0 to 1), 'by' ('hybrid', 'audio' or 'visual');
    'methods': 'audio', 'visual', 'hybrid' -> {'verdict', 'confidence', 'probabilities': {class: 0 to 1}}, or None;
    'missing': {'segments', 'without_sound', 'without_face', 'filled': counts; 'how': what stood in for missing halves};
    'warnings': sentences about the media;
    'segments': in the order of time, {'start', 'end' (seconds from the first sample of the sound; without sound, from
      the film's start), 'audio', 'visual', 'hybrid' ({class: 0 to 1} or None), 'box' (x, y, width, height of the face
      in px of the film, or None), 'has_sound', 'has_face', 'filled' ('', 'sound' or 'face')};
    'model': {'format', 'sha256', 'trained_on'}.
  """
  segments, count = x.segments, len(x.segments)
  rows = {'audio': np.flatnonzero(segments.has_audio), 'visual': np.flatnonzero(segments.has_face)}
  features = {modality: _features(model, x, modality, rows[modality]) for modality in MODALITIES}
  how = _how(model, rows)
  features['hybrid'], rows['hybrid'], filled = _fused(model, features, rows, count, how)
  methods = {method: _of_clip(model, method, features[method]) for method in METHODS}
  by = next((method for method in ('hybrid', 'audio', 'visual') if methods[method]), None)
  if by is None:
    raise Unreadable(f'{x.clips[0].id}: {_nothing(x)}')
  over_time = {method: _of_segments(model, method, features[method], rows[method]) for method in METHODS}
  track = x.store.facts(0, 'faces') if x.records[0]['faces'] else None
  times, boxes = _times(x, track), _boxes(x, track)
  return {
    'file': x.clips[0].id,
    'seconds': _seconds(x, track),
    'classes': model.classes,
    **{key: (methods[by] or {})[key] for key in ('verdict', 'confidence')},
    'by': by,
    'methods': methods,
    'missing': {
      'segments': count,
      'without_sound': int(count - len(rows['audio'])),
      'without_face': int(count - len(rows['visual'])),
      'filled': len(filled),
      'how': how if filled else '',
    },
    'warnings': _warnings(x),
    'segments': [
      {
        **dict(zip(('start', 'end'), times[row].round(3).tolist(), strict=True)),
        **{method: over_time[method].get(row) for method in METHODS},
        'box': boxes.get(row),
        'has_sound': bool(segments.has_audio[row]),
        'has_face': bool(segments.has_face[row]),
        'filled': filled.get(row, ''),
      }
      for row in range(count)
    ],
    'model': {'format': FORMAT, 'sha256': model.facts['sha256'], 'trained_on': model.facts['trained_on']['said']},
  }


def _nothing(x: Experiment) -> str:
  """Why no segment can be used."""
  silent = x.records[0]['audio'] is not None
  return '; '.join(filter(None, ['the sound is silent' * silent, x.records[0]['reason'] or 'no face was found']))


def _warnings(x: Experiment) -> list[str]:
  record = x.records[0]
  said = [record['reason']] if record['reason'] else []
  if record['audio'] and x.store.facts(0, 'audio')['columns'] < x.config.frontend.segments.length:
    said.append(report.SHORT)
  return [*said, *record['warnings']]


def _features(model: Model, x: Experiment, modality: str, rows: np.ndarray) -> np.ndarray:
  """fc7 of a network, float32 [n, F], for the segments `rows`; what was read of the store is let go of."""
  network, read = start.modality_of(x, modality).whole, start.reader(x, modality, x.segments.take(rows))

  def reading(batch: np.ndarray) -> np.ndarray:
    inputs = read(batch)
    x.store.release()
    return inputs

  if not len(rows):
    return np.zeros((0, model.facts['features'][modality]), np.float32)
  return supervised.predict(network, model.variables[modality], reading, len(rows), batch=BATCH)[1]


def _how(model: Model, rows: dict[str, np.ndarray]) -> str:
  """What stands in for missing halves: where a half is missing throughout, another than where it is in parts."""
  whole = any(not len(of_half) for of_half in rows.values())
  return model.config.missing['whole' if whole else 'part']


def _fused(
  model: Model, features: dict[str, np.ndarray], rows: dict[str, np.ndarray], count: int, how: str
) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
  """The DBN's joint features [n, H], of which segments [n], and which half of which segments was filled in."""
  has = np.stack([np.isin(np.arange(count), rows[modality]) for modality in MODALITIES], axis=1)
  wanted = np.flatnonzero(has.all(1) if how == 'leave_out' else has.any(1))
  if not len(wanted):
    return np.zeros((0, 1), np.float32), wanted, {}
  settings = {
    'how': 'zero' if how == 'leave_out' else how,
    'steps': model.config.missing.steps,
  }  # or nothing is missing
  joint, filled = [], []
  for block in _blocks(wanted):
    parts = {modality: _placed(features[modality], rows[modality], block) for modality in MODALITIES}
    of_block = filling.joint(model.fused, parts, has[block], block, seed=model.config.seed, **settings)
    joint.append(of_block[0])
    filled += block[of_block[1]].tolist()
  return np.concatenate(joint), wanted, {row: 'face' if has[row, 0] else 'sound' for row in filled}


def _placed(features: np.ndarray, rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
  """Of the features [n, F] of segments `rows`, ascending, those of the segments wanted; 0 where there is none."""
  there = np.isin(wanted, rows)
  placed = np.zeros((len(wanted), features.shape[1]), np.float32)
  placed[there] = features[np.searchsorted(rows, wanted[there])]
  return placed


def _shares(model: Model, method: str, vectors: np.ndarray, of: str) -> np.ndarray:
  """Calibrated probabilities [n, C] of an SVM's vectors [n, F']; `of` 'clip' or 'segment'."""
  return calibration.coupled(svm.margins(model.machines[method], vectors), **model.facts['calibration'][method][of])


def _named(model: Model, shares: np.ndarray) -> Shares:
  return dict(zip(model.classes, (round(float(share), 6) for share in shares), strict=True))


def _of_clip(model: Model, method: str, features: np.ndarray) -> dict[str, Any] | None:
  """A contender's verdict on the clip from its segments [n, F]; None where there is none."""
  if not len(features):
    return None
  vector, _ = pooling.pool(features, np.zeros(len(features), int), kind=model.config.pool)
  shares = _named(model, _shares(model, method, vector, 'clip')[0])
  verdict = max(shares, key=shares.__getitem__)
  return {'verdict': verdict, 'confidence': shares[verdict], 'probabilities': shares}


def _of_segments(model: Model, method: str, features: np.ndarray, rows: np.ndarray) -> dict[int, Shares]:
  """Segment -> a contender's probabilities for it alone."""
  shares: dict[int, Shares] = {}
  for block in _blocks(np.arange(len(features))):
    vectors, _ = pooling.pool(features[block], block, kind=model.config.pool)
    of_block = _shares(model, method, vectors, 'segment')
    shares |= {int(row): _named(model, of_row) for row, of_row in zip(rows[block], of_block, strict=True)}
  return shares


def _times(x: Experiment, track: dict[str, np.ndarray] | None) -> np.ndarray:
  """float [S, 2]: when each segment begins and ends, in seconds."""
  sound = x.records[0]['audio']
  column_s = float(x.store.facts(0, 'audio')['column_s']) if sound else segmenting.COLUMN_S
  begin = x.segments.start * column_s + (0.0 if sound or track is None else float(track['times'][0]))
  length = x.config.frontend.segments.length
  return np.stack([begin, begin + (length - 1) * column_s + segmenting.FRAME_S], axis=1)


def _boxes(x: Experiment, track: dict[str, np.ndarray] | None) -> dict[int, list[float]]:
  """Segment -> the median box of its face, in px of the film."""
  if track is None:
    return {}
  boxes = {}
  for row in np.flatnonzero(x.segments.has_face):
    frames = x.segments.frames[row]
    seen = frames[track['confidence'][frames] > 0]
    boxes[int(row)] = [round(float(value), 1) for value in np.median(track['box'][seen], axis=0)]
  return boxes


def _seconds(x: Experiment, track: dict[str, np.ndarray] | None) -> float:
  """How long the clip is: its sound or its picture, whichever is longer."""
  ends = [0.0]
  if x.records[0]['audio']:
    known = x.store.facts(0, 'audio')
    ends.append((float(known['columns']) - 1) * float(known['column_s']) + segmenting.FRAME_S)
  if track is not None:
    times = track['times']
    ends.append(float(times[-1] + (np.median(np.diff(times)) if len(times) > 1 else 0)))
  return round(max(ends), 3)


def saliency(model: Model, x: Experiment, rows: np.ndarray, classes: np.ndarray) -> dict[str, dict[int, np.ndarray]]:
  """Where the networks see evidence for classes: Grad-CAM (report/saliency.py).

  Args:
    x: an opened clip.
    rows: int [n], segments.
    classes: int [n], the class whose evidence is sought in each.

  Returns:
    'audio': segment -> float32 [64, 64] (mel, time), 0 to 1; 'visual': segment -> float32 [16, h, w]. Segments that
    lack the half are left out.
  """
  found: dict[str, dict[int, np.ndarray]] = {}
  has = {'audio': x.segments.has_audio, 'visual': x.segments.has_face}
  for modality in MODALITIES:
    able = has[modality][rows]
    own = rows[able]
    inputs = start.reader(x, modality, x.segments)(own) if len(own) else np.zeros(0)
    if not len(own):
      found[modality] = {}
      continue
    size = (16, *x.config.frontend.faces.size) if modality == 'visual' else inputs.shape[1:]
    forward = start.modality_of(x, modality).whole.forward
    heat, _ = grad_cam.heat_maps(forward, model.variables[modality], inputs, classes[able], size=size)
    found[modality] = dict(zip(own.tolist(), heat, strict=True))
  return found

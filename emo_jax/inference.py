"""What a model says of a clip, segment by segment and as a whole (all steps of the pipeline, by a model folder)."""

import contextlib
import dataclasses
import math
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from emo_jax import model as model_folder
from emo_jax import own_clip
from emo_jax.context import Experiment
from emo_jax.evaluation import calibration, pooling, svm
from emo_jax.model import FORMAT, METHODS, MODALITIES, Unfit
from emo_jax.models import dbn
from emo_jax.report import saliency as grad_cam
from emo_jax.steps import filling, start
from emo_jax.training import checkpoint, parallel, supervised

Tree = Any
Shares = dict[str, float]
BATCH = 4  # segments at once, of one shape, so that programs are compiled once; with more no core is faster a segment


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
  """A trained model, ready to predict.

  Attributes:
    config: the fields in model.CONFIG.
    classes: C emotions, in the order of all scores.
    variables: 'audio' and 'visual' -> 'params' and 'statistics' of the network, on all local devices.
    fused: the DBN, what stands before it, and the RBMs that fill in a missing half.
    machines: 'audio', 'visual', 'hybrid' -> the SVM (evaluation/svm.py).
    facts: model.json.
  """

  config: Any
  classes: list[str]
  variables: dict[str, Tree]
  fused: filling.Fused
  machines: dict[str, dict[str, np.ndarray]]
  facts: dict[str, Any]

  def opened(
    self,
    path: str | pathlib.Path,
    sound: str | pathlib.Path | None = None,
    *,
    limit: float = own_clip.LIMIT_S,
    total: float = math.inf,
  ) -> contextlib.AbstractContextManager[Experiment]:
    """A clip, decoded as this model's networks want it: see own_clip.opened."""
    return own_clip.opened(self.config, self.classes, path, sound, limit=limit, total=total)

  def predict(self, path: str | pathlib.Path, sound: str | pathlib.Path | None = None) -> dict[str, Any]:
    """The emotion of a clip, and how it goes over time, as plain data: see `judge`.

    Args:
      path: a film, or a sound.
      sound: the file of the sound, where it is not in the film.

    Raises:
      own_clip.Unreadable: nothing in it can be used; why.
      decoder.MachineFailure: no fault of the clip's.
    """
    with self.opened(path, sound) as clip:
      return judge(self, clip)


def load(folder: str | pathlib.Path) -> Model:
  """Loads a model folder, if it is whole and this version of the project prepares clips as it expects.

  Raises:
    Unfit: it is no model folder, damaged, or of another version.
  """
  place = pathlib.Path(folder)
  facts, arrays = model_folder.read(place)
  try:
    return _model(place, facts, arrays)
  except Unfit:
    raise
  except (LookupError, TypeError, ValueError, AttributeError) as error:  # what holds together and is no model
    raise Unfit(f'{place} is no whole model ({type(error).__name__}: {error}): export it again') from error


def _model(folder: pathlib.Path, facts: dict[str, Any], arrays: Tree) -> Model:
  config, classes = ml_collections.ConfigDict(facts['config']), list(facts['classes'])
  without_clip = Experiment(config, pathlib.Path(), pathlib.Path(), [], classes, [])
  for modality in MODALITIES:
    if other := checkpoint.differences(arrays[modality], start.variables_like(without_clip, modality)):
      raise Unfit(f'{folder} does not fit together: {modality}/{f"; {modality}/".join(other[:3])}: export it again')
  for method in METHODS:
    _check_machine(arrays['svm'][method], facts['calibration'][method], len(classes))
  units = config.fusion.units
  greedy, stack = ([arrays[name][str(layer)] for layer in range(len(units))] for name in ('greedy', 'stack'))
  kinds = dbn.stack_units(len(units), visible=config.fusion.visible, top=config.fusion.top)
  variables = {modality: parallel.replicate(arrays[modality]) for modality in MODALITIES}
  fused = filling.Fused(arrays['scaler'], jax.device_put(greedy), jax.device_put(stack), kinds)
  return Model(config, classes, variables, fused, {method: arrays['svm'][method] for method in METHODS}, facts)


def _check_machine(machine: dict[str, np.ndarray], calibrated: dict[str, Any], classes: int) -> None:
  """Judges nothing at all, as clips and segments will be judged.

  Raises:
    ValueError, TypeError, LookupError: the machine or its calibration is none.
  """
  margins = svm.margins(machine, np.zeros((1, *machine['low'].shape)))
  for of in ('clip', 'segment'):
    if calibration.coupled(margins, **calibrated[of]).shape != (1, classes):
      raise ValueError(f'an SVM of {margins.shape[1]} classes, not {classes}')


def judge(model: Model, x: Experiment) -> dict[str, Any]:
  """What a model says of an opened clip.

  The verdict is the hybrid's, or where it has none that of the half that is there: the class that the SVM's pairwise
  margins make most probable (calibration.coupled; mostly that of its votes, which an experiment counts). Confidences
  are calibrated on whole clips of strangers: of those with 0.7 about 70 % should be right; how it is where a part lacks
  was not measured. A segment's are for its 655 ms alone.

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
    raise own_clip.Unreadable(f'{x.clips[0].id}: {own_clip.nothing(x)}')
  over_time = {method: _of_segments(model, method, features[method], rows[method]) for method in METHODS}
  track = x.store.facts(0, 'faces') if x.records[0]['faces'] else None
  times, boxes = own_clip.times(x, track), own_clip.boxes(x, track)
  return {
    'file': x.clips[0].id,
    'seconds': own_clip.seconds(x, track),
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
    'warnings': own_clip.warnings(x),
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
  fill = 'zero' if how == 'leave_out' else how  # where what lacks is left out, there is nothing to fill in
  settings = {'how': fill, 'steps': model.config.missing.steps}
  joint, filled = [], []
  for block in own_clip.blocks(wanted):
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
  for block in own_clip.blocks(np.arange(len(features))):
    vectors, _ = pooling.pool(features[block], block, kind=model.config.pool)
    of_block = _shares(model, method, vectors, 'segment')
    shares |= {int(row): _named(model, of_row) for row, of_row in zip(rows[block], of_block, strict=True)}
  return shares


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
    found[modality] = {}
    if not len(own):
      continue
    inputs = start.reader(x, modality, x.segments)(own)
    size = (16, *x.config.frontend.faces.size) if modality == 'visual' else inputs.shape[1:]
    forward = start.modality_of(x, modality).whole.forward
    heat, _ = grad_cam.heat_maps(forward, model.variables[modality], inputs, classes[able], size=size)
    found[modality] = dict(zip(own.tolist(), heat, strict=True))
  return found

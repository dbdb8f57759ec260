"""The model folder: all that prediction needs of a trained experiment, as plain data (after all steps of the pipeline).

  model.json            classes, config, calibration, figures, where it comes from, licences, digest of the weights
  weights.safetensors   every array under a name, as audio/params/conv1/kernel
  README.md             the same for people

Nothing of it is run when it is loaded: safetensors holds numbers and names alone.
"""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import ml_collections
import numpy as np

from emo_jax import files
from emo_jax.context import Experiment
from emo_jax.evaluation import calibration, svm
from emo_jax.frontend import halves
from emo_jax.models import dbn
from emo_jax.steps import filling, start
from emo_jax.training import checkpoint, parallel

Tree = Any
FORMAT = 1  # raised when what a folder holds changes
CONFIG = ('seed', 'nets_seed', 'frontend', 'audio', 'visual', 'fusion', 'pool', 'missing', 'nonfinite')  # what is read
METHODS = ('audio', 'visual', 'hybrid')
MODALITIES = ('audio', 'visual')
MOST_JSON = 16 << 20  # bytes; a larger model.json is none


class Unfit(ValueError):
  """A folder that cannot be used as a model; the message names it, says why and what to do."""


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
  """A trained model, ready to predict.

  Attributes:
    config: the fields in CONFIG.
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

  def predict(self, path: str | pathlib.Path, sound: str | pathlib.Path | None = None) -> dict[str, Any]:
    """The emotion of a clip, and how it goes over time, as plain data: see inference.judge.

    Args:
      path: a film, or a sound.
      sound: the file of the sound, where it is not in the film.

    Raises:
      inference.Unreadable: nothing in it can be used; why.
    """
    from emo_jax import inference

    with inference.opened(self, path, sound) as clip:
      return inference.judge(self, clip)


def flat(tree: Tree) -> dict[str, np.ndarray]:
  """Nested dicts, lists and tuples of arrays as one dict, with names like audio/params/conv1/kernel."""
  return {name: np.asarray(leaf, order='C') for name, leaf in checkpoint.by_name(tree).items()}


def nested(arrays: dict[str, np.ndarray]) -> Tree:
  """What `flat` had, in dicts; lists come back as dicts with the keys '0', '1', ..."""
  tree: Tree = {}
  for name, array in arrays.items():
    *folders, leaf = name.split('/')
    place = tree
    for folder in folders:
      place = place.setdefault(folder, {})
    place[leaf] = array
  return tree


def write(folder: pathlib.Path, arrays: Tree, facts: dict[str, Any], readme: str) -> None:
  """Writes a model folder; model.json comes last, so what a kill leaves is no model.

  Args:
    arrays: 'audio', 'visual': variables; 'scaler'; 'stack' and 'greedy': RBMs, the lowest first; 'svm': of each method.
    facts: model.json but for the weights' digest.
    readme: README.md.
  """
  from safetensors.numpy import save

  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'model.json').unlink(missing_ok=True)
  weights = folder / 'weights.safetensors'
  weights.write_bytes(save(flat(arrays)))
  with files.whole(folder / 'README.md') as file:
    file.write(readme)
  with files.whole(folder / 'model.json') as file:
    file.write(json.dumps({**facts, 'sha256': _sha256(weights)}, indent=1) + '\n')


def _sha256(path: pathlib.Path) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def load(folder: str | pathlib.Path) -> Model:
  """Loads a model folder, if it is what `write` wrote and this version of the project prepares clips as it expects.

  Raises:
    Unfit: it is no model folder, damaged, or of another version.
  """
  place = pathlib.Path(folder)
  facts = _facts(place)
  try:
    return _model(place, facts)
  except Unfit:
    raise
  except (LookupError, TypeError, ValueError, AttributeError) as error:  # what holds together and is no model
    raise Unfit(f'{place} is no whole model ({type(error).__name__}: {error}): export it again') from error


def _facts(folder: pathlib.Path) -> dict[str, Any]:
  """model.json, if it is of this format."""
  path = folder / 'model.json'
  try:
    if path.stat().st_size > MOST_JSON:
      raise Unfit(f'{path} is too large for a model.json')
    facts = json.loads(path.read_text(encoding='utf-8'))
    known, front_end = facts['format'], facts['front_end']
  except FileNotFoundError as error:
    told = 'python -m emo_jax.export --workdir=W --out=M makes a model of a finished experiment'
    raise Unfit(f'{folder} is no model folder: it holds no model.json ({told})') from error
  except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
    raise Unfit(f'{path} cannot be read ({type(error).__name__}: {error}): export the model again') from error
  if known != FORMAT:
    raise Unfit(f'{folder} is a model of format {known!r}, this version reads {FORMAT}: export it again')
  if front_end != halves.VERSIONS:
    raise Unfit(
      f'{folder} was trained on clips prepared by version {front_end} of the front end, this is {halves.VERSIONS}: use '
      'the version of emo_jax that made it (model.json, provenance), or train and export again'
    )
  return facts


def _model(folder: pathlib.Path, facts: dict[str, Any]) -> Model:
  from safetensors import SafetensorError
  from safetensors.numpy import load_file

  weights = folder / 'weights.safetensors'
  try:
    found = _sha256(weights)
    if found != facts['sha256']:
      raise Unfit(f'{weights} is damaged, or of another model (its SHA-256 is {found[:12]}...): export it again')
    arrays = nested(load_file(weights))
  except (OSError, SafetensorError) as error:
    raise Unfit(f'{weights} cannot be read ({error}): export the model again') from error
  config = ml_collections.ConfigDict(facts['config'])
  clip = without_clip(config, facts['classes'])
  for modality in MODALITIES:
    if other := checkpoint.differences(arrays[modality], start.variables_like(clip, modality)):
      raise Unfit(f'{folder} does not fit together: {modality}/{f"; {modality}/".join(other[:3])}: export it again')
  of_dbn = config.fusion
  stacks = {name: [arrays[name][str(n)] for n in range(len(of_dbn.units))] for name in ('greedy', 'stack')}
  fused = filling.Fused(
    scaler=arrays['scaler'],
    greedy=stacks['greedy'],
    stack=stacks['stack'],
    kinds=dbn.stack_units(len(of_dbn.units), visible=of_dbn.visible, top=of_dbn.top),
  )
  for method in METHODS:
    _check_machine(arrays['svm'][method], facts['calibration'][method], len(facts['classes']))
  variables = {modality: parallel.replicate(arrays[modality]) for modality in MODALITIES}
  return Model(config, list(facts['classes']), variables, fused, {m: arrays['svm'][m] for m in METHODS}, facts)


def without_clip(config: Any, classes: list[str]) -> Experiment:
  """An experiment that has a model's networks, and no clip yet."""
  return Experiment(config, pathlib.Path(), pathlib.Path(), [], classes, [])


def _check_machine(machine: dict[str, np.ndarray], calibrated: dict[str, Any], classes: int) -> None:
  """Judges nothing at all, as clips and segments will be judged.

  Raises:
    ValueError, TypeError, LookupError: the machine or its calibration is none.
  """
  margins = svm.margins(machine, np.zeros((1, *machine['low'].shape)))
  for of in ('clip', 'segment'):
    if calibration.coupled(margins, **calibrated[of]).shape != (1, classes):
      raise ValueError(f'an SVM of {margins.shape[1]} classes, not {classes}')

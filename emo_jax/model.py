"""The model folder: all that prediction needs of a trained experiment, as plain data (after all steps of the pipeline).

  model.json            classes, config, calibration, figures, where it comes from, licences, digest of the weights
  weights.safetensors   every array under a name, as audio/params/conv1/kernel
  README.md             the same for people

Nothing of it is run when it is loaded: safetensors holds numbers and names alone.
"""

import hashlib
import json
import pathlib
from typing import Any

import numpy as np

from emo_jax import files
from emo_jax.frontend import halves
from emo_jax.training import checkpoint

Tree = Any
FORMAT = 1  # raised when what a folder holds changes
CONFIG = ('seed', 'nets_seed', 'frontend', 'audio', 'visual', 'fusion', 'pool', 'missing', 'nonfinite')  # what is read
METHODS = ('audio', 'visual', 'hybrid')
MODALITIES = ('audio', 'visual')
MOST_JSON = 16 << 20  # bytes; a larger model.json is none


class Unfit(ValueError):
  """A folder that cannot be used as a model; the message names it, says why and what to do."""


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


def claim(folder: pathlib.Path) -> None:
  """Makes a folder in which a model may be written; one that is there is empty, or holds a model to be replaced.

  Raises:
    Unfit: it holds something else.
    OSError: it cannot be made.
  """
  folder.mkdir(parents=True, exist_ok=True)
  if any(folder.iterdir()) and not (folder / 'model.json').exists():
    raise Unfit(f'{folder} holds other things and no model: name a folder that is empty or does not exist')


def write(folder: pathlib.Path, arrays: Tree, facts: dict[str, Any], readme: str) -> None:
  """Writes a model in a folder (`claim`). What was there is replaced when all is written; a kill just then leaves none.

  Args:
    arrays: 'audio', 'visual': variables; 'scaler'; 'stack' and 'greedy': RBMs, the lowest first; 'svm': of each method.
    facts: model.json but for the weights' digest.
    readme: README.md.
  """
  from safetensors.numpy import save

  weights, partial = folder / 'weights.safetensors', folder / 'weights.partial'
  partial.write_bytes(save(flat(arrays), metadata={'facts': _digest(facts)}))
  facts = {**facts, 'sha256': _sha256(partial)}
  (folder / 'model.json').unlink(missing_ok=True)
  partial.replace(weights)
  for name, text in (('README.md', readme), ('model.json', json.dumps(facts, indent=1) + '\n')):
    with files.whole(folder / name) as file:
      file.write(text)


def _digest(facts: dict[str, Any]) -> str:
  """SHA-256 of model.json's content but for the weights' digest, which the weights hold: each vouches for the other."""
  content = {key: value for key, value in facts.items() if key != 'sha256'}
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path: pathlib.Path) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _facts(folder: pathlib.Path) -> dict[str, Any]:
  """model.json, if it is of this format."""
  path = folder / 'model.json'
  try:
    if path.stat().st_size > MOST_JSON:
      raise Unfit(f'{path} is too large for a model.json')
    facts = json.loads(path.read_text(encoding='utf-8'))
    known, front_end, _ = facts['format'], facts['front_end'], facts['sha256']
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


def read(folder: pathlib.Path) -> tuple[dict[str, Any], Tree]:
  """model.json and the arrays of a model folder, if they are what `write` wrote.

  Raises:
    Unfit: it is no model folder, damaged, of another format, or of clips that were prepared otherwise.
  """
  from safetensors import SafetensorError, safe_open
  from safetensors.numpy import load_file

  facts, weights = _facts(folder), folder / 'weights.safetensors'
  try:
    found = _sha256(weights)
    if found != facts['sha256']:
      raise Unfit(f'{weights} is damaged, or of another model (its SHA-256 is {found[:12]}...): export it again')
    with safe_open(weights, framework='numpy') as file:
      sealed = (file.metadata() or {}).get('facts')
    if sealed != _digest(facts):
      raise Unfit(f'{folder}/model.json is not as it was written: export the model again, with another config')
    return facts, nested(load_file(weights))
  except (OSError, SafetensorError) as error:
    raise Unfit(f'{weights} cannot be read ({error}): export the model again') from error

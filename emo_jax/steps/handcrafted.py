"""Step 3, handcrafted: whole clips described by rules that nobody trained, the same in all folds (method.md A5)."""

import importlib.metadata
import json
import pathlib
import sys

import numpy as np

from emo_jax import stages
from emo_jax.context import Experiment, Unusable
from emo_jax.frontend import decoder, workers
from emo_jax.handcrafted import face, halves, sound
from emo_jax.training.metrics import progress

VERSION = 1  # raised when this code changes its result
HALVES = {'sound': 'audio', 'face': 'faces'}  # -> the store's names
LIBRARIES = ('librosa', 'scikit-image', 'opencv-python-headless')


def extract(x: Experiment) -> None:
  """Every clip's sound and face as hand-crafted features; a clip that they cannot be had of is told of, never fatal.

  The stage's folder, one for all folds, holds 'sound.npy' float32 [clips, F] and 'face.npy' float32 [clips, F'], where
  rows are NaN of clips without a segment of that half, and 'names.json', what the features are.

  Raises:
    Unusable: the machine has to be seen to: a full disk, a missing package.
  """
  wanted = x.config.handcrafted
  libraries = (*LIBRARIES, 'opensmile') if wanted.sound in sound.OPENSMILE else LIBRARIES
  try:
    names = {'sound': sound.names(wanted.sound), 'face': face.names(wanted.size)}
    key = {
      'version': VERSION,
      'config': wanted.to_dict(),
      'libraries': {name: importlib.metadata.version(name) for name in libraries},
      'clips': {half: _stems(x, half) for half in HALVES},
    }
    work = lambda folder: _describe_all(x, folder, names)
    if not x.planned('handcrafted', [key]):
      x.made['handcrafted'] = [stages.run(x.cache, 'handcrafted', key, work)]
  except (OSError, ImportError, MemoryError, decoder.MachineFailure) as error:
    raise Unusable(decoder.explain(error, x.cache)) from error


def load(x: Experiment, half: str) -> tuple[np.ndarray, np.ndarray]:
  """The features of the clips that have them.

  Args:
    half: 'sound' or 'face'.

  Returns:
    float32 [n, F], and int [n], whose they are.
  """
  (folder,) = x.made['handcrafted']
  features = np.load(folder / f'{half}.npy')
  clips = np.flatnonzero(~np.isnan(features).any(1))
  return features[clips], clips


def width(x: Experiment, half: str) -> int:
  """How many features of a half, 'sound' or 'face', there are: F."""
  (folder,) = x.made['handcrafted']
  return np.load(folder / f'{half}.npy', mmap_mode='r').shape[1]


def _stems(x: Experiment, half: str) -> list[str | None]:
  """Where each clip's half lies in the store, named by its content; None for one that the networks do not see."""
  has = x.segments.has_audio if half == 'sound' else x.segments.has_face
  seen = set(x.segments.clip[has])
  return [record[HALVES[half]] if number in seen else None for number, record in enumerate(x.records)]


def _describe_all(x: Experiment, folder: pathlib.Path, names: dict[str, list[str]]) -> None:
  scratch = folder / 'scratch'  # what an interrupted run goes on from
  scratch.mkdir(exist_ok=True)
  settings, limit, jobs = x.config.handcrafted.to_dict(), x.config.executor.limit, {}
  for half in HALVES:
    for number, stem in enumerate(_stems(x, half)):
      target = scratch / f'{half}_{number}'
      if stem is None or target.with_suffix('.npy').exists():
        continue
      path = x.clips[number].sound if half == 'sound' else x.store.folder / stem
      assert path
      jobs[half, number] = (half, str(path.absolute()), str(target), settings, limit)
  with progress('handcrafted', len(jobs), 'half') as bar:
    for (half, number), reason in workers.run(halves.take, jobs, x.config.executor):
      if reason:
        print(f'handcrafted: {x.clips[number].id} has no hand-crafted {half}: {reason}', file=sys.stderr)
      bar.update()
  for half, named in names.items():
    features = np.full((len(x.clips), len(named)), np.nan, np.float32)
    for number in range(len(x.clips)):
      if (described := scratch / f'{half}_{number}.npy').exists():
        features[number] = np.load(described, allow_pickle=False)
    np.save(folder / f'{half}.npy', features)
  (folder / 'names.json').write_text(json.dumps(names, indent=1) + '\n')

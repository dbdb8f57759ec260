"""Step 3, handcrafted: whole clips described by rules that nobody trained, the same in all folds (method.md A5)."""

import importlib.metadata
import itertools
import json
import pathlib
import sys

import numpy as np

from emo_jax import processes, stages
from emo_jax.context import Experiment, Unusable
from emo_jax.frontend import decoder, workers
from emo_jax.handcrafted import face, halves, sound
from emo_jax.training.metrics import progress

VERSION = 1  # raised when this code changes its result
HALVES = {'sound': 'audio', 'face': 'faces'}  # -> the store's names
LIBRARIES = ('librosa', 'scikit-image', 'opencv-python-headless')


def extract(x: Experiment) -> None:
  """Every clip's sound and face as hand-crafted features; a clip that they cannot be had of is told of, never fatal.

  The processes of a team describe a part of the clips each.

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

  def look() -> list[str]:
    scratch.mkdir(exist_ok=True)
    return sorted(path.stem for path in scratch.glob('*.npy'))

  there = set(processes.by_lead(look))
  reasons = _describe(x, scratch, there)
  if processes.lead():
    for (half, number), reason in reasons.items():
      if reason:
        print(f'handcrafted: {x.clips[number].id} has no hand-crafted {half}: {reason}', file=sys.stderr)
    there |= {f'{half}_{number}' for (half, number), reason in reasons.items() if not reason}
    workers.await_files([scratch / f'{name}.npy' for name in there])
    for half, named in names.items():
      features = np.full((len(x.clips), len(named)), np.nan, np.float32)
      for number in range(len(x.clips)):
        if (name := f'{half}_{number}') in there:
          features[number] = np.load(scratch / f'{name}.npy', allow_pickle=False)
      np.save(folder / f'{half}.npy', features)
    (folder / 'names.json').write_text(json.dumps(names, indent=1) + '\n')


def _describe(x: Experiment, scratch: pathlib.Path, there: set[str]) -> dict[tuple[str, int], str]:
  """Describes what is not there yet, of which this process does its part; it waits for the others.

  Returns:
    half and number of a clip -> why nothing was written, '' if it was. In the order of halves and clips.
  """
  stems = {(half, number): stem for half in HALVES for number, stem in enumerate(_stems(x, half)) if stem is not None}
  left = [key for key in stems if '{}_{}'.format(*key) not in there]
  settings, limit, jobs = x.config.handcrafted.to_dict(), x.config.executor.limit, {}
  for half, number in workers.share(left, x.config.executor):
    path = x.clips[number].sound if half == 'sound' else x.store.folder / stems[half, number]
    assert path
    jobs[half, number] = (half, str(path.absolute()), str(scratch / f'{half}_{number}'), settings, limit)
  made = []
  with progress(workers.titled('handcrafted'), len(jobs), 'half') as bar:
    for key, reason in workers.run(halves.take, jobs, x.config.executor):
      made.append([*key, reason])
      bar.update()
  reasons = {(half, number): why for half, number, why in itertools.chain.from_iterable(processes.exchange(made))}
  return {key: reasons[key] for key in left}

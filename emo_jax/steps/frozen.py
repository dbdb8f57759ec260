"""The frozen part of a network (config.audio.trained, config.visual.trained): run once over all segments, and kept.

What it gives is a row's own, so folds share it where they share the standardisation, and test rows in it reach nobody.
"""

import pathlib
from typing import Any

import jax
import numpy as np

from emo_jax import processes, stages
from emo_jax.context import Experiment
from emo_jax.steps import start
from emo_jax.training import checkpoint, supervised
from emo_jax.training.metrics import progress

Tree = Any
VERSION = 1  # raised when this code changes its result
# The front end and the network, but not how the rest is trained: the key says which part of the config matters.
FRONT = {
  'audio': ('network', 'form', 'width', 'size', 'norm', 'trained', 'precision', 'deltas', 'z_score'),
  'visual': ('network', 'width', 'size', 'pool5', 'grid', 'norm', 'trained', 'precision', 'scaling'),
}


def trained(x: Experiment, modality: str, params: Tree) -> Tree:
  """Those of a network's parameters that are trained, by layer; the other layers are the frozen part."""
  model = start.modality_of(x, modality).model
  if model.trained == 'all':
    return params

  def rest(images: jax.Array) -> Tree:
    activations = model.init_with_output(jax.random.key(0), images, part='trunk')[0]
    return model.init(jax.random.key(0), activations, part='rest')['params']

  layers = jax.eval_shape(rest, start.images_like(x, modality))
  return {layer: params[layer] for layer in layers}


def run(x: Experiment, modality: str, variables: Tree) -> pathlib.Path:
  """The folder with 'rows.npy' int [n], all segments that have the modality, and 'trunk.npy' float32 [n, ...].

  Args:
    variables: the whole network's; of its 'params' the frozen ones are used.
  """
  config, network = x.config[modality], start.modality_of(x, modality)
  rows = np.flatnonzero(x.segments.has_audio if modality == 'audio' else x.segments.has_face)
  layers = set(variables['params']) - set(trained(x, modality, variables['params']))
  frozen = {'params': {layer: variables['params'][layer] for layer in layers}, 'statistics': variables['statistics']}

  def work(folder: pathlib.Path) -> None:
    read = start.reader(x, modality, x.segments.take(rows))
    with progress(f'{modality}_trunk', len(rows), 'segment') as bar:
      stored = None
      for first, outputs in supervised.outputs(network.trunk, frozen, read, len(rows), batch=config.batch):
        if processes.lead():
          if stored is None:
            shape = (len(rows), *outputs.shape[1:])
            stored = np.lib.format.open_memmap(folder / 'trunk.npy', 'w+', np.float32, shape)
          stored[first : first + len(outputs)] = outputs
        bar.tick(len(outputs), len(outputs))
    if processes.lead():
      np.save(folder / 'rows.npy', rows)

  key = {
    'version': VERSION,
    'config': {name: config[name] for name in FRONT[modality]},
    'variables': checkpoint.digest(frozen),
    'segments': x.segments.digest(),
    'clips': x.contents(range(len(x.clips)), ('audio', 'faces')),
  }
  return stages.run(x.cache, f'{modality}_trunk', key, work)


def reader(folder: pathlib.Path, rows: np.ndarray) -> supervised.Read:
  """places in `rows` -> what the frozen part gave for those segments, from `run`'s folder."""
  stored, place = np.load(folder / 'trunk.npy', mmap_mode='r'), np.searchsorted(np.load(folder / 'rows.npy'), rows)
  return lambda wanted: stored[place[wanted]]

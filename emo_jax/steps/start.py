"""What the two networks start from: random or published weights, and what their images are standardised by."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from emo_jax.context import Experiment
from emo_jax.frontend.segments import Segments
from emo_jax.models import pretrained
from emo_jax.training import rngs, supervised
from emo_jax.training.modalities import MODALITIES, Modality

Tree = Any


@functools.lru_cache(maxsize=4)
def _built(modality: str, config: ml_collections.FrozenConfigDict, classes: int, nonfinite: str) -> Modality:
  return MODALITIES[modality](config, classes=classes, nonfinite=nonfinite)


def modality_of(x: Experiment, modality: str) -> Modality:
  """The network of 'audio' or 'visual' as the config wants it, the same one for all folds: it is compiled once."""
  return _built(modality, ml_collections.FrozenConfigDict(x.config[modality]), len(x.classes), x.config.nonfinite)


def images_like(x: Experiment, modality: str) -> jax.ShapeDtypeStruct:
  """The shape of one row in front of the first layer."""
  size = x.config[modality].size
  return jax.ShapeDtypeStruct((1, size, size, 3) if modality == 'audio' else (1, 16, size, size, 3), np.float32)


def random_params(x: Experiment, modality: str) -> Tree:
  """The network's parameters as they are drawn, the same in every fold."""
  images = jnp.zeros(images_like(x, modality).shape)
  return modality_of(x, modality).model.init(rngs.stream(x.nets_seed, modality, 'init'), images)['params']


@functools.lru_cache(maxsize=2)
def _loaded(init: str, order: str, inflate: str) -> pretrained.Published:
  return pretrained.load(init, order=order, inflate=inflate)


def published(x: Experiment, modality: str) -> pretrained.Published | None:
  """The published weights that a network starts from; None for random ones.

  Raises:
    ValueError: they cannot be read, or are of another network.
    ModuleNotFoundError: they are in a package that is not installed.
  """
  config = x.config[modality]
  if config.init == 'random':
    return None
  weights = _loaded(config.init, config.init_order, config.get('inflate', ''))
  for field, wanted in {'network': weights.network, **weights.needs}.items():
    if config.get(field) != wanted:
      raise ValueError(
        f'config.{modality}.init={config.init!r} holds {weights.source}, for {field}={wanted!r}, but '
        f'config.{modality}.{field}={config.get(field)!r}: '
        + (f'set it to {wanted!r}' if field in config else 'these weights are of the other modality')
      )
  return weights


def initial_params(x: Experiment, modality: str) -> tuple[Tree, pretrained.Report | None]:
  """The network's parameters before training, the same in every fold, and what published weights gave to them."""
  params = jax.jit(lambda: random_params(x, modality))()
  weights = published(x, modality)
  return pretrained.start(params, weights) if weights else (params, None)


def row_like(x: Experiment, modality: str) -> Any:
  """The shape of one row of a network's input, as the store gives it."""
  if modality == 'audio':
    return jax.ShapeDtypeStruct((1, 64, x.config.frontend.segments.length), np.float32)
  frames = 17 if x.config.visual.scaling == 'clip' else 16
  return jax.ShapeDtypeStruct((1, frames, *x.config.frontend.faces.size, 3), np.uint8)


def variables_like(x: Experiment, modality: str) -> Tree:
  """The shapes of what a network's folder holds: 'params' and 'statistics'."""
  size = jax.eval_shape(modality_of(x, modality).whole.images, row_like(x, modality)).shape[2:]
  shapes = {'mean': size, 'deviation': size, 'gain': (3,)}
  return {
    'params': jax.eval_shape(lambda: random_params(x, modality)),
    'statistics': {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()},
  }


def reader(x: Experiment, modality: str, table: Segments) -> supervised.Read:
  """rows of `table` -> the network's input, from the store."""
  read = x.store.audio if modality == 'audio' else x.store.faces
  if modality == 'visual' and x.config.visual.scaling == 'clip':
    read = lambda wanted: np.concatenate([x.store.mean_faces(wanted), x.store.faces(wanted)], axis=1)
  return lambda rows: read(table.take(rows))


def statistics(x: Experiment, modality: str, read: supervised.Read, rows: int) -> dict[str, np.ndarray]:
  """What a network's images are standardised by: its training rows, or the contract of its published weights.

  Rows standardised by themselves have deviation 1; 'gain' then gives them the one that natural images had in front of
  a published first layer (method.md A3, the scale trap). It is 1 for random weights.

  Args:
    read: training rows -> the network's input.
    rows: how many there are.

  Returns:
    'mean' and 'deviation' float32 [h, w, 3], 'gain' float32 [3].
  """
  weights, shape = published(x, modality), variables_like(x, modality)['statistics']['mean'].shape
  if modality == 'visual' and x.config.visual.scaling == 'published':
    assert weights is not None  # checks.check refuses it
    mean, deviation = (np.array(np.broadcast_to(values, shape), np.float32) for values in weights.contract)
    return {'mean': mean, 'deviation': deviation, 'gain': np.ones(3, np.float32)}
  gain = pretrained.NATURAL / weights.contract.deviation if weights else np.ones(3)
  fitted = supervised.image_statistics(modality_of(x, modality).whole, read, rows, batch=x.config[modality].batch)
  return {**fitted, 'gain': np.asarray(gain, np.float32)}

"""Steps 2 to 4: the audio net and the visual net of every fold, then the features that both give (method.md A3)."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from emo_jax.context import Experiment
from emo_jax.frontend.segments import Segments
from emo_jax.training import batches, checkpoint, rngs, supervised

VERSION = {'audio_net': 1, 'visual_net': 1, 'features': 2}  # raised when the code changes a result
NETWORKS = {'audio': supervised.audio_network, 'visual': supervised.visual_network}


def initial_params(x: Experiment, modality: str) -> Any:
  """The network's parameters before training, the same in every fold."""
  _, model = NETWORKS[modality](x.config[modality], classes=len(x.classes))
  size = x.config[modality].size
  shape = (1, size, size, 3) if modality == 'audio' else (1, 16, size, size, 3)
  return model.init(rngs.stream(x.nets_seed, modality, 'init'), jnp.zeros(shape))['params']


def row_like(x: Experiment, modality: str) -> Any:
  """The shape of one row of a network's input, as the store gives it."""
  if modality == 'audio':
    return jax.ShapeDtypeStruct((1, 64, x.config.frontend.segments.length), np.float32)
  frames = 17 if x.config.visual.scaling == 'clip' else 16
  return jax.ShapeDtypeStruct((1, frames, *x.config.frontend.faces.size, 3), np.uint8)


def statistics_like(x: Experiment, modality: str) -> Any:
  """The shapes of the statistics that a network's images are standardised by."""
  network, _ = NETWORKS[modality](x.config[modality], classes=len(x.classes))
  size = jax.eval_shape(network.images, row_like(x, modality)).shape[2:]
  return {name: jax.ShapeDtypeStruct(size, np.float32) for name in ('mean', 'deviation')}


def check(x: Experiment, modality: str) -> None:
  """Traces the network on a row as the store gives it, with keys as in training: a wrong word or size is found here.

  Raises:
    ValueError: a config value that the network refuses.
  """
  network, _ = NETWORKS[modality](x.config[modality], classes=len(x.classes))
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
  params = jax.eval_shape(lambda: initial_params(x, modality))
  variables = {'params': params, 'statistics': statistics_like(x, modality)}
  jax.eval_shape(network.forward, variables, row_like(x, modality), keys)


def reader(x: Experiment, modality: str, table: Segments) -> supervised.Read:
  """rows of `table` -> the network's input, from the store."""
  read = x.store.audio if modality == 'audio' else x.store.faces
  if modality == 'visual' and x.config.visual.scaling == 'clip':
    read = lambda wanted: np.concatenate([x.store.mean_faces(wanted), x.store.faces(wanted)], axis=1)
  return lambda rows: read(table.take(rows))


def train_networks(x: Experiment, modality: str) -> None:
  """Trains one network a fold on the training segments that have its modality."""
  config, name = x.config[modality], f'{modality}_net'
  needed = ('audio',) if modality == 'audio' else ('audio', 'faces')  # the sound says where the windows are
  network, _ = NETWORKS[modality](config, classes=len(x.classes))
  rows = [x.rows(fold, (modality,), 'train') for fold in x.folds]
  held = [x.rows(fold, (modality,), 'held') for fold in x.folds]
  choosing = config.select == 'held'
  steps = [config.epochs * batches.steps_per_epoch(len(of_fold), config.batch) for of_fold in rows]

  def work(folder: pathlib.Path, number: int, tick: Callable[[int], Any]) -> None:
    table = x.segments.take(rows[number])
    read = reader(x, modality, table)
    statistics = supervised.image_statistics(network, read, len(table), batch=config.batch)
    variables = supervised.train(
      network,
      {'params': jax.jit(lambda: initial_params(x, modality))(), 'statistics': statistics},
      read,
      x.labels(rows[number]),
      held=(reader(x, modality, x.segments.take(held[number])), x.labels(held[number])) if choosing else None,
      batch=config.batch,
      epochs=config.epochs,
      optim_config=config.optim,
      seed=x.nets_seed,
      names=(modality,),
      name=f'{name}/fold_{number}',
      folder=folder / 'scratch' / 'checkpoints',
      watch=x.watch(tick),
    )
    checkpoint.save(folder / 'network', variables)

  contents = lambda of_fold: x.contents(np.unique(x.segments.clip[of_fold]), needed)
  keys = [
    {
      'version': VERSION[name],
      'config': config.to_dict(),
      'seed': x.nets_seed,
      'segments': x.config.frontend.segments.to_dict(),
      'classes': x.classes,
      'clips': contents(rows[number]),
      **({'held': contents(held[number])} if choosing else {}),
    }
    for number in range(len(x.folds))
  ]
  x.make_folds(name, keys, work, steps, 'step')


def extract_features(x: Experiment) -> None:
  """fc7 and logits of both networks for every segment of a fold's clips: train, held and test."""
  sides = ('train', 'held', 'test')
  networks = {m: NETWORKS[m](x.config[m], classes=len(x.classes))[0] for m in NETWORKS}
  rows = [{m: x.rows(fold, (m,), *sides) for m in NETWORKS} for fold in x.folds]

  def work(folder: pathlib.Path, number: int, tick: Callable[[int], Any]) -> None:
    for modality, network in networks.items():
      wanted = rows[number][modality]
      like = {'params': jax.eval_shape(lambda: initial_params(x, modality))}  # noqa: B023
      like['statistics'] = statistics_like(x, modality)
      variables = checkpoint.load(x.made[f'{modality}_net'][number] / 'network', like)
      read = reader(x, modality, x.segments.take(wanted))
      logits, features = supervised.predict(network, variables, read, len(wanted), batch=x.config[modality].batch)
      for what, array in (('rows', wanted), ('logits', logits), ('features', features)):
        np.save(folder / f'{modality}_{what}.npy', array)
      tick(len(wanted))
    np.savez(folder / 'segments.npz', **cast(Any, dataclasses.asdict(x.segments)))

  keys = [
    {
      'version': VERSION['features'],
      'networks': [x.made[f'{m}_net'][number].name for m in NETWORKS],
      # Rows and clips are stored by their places in the lists of all, so all of them is what they depend on.
      'segments': x.segments.digest(),
      'clips': x.contents(range(len(x.clips)), ('audio', 'faces')),
      'sides': x.sides(fold).tolist(),
    }
    for number, fold in enumerate(x.folds)
  ]
  x.make_folds('features', keys, work, [sum(map(len, of_fold.values())) for of_fold in rows], 'segment')


def load_features(x: Experiment, number: int, rows: np.ndarray, modality: str) -> np.ndarray:
  """fc7 [n, F] of the given segments in a fold."""
  folder = x.made['features'][number]
  stored = np.load(folder / f'{modality}_rows.npy')
  place = np.searchsorted(stored, rows)
  assert np.array_equal(stored[place], rows), f'{folder} holds the features of other segments'
  return np.load(folder / f'{modality}_features.npy', mmap_mode='r')[place]

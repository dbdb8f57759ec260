"""Steps 2 to 4: the audio net and the visual net of every fold, then the features that both give (method.md A3)."""

import dataclasses
import functools
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NoReturn, cast

import jax
import numpy as np

from emo_jax import processes, provenance
from emo_jax.context import Experiment
from emo_jax.models import pretrained
from emo_jax.steps import frozen, start
from emo_jax.training import batches, checkpoint, finiteness, supervised

VERSION = {'audio_net': 2, 'visual_net': 2, 'features': 3}  # raised when the code changes a result
MODALITIES = ('audio', 'visual')


def check(x: Experiment, modality: str) -> None:
  """Traces the network on a row as the store gives it, with keys as in training: a wrong word or size is found here.

  Raises:
    ValueError: a config value that the network refuses, or weights that do not fit it.
    ModuleNotFoundError: weights of a package that is not installed.
  """
  weights, like = start.published(x, modality), start.variables_like(x, modality)
  if weights:
    pretrained.start(like['params'], weights)
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
  jax.eval_shape(start.modality_of(x, modality).whole.forward, like, start.row_like(x, modality), keys)


def train_networks(x: Experiment, modality: str) -> None:
  """Trains one network a fold on the training segments that have its modality, from random or published weights."""
  config, name = x.config[modality], f'{modality}_net'
  rows = [x.rows(fold, (modality,), 'train') for fold in x.folds]
  held = [x.rows(fold, (modality,), 'held') for fold in x.folds]
  choosing = config.select == 'held'
  steps = [config.epochs * batches.steps_per_epoch(len(of_fold), config.batch) for of_fold in rows]
  keys = _network_keys(x, modality, rows, held)
  if x.planned(name, keys):
    return
  initial = functools.cache(lambda: start.initial_params(x, modality))  # compiled for nothing where all is made
  report = None if config.init == 'random' else initial()[1]
  if report and processes.lead():
    print(f'{name}: {report}', file=sys.stderr)
    provenance.note(x.workdir, event='weights', modality=modality, **report.to_dict())

  def work(folder: pathlib.Path, number: int, tick: Callable[[int, float], Any]) -> None:
    params = initial()[0]
    variables = {'params': params, 'statistics': _statistics(x, modality, rows[number], f'{name}/fold_{number}')}
    part, learning, of_rows = learner(x, modality, variables)
    learnt = supervised.train(
      part,
      learning,
      of_rows(rows[number]),
      x.labels(rows[number]),
      held=(of_rows(held[number]), x.labels(held[number])) if choosing else None,
      batch=config.batch,
      epochs=config.epochs,
      optim_config=config.optim,
      seed=x.nets_seed,
      names=(modality,),
      name=f'{name}/fold_{number}',
      folder=folder / 'scratch' / 'checkpoints',
      watch=x.watch(folder, tick, rows[number]),
    )
    checkpoint.save(folder / 'network', {**variables, 'params': {**params, **learnt['params']}})
    if report and processes.lead():
      (folder / 'pretrained.json').write_text(json.dumps(report.to_dict(), indent=1) + '\n')

  x.make_folds(name, keys, work, steps, 'step')


def _statistics(x: Experiment, modality: str, rows: np.ndarray, name: str) -> dict[str, np.ndarray]:
  """What the images of a training are standardised by. One sound that is no number would make all of them none."""
  read = start.reader(x, modality, x.segments.take(rows))
  statistics = start.statistics(x, modality, read, len(rows))
  if not all(np.isfinite(array).all() for array in statistics.values()):
    broken = rows[finiteness.not_finite(read, len(rows))]
    _refuse(x, name, 'mean or deviation of its input', broken, start.reader(x, modality, x.segments.take(broken)))
  return statistics


def _refuse(x: Experiment, name: str, what: str, rows: np.ndarray, read: supervised.Read) -> NoReturn:
  """Ends a stage for segments that come to numbers that are not finite; `read` gives the input of each."""
  broken = finiteness.not_finite(read, len(rows))
  items = [{**item, 'input_finite': place not in broken} for place, item in enumerate(x.items(rows))]
  finiteness.stop(name, what, np.nan, items, x.workdir)


def _network_keys(x: Experiment, modality: str, rows: list[np.ndarray], held: list[np.ndarray]) -> list[Any]:
  """What a network of each fold depends on; `rows` and `held` are its segments to learn from and to choose on."""
  config, weights = x.config[modality], start.published(x, modality)
  needed = ('audio',) if modality == 'audio' else ('audio', 'faces')  # the sound says where the windows are
  contents = lambda of_fold: x.contents(np.unique(x.segments.clip[of_fold]), needed)
  return [
    {
      'version': VERSION[f'{modality}_net'],
      'config': {**config.to_dict(), 'init': weights.sha256 if weights else 'random'},
      'seed': x.nets_seed,
      'segments': x.config.frontend.segments.to_dict(),
      'classes': x.classes,
      'clips': contents(rows[number]),
      **({'held': contents(held[number])} if config.select == 'held' else {}),
    }
    for number in range(len(x.folds))
  ]


def learner(
  x: Experiment, modality: str, variables: Any
) -> tuple[supervised.Network, Any, Callable[[np.ndarray], supervised.Read]]:
  """The part of a network that is trained, its variables, and how to read its input for some segments.

  With config.<modality>.trained='all' that is the whole network and the store.
  """
  network = start.modality_of(x, modality)
  if x.config[modality].trained == 'all':
    return network.whole, variables, lambda rows: start.reader(x, modality, x.segments.take(rows))
  folder = frozen.run(x, modality, variables)
  params = frozen.trained(x, modality, variables['params'])
  return network.rest, {'params': params, 'statistics': {}}, lambda rows: frozen.reader(folder, rows)


def extract_features(x: Experiment) -> None:
  """fc7 (or what stands in its place) and logits of both networks for every segment of a fold: train, held and test."""
  sides = ('train', 'held', 'test')
  rows = [{m: x.rows(fold, (m,), *sides) for m in MODALITIES} for fold in x.folds]

  def work(folder: pathlib.Path, number: int, tick: Callable[[int, float], Any]) -> None:
    seen = lambda count: tick(count, count)
    for modality, wanted in rows[number].items():
      network = x.made[f'{modality}_net'][number] / 'network'
      part, variables, of_rows = learner(x, modality, checkpoint.load(network, start.variables_like(x, modality)))
      batch = x.config[modality].batch
      logits, features = supervised.predict(part, variables, of_rows(wanted), len(wanted), batch=batch, tick=seen)
      good = finiteness.finite_rows(logits) & finiteness.finite_rows(features)
      if not good.all():
        _refuse(x, f'features/fold_{number}', f'those of the {modality} net', wanted[~good], of_rows(wanted[~good]))
      if processes.lead():
        for what, array in (('rows', wanted), ('logits', logits), ('features', features)):
          np.save(folder / f'{modality}_{what}.npy', array)
    if processes.lead():
      np.savez(folder / 'segments.npz', **cast(Any, dataclasses.asdict(x.segments)))

  keys = [
    {
      'version': VERSION['features'],
      'networks': [x.made[f'{m}_net'][number].name for m in MODALITIES],
      # Rows and clips are stored by their places in the lists of all, so all of them is what they depend on.
      'segments': x.segments.digest(),
      'clips': x.contents(range(len(x.clips)), ('audio', 'faces')),
      'sides': x.sides(fold).tolist(),
    }
    for number, fold in enumerate(x.folds)
  ]
  x.make_folds('features', keys, work, [sum(map(len, of_fold.values())) for of_fold in rows], 'segment')


def load_features(x: Experiment, number: int, rows: np.ndarray, modality: str, what: str = 'features') -> np.ndarray:
  """fc7 [n, F] of the given segments in a fold, or their 'logits' [n, C]."""
  folder = x.made['features'][number]
  stored = np.load(folder / f'{modality}_rows.npy')
  place = np.searchsorted(stored, rows)
  assert np.array_equal(stored[place], rows), f'{folder} holds the features of other segments'
  return np.load(folder / f'{modality}_{what}.npy', mmap_mode='r')[place]

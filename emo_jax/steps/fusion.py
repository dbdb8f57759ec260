"""Step 5, fusion: the DBN of every fold (method.md A4)."""

import pathlib
from collections.abc import Callable
from typing import Any, cast

import jax
import numpy as np

from emo_jax.context import Experiment
from emo_jax.models import dbn
from emo_jax.steps.networks import load_features
from emo_jax.training import batches, checkpoint, contrastive, supervised

VERSION = 2  # raised when this code changes its result


def fuse(x: Experiment) -> None:
  """The DBN of every fold: fitted to the training segments that have both halves, then applied to all that do."""
  config = x.config.fusion
  tune = config.finetune
  both = ('audio', 'visual')
  train_rows = [x.rows(fold, both, 'train') for fold in x.folds]
  steps = []
  for rows in train_rows:
    of_rbm = config.rbm.epochs * batches.steps_per_epoch(len(rows), config.rbm.batch)
    of_tuning = tune.epochs * batches.steps_per_epoch(len(rows), tune.batch) if tune.kind == 'softmax' else 0
    steps.append(len(config.units) * of_rbm + of_tuning)
  forward = lambda variables, data, keys: dbn.classify(variables['params'], data, keys, dropout_rate=tune.dropout)
  network = supervised.build(forward, lambda data: data, tune.optim)

  def work(folder: pathlib.Path, number: int, tick: Callable[[int], Any]) -> None:
    rows = x.rows(x.folds[number], both, 'train', 'held', 'test')
    training = np.isin(rows, train_rows[number])
    parts = {}
    for modality in both:
      features = load_features(x, number, rows, modality)
      statistics = dbn.scaler(features[training])
      np.savez(folder / f'{modality}_scaler.npz', **cast(Any, statistics))
      parts[modality] = dbn.scale(statistics, features)
    visible = np.concatenate(list(parts.values()), axis=1)
    data, watch = visible[training], x.watch(tick)
    stack = contrastive.train_stack(
      data,
      units=tuple(config.units),
      config=config.rbm,
      seed=x.config.seed,
      name=f'fusion/fold_{number}',
      folder=folder,
      watch=watch,
    )
    params = {'stack': stack, 'head': dbn.init_head(stack, classes=len(x.classes))}
    if tune.kind == 'softmax':
      variables = supervised.train(
        network,
        {'params': params, 'statistics': {}},
        data.__getitem__,
        x.labels(rows[training]),
        batch=tune.batch,
        epochs=tune.epochs,
        optim_config=tune.optim,
        seed=x.config.seed,
        names=('fusion', 'finetune'),
        name=f'fusion/fold_{number}/finetune',
        folder=folder / 'scratch' / 'finetune',
        watch=watch,
      )
      params = variables['params']
    checkpoint.save(folder / 'dbn', params)
    np.save(folder / 'rows.npy', rows)
    np.save(folder / 'joint.npy', np.asarray(jax.jit(dbn.joint_feature)(params['stack'], visible)))

  keys = [
    {
      'version': VERSION,
      'config': config.to_dict(),
      'seed': x.config.seed,
      'features': x.made['features'][number].name,
    }
    for number in range(len(x.folds))
  ]
  x.make_folds('fusion', keys, work, steps, 'step')

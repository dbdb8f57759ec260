"""Step 5, fusion: the DBN of every fold (method.md A4)."""

import pathlib
from collections.abc import Callable
from typing import Any, cast

import jax
import numpy as np

from emo_jax.context import Experiment
from emo_jax.models import dbn, rbm
from emo_jax.steps.networks import load_features
from emo_jax.training import autoencoder, batches, checkpoint, contrastive, supervised

VERSION = 4  # raised when this code changes its result
BOTH = ('audio', 'visual')


def check(config: Any) -> None:
  """Refuses words of config.fusion that its parts would stumble over hours later.

  Raises:
    ValueError: a field and what it may be.
  """
  kinds = dbn.stack_units(len(config.units), visible=config.visible, top=config.top)
  for units in kinds:
    contrastive.build_layer(1, units, config.rbm)
  dbn.fit_scaler([np.zeros((1, 1))], kind=config.scaling)
  if config.rbm.learn_variance and config.visible != 'gaussian':  # the means of linear units lack it: it would drift
    raise ValueError(f'config.fusion.rbm.learn_variance needs gaussian visible units, not {config.visible}')
  tune = config.finetune
  if tune.select == 'held' and tune.kind != 'softmax':
    raise ValueError(f'config.fusion.finetune.select=held needs kind=softmax, not {tune.kind}: it is judged by labels')
  if (config.scaling == 'standard') != (config.visible in rbm.REAL):
    raise ValueError(
      f'config.fusion.scaling={config.scaling!r} with config.fusion.visible={config.visible!r}: gaussian and linear '
      'visible units need standard scaling, and bernoulli and probability units values in [0, 1]'
    )


def train_steps(config: Any, rows: int) -> int:
  """Updates in the fusion of a fold with so many training rows, for the progress bar."""
  steps = lambda part: part.epochs * batches.steps_per_epoch(rows, part.batch)
  of_tuning = {'softmax': steps(config.finetune), 'autoencoder': config.finetune.epochs, 'none': 0}
  return len(config.units) * steps(config.rbm) + of_tuning[config.finetune.kind]


def fuse(x: Experiment) -> None:
  """The DBN of every fold: fitted to the training segments that have both halves, then applied to all that do."""
  config = x.config.fusion
  tune = config.finetune
  kinds = dbn.stack_units(len(config.units), visible=config.visible, top=config.top)
  layers = [contrastive.build_layer(*of, config.rbm) for of in zip(config.units, kinds, strict=True)]
  classify = lambda variables, data, keys: dbn.classify(
    variables['params'], data, keys, kinds, dropout_rate=tune.dropout
  )
  up = jax.jit(lambda stack, visible: dbn.joint_feature(stack, visible, kinds))
  network = supervised.build(classify, lambda data: data, tune.optim)

  def work(folder: pathlib.Path, number: int, tick: Callable[[int], Any]) -> None:
    fold, watch, name = x.folds[number], x.watch(tick), f'fusion/fold_{number}'
    rows = x.rows(fold, BOTH, 'train', 'held', 'test')
    training, held = (np.isin(rows, x.rows(fold, BOTH, side)) for side in ('train', 'held'))
    features = [load_features(x, number, rows, modality) for modality in BOTH]
    scaler = dbn.fit_scaler([part[training] for part in features], kind=config.scaling)
    np.savez(folder / 'scaler.npz', **cast(Any, scaler))
    visible = dbn.scale(scaler, features)
    data, seed = visible[training], x.config.seed
    stack = contrastive.train_stack(
      data, visible[held], layers, config=config.rbm, seed=seed, name=name, folder=folder, watch=watch
    )
    fit: dict[str, Any] = {'name': f'{name}/finetune', 'folder': folder / 'scratch' / 'finetune', 'watch': watch}
    params = {'stack': stack, 'head': dbn.init_head(stack, classes=len(x.classes))}
    if tune.kind == 'autoencoder':
      params['stack'] = autoencoder.train(stack, kinds, data, iterations=tune.epochs, **fit)
    elif tune.kind == 'softmax':
      variables = supervised.train(
        network,
        {'params': params, 'statistics': {}},
        data.__getitem__,
        x.labels(rows[training]),
        held=(visible[held].__getitem__, x.labels(rows[held])) if tune.select == 'held' else None,
        batch=tune.batch,
        epochs=tune.epochs,
        optim_config=tune.optim,
        seed=seed,
        names=('fusion', 'finetune'),
        **fit,
      )
      params = variables['params']
    checkpoint.save(folder / 'dbn', params)
    np.save(folder / 'rows.npy', rows)
    np.save(folder / 'joint.npy', np.asarray(up(params['stack'], visible)))

  keys = [
    {
      'version': VERSION,
      'config': config.to_dict(),
      'seed': x.config.seed,
      'features': x.made['features'][number].name,
    }
    for number in range(len(x.folds))
  ]
  steps = [train_steps(config, len(x.rows(fold, BOTH, 'train'))) for fold in x.folds]
  x.make_folds('fusion', keys, work, steps, 'step')

"""Step 5, fusion: the DBN of every fold, or the network that config.fusion.kind puts in its place (method.md A4)."""

import contextlib
import functools
import pathlib
from collections.abc import Callable
from typing import Any, cast

import jax
import numpy as np

from emo_jax import processes, stages
from emo_jax.context import Experiment
from emo_jax.models import dbn, rbm
from emo_jax.steps import heads
from emo_jax.steps.networks import load_features
from emo_jax.training import autoencoder, batches, checkpoint, contrastive, loop, side_by_side, supervised

VERSION = 5  # raised when the DBN's code changes its result
BOTH = ('audio', 'visual')
KINDS = ('dbn', *heads.READS)
OF_DBN = ('kind', 'units', 'scaling', 'visible', 'top', 'rbm', 'finetune')  # what it reads of config.fusion


def check(config: Any) -> None:
  """Refuses words of config.fusion that its parts would stumble over hours later.

  Raises:
    ValueError: a field, its value and what it may be.
  """
  if config.kind not in KINDS:
    raise ValueError(f'config.fusion.kind={config.kind!r}: use {" or ".join(KINDS)}')
  dbn.fit_scaler([np.zeros((1, 1))], kind=config.scaling)
  (_check_dbn if config.kind == 'dbn' else heads.check)(config)


def _check_dbn(config: Any) -> None:
  kinds = dbn.stack_units(len(config.units), visible=config.visible, top=config.top)
  for units in kinds:
    contrastive.build_layer(1, units, config.rbm)
  if config.rbm.learn_variance and config.visible != 'gaussian':  # the means of linear units lack it: it would drift
    raise ValueError(f'config.fusion.rbm.learn_variance needs gaussian visible units, not {config.visible}')
  tune = config.finetune
  if tune.select == 'held' and tune.kind != 'softmax':
    raise ValueError(f'config.fusion.finetune.select=held needs kind=softmax, not {tune.kind}: it is judged by labels')
  if tune.drop_half and tune.kind != 'softmax':
    raise ValueError(
      f'config.fusion.finetune.drop_half={tune.drop_half!r} needs kind=softmax, not {tune.kind}: only labels say what '
      'half a segment means'
    )
  if (config.scaling == 'standard') != (config.visible in rbm.REAL):
    raise ValueError(
      f'config.fusion.scaling={config.scaling!r} with config.fusion.visible={config.visible!r}: gaussian and linear '
      'visible units need standard scaling, and bernoulli and probability units values in [0, 1]'
    )


def train_steps(config: Any, rows: int, clips: int) -> int:
  """Updates in the fusion of a fold with so many training segments, of so many clips, for the progress bar."""
  steps = lambda part, items: part.epochs * batches.steps_per_epoch(items, part.batch)
  if config.kind != 'dbn':
    return steps(config.head, rows if config.kind == 'fc' else clips)
  of_tuning = {'softmax': steps(config.finetune, rows), 'autoencoder': config.finetune.epochs, 'none': 0}
  return len(config.units) * steps(config.rbm, rows) + of_tuning[config.finetune.kind]


def fuse(x: Experiment) -> None:
  """The fusion of every fold: fitted to the training clips or segments that have both halves, applied to all such."""
  config, is_dbn = x.config.fusion, x.config.fusion.kind == 'dbn'
  learn = belief_learner(x) if is_dbn else heads.learner(x)

  def work(folder: pathlib.Path, number: int, tick: Callable[[int, float], Any]) -> None:
    watch = x.watch(folder, tick, rows[number], by_clip=not is_dbn and config.kind != 'fc')
    learn(folder, number, joined(x, number, folder), watch)

  keys = [
    {
      'version': VERSION if is_dbn else heads.VERSION,
      'config': {field: config.to_dict()[field] for field in OF_DBN} if is_dbn else heads.settings(config),
      'seed': x.config.seed,
      'features': x.made['features'][number].name,
    }
    for number in range(len(x.folds))
  ]
  rows = [x.rows(fold, BOTH, 'train') for fold in x.folds]
  steps = [train_steps(config, len(of_fold), len(np.unique(x.segments.clip[of_fold]))) for of_fold in rows]
  if is_dbn and not x.planning:
    _stacks_side_by_side(x, [stages.folder_of(x.cache, 'fusion', key) for key in keys])
  x.make_folds('fusion', keys, work, steps, 'step')


def joined(x: Experiment, number: int, folder: pathlib.Path) -> heads.Joined:
  """A fold's features of both halves, scaled by its training segments; the scaler is saved as scaler.npz."""
  fold = x.folds[number]
  rows = x.rows(fold, BOTH, 'train', 'held', 'test')
  training = np.isin(rows, x.rows(fold, BOTH, 'train'))
  features = [load_features(x, number, rows, modality) for modality in BOTH]
  scaler = dbn.fit_scaler([part[training] for part in features], kind=x.config.fusion.scaling)
  if processes.lead():
    np.savez(folder / 'scaler.npz', **cast(Any, scaler))
  return heads.Joined(rows, dbn.scale(scaler, features), sound=features[0].shape[1])


def _stack(config: Any, nonfinite: str) -> tuple[dbn.Kinds, list[contrastive.Layer]]:
  """The units of each RBM of config.fusion, and how each is trained."""
  kinds = dbn.stack_units(len(config.units), visible=config.visible, top=config.top)
  build = functools.partial(contrastive.build_layer, config=config.rbm, nonfinite=nonfinite)
  return kinds, [build(*of) for of in zip(config.units, kinds, strict=True)]


def _stacks_side_by_side(x: Experiment, folders: list[pathlib.Path]) -> None:
  """Puts finished RBMs, of several folds at a time, where `belief_learner` looks for them (config.parallel.folds)."""
  config, (team, own) = x.config.fusion, x.own_folds()
  size = x.config.parallel.folds // len(processes.teams(x.config.parallel.folds))
  if size == 1:
    return
  _, layers = _stack(config, x.config.nonfinite)
  partial = [folder.with_suffix('.partial') for folder in folders]
  done = lambda number: folders[number].exists() or (partial[number] / f'rbm{len(layers) - 1}').exists()
  for first in range(0, len(own), size):
    with contextlib.ExitStack() as locks:
      locks.enter_context(processes.working(team))
      folds = {}
      for number in own[first:][:size]:
        folders[number].parent.mkdir(parents=True, exist_ok=True)
        locks.enter_context(stages.only_writer(folders[number].with_suffix('.lock')))
        if not done(number):
          partial[number].mkdir(exist_ok=True)
          rows, visible, _ = joined(x, number, partial[number])
          learnt, held_rows = (x.rows(x.folds[number], BOTH, side) for side in ('train', 'held'))
          data, held = (visible[np.isin(rows, of_side)] for of_side in (learnt, held_rows))
          watch = x.watch(partial[number], lambda *done: None, learnt)  # the bar moves when the RBMs are found
          folds[number] = side_by_side.Fold(data, held, x.config.seed, f'fusion/fold_{number}', watch)
      stacks = side_by_side.train_stacks(list(folds.values()), layers, config=config.rbm) if folds else []
      for number, stack in zip(folds, stacks, strict=True):
        for layer, params in enumerate(stack):
          checkpoint.save(partial[number] / f'rbm{layer}', params)


def _classifier(tune: Any, kinds: dbn.Kinds, nonfinite: str) -> Callable[[int, int], supervised.Network]:
  """(visible units, how many of them are the sound's) -> what config.fusion.finetune trains, compiled once."""

  @functools.cache
  def built(width: int, sound: int) -> supervised.Network:
    of_sound = np.arange(width) < sound

    def classify(variables: Any, data: jax.Array, keys: jax.Array | None) -> tuple[jax.Array, jax.Array]:
      if keys is not None and tune.drop_half:
        data = dbn.drop_half(data, keys, of_sound, share=tune.drop_half, draw=len(kinds))  # dropout has those below
      return dbn.classify(variables['params'], data, keys, kinds, dropout_rate=tune.dropout)

    return supervised.build(classify, lambda data: data, tune.optim, nonfinite=nonfinite)

  return built


def belief_learner(x: Experiment) -> heads.Learn:
  """How the DBN of a fold learns, as heads.Learn has it; compiled once for all folds."""
  config = x.config.fusion
  tune = config.finetune
  kinds, layers = _stack(config, nonfinite := x.config.nonfinite)
  up = jax.jit(lambda stack, visible: dbn.joint_feature(stack, visible, kinds))
  network = _classifier(tune, kinds, nonfinite)

  def learn(folder: pathlib.Path, number: int, halves: heads.Joined, watch: loop.Watch) -> None:
    fold, name, seed = x.folds[number], f'fusion/fold_{number}', x.config.seed
    rows, visible, sound = halves
    training, held = (np.isin(rows, x.rows(fold, BOTH, side)) for side in ('train', 'held'))
    data = visible[training]
    stack = contrastive.train_stack(
      data, visible[held], layers, config=config.rbm, seed=seed, name=name, folder=folder, watch=watch
    )
    fit: dict[str, Any] = {'name': f'{name}/finetune', 'folder': folder / 'scratch' / 'finetune', 'watch': watch}
    params = {'stack': stack, 'head': dbn.init_head(stack, classes=len(x.classes))}
    if tune.kind == 'autoencoder':
      params['stack'] = autoencoder.train(stack, kinds, data, iterations=tune.epochs, nonfinite=nonfinite, **fit)
    elif tune.kind == 'softmax':
      variables = supervised.train(
        network(visible.shape[1], sound),
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
    if processes.lead():
      np.save(folder / 'rows.npy', rows)
      np.save(folder / 'joint.npy', np.asarray(up(params['stack'], visible)))

  return learn

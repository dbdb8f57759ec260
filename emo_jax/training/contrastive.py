"""Learning without labels: contrastive divergence for one RBM, greedily for a stack (pipeline step: fusion).

Method.md A4: momentum by epoch, weight decay, parameters averaged over the last epochs, shuffled batches.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emo_jax.models import rbm
from emo_jax.training import batches, checkpoint, loop, parallel, rngs

Tree = Any


@functools.cache
def cd_step(
  *, lr: float, momentum: tuple[float, ...], weight_decay: float, cd_steps: int, sample_visible: bool
) -> Callable[..., tuple[Tree, Tree]]:
  """One update of an RBM by CD-k, mapped over the devices: (state, batch, key) -> (state, sums).

  Args:
    lr: learning rate.
    momentum: of each epoch; the last one holds from then on.
    weight_decay: L2, on the weights.
    cd_steps: k.
    sample_visible: see rbm.negative_phase.
  """

  def step(state: Tree, batch: Tree, key: jax.Array) -> tuple[Tree, Tree]:
    params, mask = state['params'], batch['mask']
    keys = rngs.row_keys(key, state['step'], batch['row'])
    negative = rbm.negative_phase(params, batch['input'], keys, steps=cd_steps, sample_visible=sample_visible)
    gradient = rbm.contrastive_gradient(params, batch['input'], negative, mask)
    error = jnp.mean(jnp.square(batch['input'] - negative), -1)
    sums = {'count': jnp.sum(mask), 'reconstruction_error': jnp.sum(error * mask)}
    gradient, sums = parallel.total((gradient, sums))
    gradient = jax.tree.map(lambda g: g / sums['count'], gradient)
    gradient['weights'] += weight_decay * params['weights']

    epoch = state['step'] // state['epoch_steps']
    kept = jnp.asarray(momentum)[jnp.minimum(epoch, len(momentum) - 1)]
    velocity = jax.tree.map(lambda v, g: kept * v - lr * g, state['velocity'], gradient)
    params = jax.tree.map(jnp.add, params, velocity)
    turn = jnp.maximum(state['step'] - state['average_from'], 0)  # the average starts anew until its epochs begin
    average = jax.tree.map(lambda a, p: a + (p - a) / (turn + 1), state['average'], params)
    return {
      **state,
      'params': params,
      'velocity': velocity,
      'average': average,
      'step': state['step'] + 1,
    }, sums

  return parallel.train_step(step)


def train_rbm(
  data: np.ndarray, *, hidden: int, config: Any, seed: int, names: tuple[str | int, ...], **fit: Any
) -> rbm.Params:
  """Trains one RBM on rows [N, V] of values in [0, 1] and returns its averaged parameters as numpy arrays.

  Args:
    data: float32 [N, V].
    hidden: H.
    config: config.fusion.rbm.
    seed: of the random streams, with `names`.
    fit: name, folder and watch, as loop.fit has them.
  """
  size = parallel.rows_a_step(config.batch)
  rows_at = batches.shuffled_rows(len(data), config.batch, padded_to=size, seed=seed, names=names)
  per_epoch = batches.steps_per_epoch(len(data), config.batch)
  steps = config.epochs * per_epoch

  def batch_at(step: int) -> dict[str, np.ndarray]:
    rows, mask = rows_at(step)
    return {'input': data[rows], 'mask': mask, 'row': rows}

  params = rbm.init(rngs.stream(seed, *names, 'init'), data.shape[1], hidden, scale=config.init_scale)
  whole = lambda number: np.asarray(number, np.int32)
  state = {
    'params': params,
    'velocity': jax.tree.map(jnp.zeros_like, params),
    'average': jax.tree.map(jnp.array, params),
    'step': whole(0),
    'epoch_steps': whole(per_epoch),
    'average_from': whole(max(config.epochs - config.average_epochs, 0) * per_epoch),
  }
  step = cd_step(
    lr=config.lr,
    momentum=tuple(config.momentum),
    weight_decay=config.weight_decay,
    cd_steps=config.cd_steps,
    sample_visible=config.sample_visible,
  )
  state = loop.fit(step, state, batch_at, rngs.stream(seed, *names, 'draws'), steps=steps, **fit)
  return state['average']


def train_stack(
  data: np.ndarray,
  *,
  units: tuple[int, ...],
  config: Any,
  seed: int,
  name: str,
  folder: pathlib.Path,
  watch: loop.Watch,
) -> list[rbm.Params]:
  """Stacks RBMs greedily: each learns from the hidden probabilities of the one below (Hinton 2006; method.md A4).

  Args:
    data: float32 [N, V] in [0, 1].
    units: hidden units of each layer, the lowest first; any depth.
    config: config.fusion.rbm.
    seed: of the random streams, the same for every fold.
    name: of the fold's fusion, for metrics.
    folder: where finished layers lie, and their checkpoints in its subfolder 'scratch'; a layer that is done is not
      trained again.
  """
  stack: list[rbm.Params] = []
  for layer, hidden in enumerate(units):
    done = folder / f'rbm{layer}'
    if done.exists():
      shape = (data.shape[1], hidden)
      like = jax.eval_shape(lambda: rbm.init(jax.random.key(0), *shape, scale=1.0))  # noqa: B023
      params = checkpoint.load(done, like)
      watch.tick(config.epochs * batches.steps_per_epoch(len(data), config.batch))
    else:
      params = train_rbm(
        data,
        hidden=hidden,
        config=config,
        seed=seed,
        names=('fusion', 'rbm', layer),
        name=f'{name}/rbm{layer}',
        folder=folder / 'scratch' / f'rbm{layer}',
        watch=watch,
      )
      checkpoint.save(done, params)
    stack.append(params)
    data = np.asarray(rbm.hidden_probability(params, jnp.asarray(data)))
  return stack

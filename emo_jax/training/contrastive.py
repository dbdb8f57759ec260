"""Learning without labels: contrastive divergence for one RBM, greedily for a stack (pipeline step: fusion).

Method.md A4: the toolbox's rates, momentum by epoch, weight decay, parameters averaged over the last epochs. Persistent
chains (Tieleman 2008), a sparsity target and annealed importance sampling on request.
"""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from emo_jax.models import rbm
from emo_jax.training import batches, checkpoint, finiteness, loop, parallel, rngs

Tree = Any
MONITORED = 512  # rows that the monitors look at

_hidden_mean = jax.jit(rbm.hidden_mean, static_argnames='units')
_free_energy = jax.jit(rbm.free_energy, static_argnames='units')
_log_partition = jax.jit(rbm.log_partition, static_argnames=('units', 'chains', 'temperatures'))


class Layer(NamedTuple):
  """One RBM to train, and its compiled steps, built once for all folds.

  Attributes:
    hidden: H.
    units: kinds of its units.
    step: mapped over the devices, (state, batch, key) -> (state, sums).
    folds_step: the same of several folds at once, all with a leading axis.
  """

  hidden: int
  units: rbm.Units
  step: Callable[..., tuple[Tree, Tree]]
  folds_step: Callable[..., tuple[Tree, Tree]]


class Course(NamedTuple):
  """What the training of one RBM takes besides its step.

  Attributes:
    state, batch_at, key, steps, epoch_steps, after_epoch: as loop.fit has them.
    finish: to be called with the averaged parameters: writes their likelihood, where that is wanted.
  """

  state: Tree
  batch_at: Callable[[int], dict[str, np.ndarray]]
  key: jax.Array
  steps: int
  epoch_steps: int
  after_epoch: Callable[[int, Tree], Tree]
  finish: Callable[[rbm.Params], None]


def build_layer(hidden: int, units: rbm.Units, config: Any, *, nonfinite: str = 'stop') -> Layer:
  """Compiles the updates of an RBM of `hidden` units.

  Args:
    hidden: H.
    units: kinds of its units.
    config: config.fusion.rbm.
    nonfinite: 'skip' leaves out updates that are not finite (config.nonfinite).

  Raises:
    ValueError: a sparsity target for hidden units that are no probabilities; chains in which nothing is sampled.
  """
  if config.persistent and not set(units) & {'bernoulli', 'gaussian'}:
    raise ValueError(
      f'config.fusion.rbm.persistent with {units.visible} visible and {units.hidden} hidden units: nothing is sampled, '
      'so all chains would be one; use bernoulli or gaussian units, or persistent=False'
    )
  if config.sparsity.cost and units.hidden not in rbm.BINARY:
    raise ValueError(
      f'config.fusion.rbm.sparsity.cost={config.sparsity.cost!r} is for binary hidden units, not {units.hidden}'
    )
  binary = units.visible in rbm.BINARY and units.hidden in rbm.BINARY
  lr = config.lr if binary else config.real_lr
  update = finiteness.guarded(functools.partial(_update, config=config, units=units, lr=lr), nonfinite)
  return Layer(hidden, units, parallel.train_step(update), parallel.folds_step(update))


def _update(state: Tree, batch: Tree, key: jax.Array, *, config: Any, units: rbm.Units, lr: float) -> tuple[Tree, Tree]:
  """One step of CD-k, or of persistent CD where the state has chains."""
  params, data, mask = state['params'], batch['input'], batch['mask']
  hidden = rbm.hidden_mean(params, data, units)
  if config.persistent:
    keys, start = rngs.row_keys(key, state['step'], batch['chain']), state['chains'].at[batch['chain']].get(mode='clip')
    weight = (batch['chain'] < config.batch).astype(mask.dtype)
  else:
    keys, weight = rngs.row_keys(key, state['step'], batch['row']), mask
    start = rbm.sample(hidden, units.hidden, keys, 0)
  after = start
  for number in range(config.cd_steps):
    samples, after = rbm.gibbs(params, after, keys, units, number)
  rebuilt = rbm.visible_mean(params, hidden, units) if config.persistent else samples
  error = jnp.mean(jnp.square(data - rebuilt), -1)
  sums, active, chains = parallel.total(
    (
      {'count': jnp.sum(mask), 'reconstruction_error': jnp.sum(error * mask)},
      mask @ hidden,
      jnp.sum(weight),
    )
  )
  # The mean over data less that over samples, in one sum over the rows of both: one product as large as the weights.
  rows = jnp.concatenate([data, samples])
  rows_hidden = jnp.concatenate([hidden, rbm.hidden_mean(params, samples, units)])
  share = jnp.concatenate([mask / sums['count'], -weight / chains])
  gradient = parallel.total(rbm.free_energy_gradient(params, rows, share, units, rows_hidden))
  gradient['weights'] += config.weight_decay * params['weights']
  gradient['hidden_bias'] += config.sparsity.cost * (active / sums['count'] - config.sparsity.target)

  epoch = state['step'] // state['epoch_steps']
  kept = jnp.asarray(config.momentum)[jnp.minimum(epoch, len(config.momentum) - 1)]
  velocity = jax.tree.map(lambda v, g: kept * v - lr * g, state['velocity'], gradient)
  params = jax.tree.map(jnp.add, params, velocity)
  turn = jnp.maximum(state['step'] - state['average_from'], 0)  # the average starts anew until its epochs begin
  average = jax.tree.map(lambda a, p: a + (p - a) / (turn + 1), state['average'], params)
  new = {**state, 'params': params, 'velocity': velocity, 'average': average, 'step': state['step'] + 1}
  if config.persistent:
    # Each device has moved its own chains; rows that only fill up the devices have none.
    moved = jnp.zeros_like(state['chains']).at[batch['chain']].set(after, mode='drop')
    new['chains'] = parallel.total(moved)
  return new, {**sums, **finiteness.norms(gradient, params)}


@functools.partial(jax.jit, static_argnames='units')
def monitor(params: rbm.Params, rows: jax.Array, key: jax.Array, *, units: rbm.Units) -> dict[str, jax.Array]:
  """How well an RBM knows rows [M, V]: mean reconstruction error, free energy and, if binary, pseudo-likelihood."""
  rebuilt = rbm.visible_mean(params, rbm.hidden_mean(params, rows, units), units)
  values = {
    'reconstruction_error': jnp.mean(jnp.square(rows - rebuilt)),
    'free_energy': jnp.mean(rbm.free_energy(params, rows, units)),
  }
  if units.visible in rbm.BINARY:
    keys = jax.random.split(key, len(rows))
    values['pseudo_likelihood'] = jnp.mean(rbm.pseudo_likelihood(params, rows, keys, units))
  return values


def _spread(rows: np.ndarray) -> np.ndarray:
  """At most MONITORED of the rows, evenly spaced."""
  return rows[np.linspace(0, len(rows) - 1, min(len(rows), MONITORED)).astype(int)]


def _sides(data: np.ndarray, held: np.ndarray) -> dict[str, np.ndarray]:
  """The sides that there are."""
  return {'train': data, 'held': held} if len(held) else {'train': data}


def monitor_sides(
  params: rbm.Params, data: np.ndarray, held: np.ndarray, key: jax.Array, units: rbm.Units
) -> dict[str, float]:
  """The monitors of training rows and, where there are any, of held rows; and the gap between their free energies.

  A gap that grows is overfitting (Hinton 2012, 6).
  """
  sides = _sides(data, held)
  found = {side: jax.device_get(monitor(params, _spread(rows), key, units=units)) for side, rows in sides.items()}
  values = {f'{side}_{name}': float(value) for side, of_side in found.items() for name, value in of_side.items()}
  if len(held):
    values['free_energy_gap'] = values['held_free_energy'] - values['train_free_energy']
  return values


def _likelihood(
  params: rbm.Params, data: np.ndarray, held: np.ndarray, key: jax.Array, units: rbm.Units, config: Any
) -> dict[str, float]:
  """Log Z by annealed importance sampling, and with it the mean log-likelihood (density, of real units) of both sides.

  Of visible units between 0 and 1 it is an index of fit, as the pseudo-likelihood is.
  """
  weights = np.asarray(
    _log_partition(params, key, units=units, chains=config.chains, temperatures=config.temperatures), np.float64
  )
  log_z = float(np.logaddexp.reduce(weights) - np.log(len(weights)))
  energies = {side: _free_energy(params, _spread(rows), units=units) for side, rows in _sides(data, held).items()}
  likelihoods = {f'{side}_log_likelihood': -float(of_side.mean()) - log_z for side, of_side in energies.items()}
  return {'log_partition': log_z, 'log_weights_deviation': float(weights.std()), **likelihoods}


def initial_params(data: np.ndarray, layer: Layer, *, config: Any, key: jax.Array) -> rbm.Params:
  """An RBM before training on rows [N, V]."""
  params = rbm.init(key, data.shape[1], layer.hidden, scale=config.init_scale)
  if config.bias_from_data:
    params['visible_bias'] = jnp.asarray(rbm.bias_from_data(data, layer.units))
  if config.learn_variance and layer.units.visible == 'gaussian':
    params['log_variance'] = jnp.zeros(data.shape[1])
  return params


def initial_state(params: rbm.Params, *, config: Any, epoch_steps: int) -> Tree:
  """What a layer's step takes and returns: parameters, their velocity and running average, counters, chains."""
  whole = lambda number: np.asarray(number, np.int32)
  state = {
    'params': params,
    'velocity': jax.tree.map(jnp.zeros_like, params),
    'average': jax.tree.map(jnp.array, params),
    'step': whole(0),
    'epoch_steps': whole(epoch_steps),
    'average_from': whole(max(config.epochs - config.average_epochs, 0) * epoch_steps),
  }
  chains = {'chains': jnp.zeros((config.batch, len(params['hidden_bias'])))} if config.persistent else {}
  return {**state, **chains}


def plan(
  data: np.ndarray,
  held: np.ndarray,
  layer: Layer,
  *,
  config: Any,
  seed: int,
  names: tuple[str | int, ...],
  name: str,
  size: int,
  watch: loop.Watch,
) -> Course:
  """The course of one RBM's training.

  Args:
    size: G, rows of a batch with those that fill it up.
    data, held, layer, config, seed, names, name, watch: as train_rbm has them.
  """
  if config.shuffled:
    rows_at = batches.shuffled_rows(len(data), config.batch, padded_to=size, seed=seed, names=names)
  else:
    rows_at = batches.cyclic_rows(len(data), config.batch, padded_to=size)
  per_epoch = batches.steps_per_epoch(len(data), config.batch)
  steps = config.epochs * per_epoch

  def batch_at(step: int) -> dict[str, np.ndarray]:
    rows, mask, chain = parallel.own((*rows_at(step), np.arange(size, dtype=np.int32)))
    return {'input': data[rows], 'mask': mask, 'row': rows, 'chain': chain}

  def after_epoch(done: int, state: Tree) -> Tree:
    values = monitor_sides(state['params'], data, held, rngs.stream(seed, *names, 'monitor'), layer.units)
    watch.metrics.write(f'{name}/monitor', done - 1, values)
    watch.metrics.flush()
    return state

  def finish(params: rbm.Params) -> None:
    if config.ais.chains:
      values = _likelihood(params, data, held, rngs.stream(seed, *names, 'ais'), layer.units, config.ais)
      watch.metrics.write(f'{name}/likelihood', steps - 1, values)
      watch.metrics.flush()

  params = initial_params(data, layer, config=config, key=rngs.stream(seed, *names, 'init'))
  state, key = initial_state(params, config=config, epoch_steps=per_epoch), rngs.stream(seed, *names, 'draws')
  return Course(state, batch_at, key, steps, per_epoch, after_epoch, finish)


def train_rbm(
  data: np.ndarray,
  held: np.ndarray,
  layer: Layer,
  *,
  config: Any,
  seed: int,
  names: tuple[str | int, ...],
  name: str,
  folder: pathlib.Path,
  watch: loop.Watch,
) -> rbm.Params:
  """Trains one RBM and returns its averaged parameters as numpy arrays.

  Args:
    data: float32 [N, V], values in [0, 1] for binary visible units, about N(0, 1) for real ones.
    held: float32 [M, V], monitored and never learnt from; M may be 0.
    layer: from `build_layer`.
    config: config.fusion.rbm.
    seed: of the random streams, with `names`.
    name: of the training, for metrics; the monitors are written under `name`/monitor, after each epoch.
    folder, watch: as loop.fit has them.

  The reconstruction error in the metrics is that of the samples, but of means for persistent chains, which have left
  the data.
  """
  size = parallel.rows_a_step(config.batch)
  course = plan(data, held, layer, config=config, seed=seed, names=names, name=name, size=size, watch=watch)
  state = loop.fit(
    layer.step,
    course.state,
    course.batch_at,
    course.key,
    steps=course.steps,
    name=name,
    folder=folder,
    watch=watch,
    epoch_steps=course.epoch_steps,
    after_epoch=course.after_epoch,
  )
  course.finish(state['average'])
  return state['average']


def hidden_means(params: rbm.Params, rows: np.ndarray, units: rbm.Units) -> np.ndarray:
  """What the RBM above learns from: rows [N, V] -> their hidden means [N, H]."""
  return np.asarray(_hidden_mean(params, rows, units=units))


def train_stack(
  data: np.ndarray,
  held: np.ndarray,
  layers: Sequence[Layer],
  *,
  config: Any,
  seed: int,
  name: str,
  folder: pathlib.Path,
  watch: loop.Watch,
) -> list[rbm.Params]:
  """Stacks RBMs greedily: each learns from the hidden means of the one below (Hinton 2006; method.md A4).

  Args:
    data, held: as train_rbm has them, for the lowest layer.
    layers: the lowest first; any depth.
    config: config.fusion.rbm.
    seed: of the random streams, the same for every fold.
    name: of the fold's fusion, for metrics.
    folder: where finished layers lie, and their checkpoints in its subfolder 'scratch'; a layer that is done is not
      trained again.
  """
  stack: list[rbm.Params] = []
  for number, layer in enumerate(layers):
    done = folder / f'rbm{number}'
    if not done.exists():
      params = train_rbm(
        data,
        held,
        layer,
        config=config,
        seed=seed,
        names=('fusion', 'rbm', number),
        name=f'{name}/rbm{number}',
        folder=folder / 'scratch' / f'rbm{number}',
        watch=watch,
      )
      checkpoint.save(done, params)
    else:
      like = jax.eval_shape(lambda: initial_params(data, layer, config=config, key=jax.random.key(0)))  # noqa: B023
      params = checkpoint.load(done, like)
      watch.tick(config.epochs * batches.steps_per_epoch(len(data), config.batch), 0)
    stack.append(params)
    data, held = (hidden_means(params, rows, layer.units) for rows in (data, held))
  return stack

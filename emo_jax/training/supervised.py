"""Learning from labels: both networks on segments, and the DBN's fine-tuning (pipeline steps: audio, visual net)."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.special

from emo_jax.training import batches, finiteness, loop, optim, parallel, rngs

Tree = Any
Read = Callable[[np.ndarray], np.ndarray]  # rows [G] -> the network's input [G, ...]
Labelled = tuple[Read, np.ndarray]  # rows, and their class indices, int [N]
Forward = Callable[[Tree, jax.Array, jax.Array | None], tuple[jax.Array, jax.Array]]


class Network(NamedTuple):
  """A classifier and its compiled steps, built once for all folds.

  Attributes:
    forward: (variables, input [B, ...], keys [B] | None) -> logits [B, C], features [B, F]. Variables hold 'params'
      and 'statistics' (arrays fitted to training rows and not learnt, possibly none).
    images: input [B, ...] -> [B, K, h, w, 3], what the statistics are of.
    train_step, predict_step: mapped over the devices.
    accumulate: parts that a device's rows of a training step are taken in.
  """

  forward: Forward
  images: Callable[[jax.Array], jax.Array]
  train_step: Callable[..., tuple[Tree, Tree]]
  predict_step: Callable[[Tree, Tree], Tree]
  accumulate: int


def build(
  forward: Forward,
  images: Callable[[jax.Array], jax.Array],
  optim_config: Any,
  *,
  accumulate: int = 1,
  nonfinite: str = 'stop',
) -> Network:
  """Compiles a forward function into training and prediction steps.

  Args:
    forward, images: as Network has them.
    optim_config: see optim.direction.
    accumulate: parts that a device's rows of a training step are taken in, one after the other, where the activations
      of all do not fit its memory. The update is the same, to float error.
    nonfinite: 'skip' leaves out updates that are not finite (config.nonfinite).

  Raises:
    ValueError: accumulate is less than 1.
  """
  if accumulate < 1:
    raise ValueError(f'accumulate={accumulate}: a batch has 1 part or more')
  gradient, updated = _gradient_step(forward, parts=accumulate), _update_step(optim_config, nonfinite)

  def train_step(state: Tree, batch: Tree, key: jax.Array) -> tuple[Tree, Tree]:
    numbers = (parallel.replicate(np.int32(number)) for number in range(accumulate))
    return updated(state, functools.reduce(_added, (gradient((state, key, number), batch) for number in numbers)))

  def predict_step(variables: Tree, batch: Tree) -> Tree:
    return forward(variables, batch['input'], None)

  return Network(forward, images, train_step, parallel.predict_step(predict_step), accumulate)


def _gradient_step(forward: Forward, *, parts: int) -> Callable[[Tree, Tree], tuple[Tree, Tree]]:
  """((state, key, number of the part), batch) -> gradient and metrics, summed over that part of each device's rows.

  The parts are told apart here, not by a loop within one program: on CPU, XLA's convolutions have gradients that take
  20 times as long in a loop.
  """

  @parallel.sum_step
  def gradient(shared: tuple[Tree, jax.Array, jax.Array], batch: Tree) -> tuple[Tree, Tree]:
    state, key, number = shared
    part = jax.tree.map(lambda rows: rows.reshape(parts, -1, *rows.shape[1:])[number], batch)
    keys = rngs.row_keys(key, state['step'], part['row'])

    def loss_sum(params: Tree) -> tuple[jax.Array, jax.Array]:
      logits, _ = forward({'params': params, 'statistics': state['statistics']}, part['input'], keys)
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, part['label'])
      return jnp.sum(losses * part['mask']), logits

    (loss, logits), of_loss = jax.value_and_grad(loss_sum, has_aux=True)(state['params'])
    right = (jnp.argmax(logits, -1) == part['label']) * part['mask']
    return of_loss, {'count': jnp.sum(part['mask']), 'loss': loss, 'accuracy': jnp.sum(right)}

  return gradient


def _update_step(optim_config: Any, nonfinite: str) -> Callable[[Tree, tuple[Tree, Tree]], tuple[Tree, Tree]]:
  """(state, summed gradient and metrics) -> (state, metrics), the same on every device. The old state is given up."""
  direction = optim.direction(optim_config)

  def updated(state: Tree, summed: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
    gradient, sums = summed
    gradient = jax.tree.map(lambda g: g / sums['count'], gradient)
    updates, opt = direction.update(gradient, state['opt'], state['params'])
    rate = optim.learning_rate(optim_config, state['step'], state['steps'])
    params = jax.tree.map(lambda p, u: p - rate * u, state['params'], updates)
    state = {**state, 'params': params, 'opt': opt, 'step': state['step'] + 1}
    if 'epoch' in state:
      state['epoch'] = jax.tree.map(jnp.add, state['epoch'], sums)
    return state, {**sums, **finiteness.norms(gradient, params)}

  return jax.jit(finiteness.guarded(updated, nonfinite), donate_argnums=0)


@functools.partial(jax.jit, donate_argnums=0)
def _added(sums: Tree, more: Tree) -> Tree:
  return jax.tree.map(jnp.add, sums, more)


def image_statistics(network: Network, read: Read, rows_in_all: int, *, batch: int) -> dict[str, np.ndarray]:
  """Mean and deviation of a network's images over all training rows, pixel by pixel: float32 [h, w, 3] (method.md A1).

  Of face clips the mean is a mean face, as C3D's published mean volume is a mean frame. A pixel that never varies has
  deviation 1, so that it becomes 0.
  """
  size = parallel.rows_a_step(batch)
  # Sums about the first row's image: about 0, those of the squares would lose small deviations in float32.
  first_row = np.asarray(network.images(jnp.asarray(read(np.array([0])))))[0]
  reference, count = first_row[0], rows_in_all * len(first_row)

  @parallel.sum_step
  def sums(reference: jax.Array, batch: Tree) -> Tree:
    images = (network.images(batch['input']) - reference) * batch['mask'][:, None, None, None, None]
    return jnp.sum(images, (0, 1)), jnp.sum(jnp.square(images), (0, 1))

  def place(of: batches.Rows) -> Tree:
    rows, mask = parallel.own(of)
    return parallel.shard({'input': read(rows), 'mask': mask})

  mean, square = 0.0, 0.0
  with batches.ahead(place, batches.rows_in_order(rows_in_all, size)) as placed:
    for part in placed:
      first, second = jax.device_get(sums(reference, part))
      mean, square = mean + first.astype(np.float64) / count, square + second.astype(np.float64) / count
  deviation = np.sqrt(np.maximum(square - np.square(mean), 0))
  deviation = np.where(deviation > 1e-3, deviation, 1.0)
  return {'mean': np.asarray(mean + reference, np.float32), 'deviation': np.asarray(deviation, np.float32)}


def _nothing_chosen(params: Tree) -> Tree:
  """What `_chooser` keeps in the state, before the first epoch: any is better than -1 rows right."""
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)
  return {'best': {'params': zeros, 'right': np.asarray(-1, np.int32)}, 'epoch': _nothing_seen()}


def _nothing_seen() -> dict[str, np.ndarray]:
  """An epoch's sums before its first step."""
  return {name: np.zeros((), np.float32) for name in ('count', 'loss', 'accuracy')}


def _chooser(
  network: Network, held: Labelled, *, batch: int, name: str, watch: loop.Watch
) -> Callable[[int, Tree], Tree]:
  """An after_epoch for loop.fit that keeps the parameters with the most held rows right; of equals, the earliest.

  It also writes each epoch's numbers: of the training rows as its steps saw them (dropout, augmentation and all), of
  the held rows as predicted after it.
  """
  read, labels = held

  def after_epoch(done: int, state: Tree) -> Tree:
    variables = {part: state[part] for part in ('params', 'statistics')}
    logits, _ = predict(network, variables, read, len(labels), batch=batch)
    loss = -np.mean(scipy.special.log_softmax(logits, axis=-1)[np.arange(len(labels)), labels])
    right = np.sum(np.argmax(logits, axis=-1) == labels, dtype=np.int32)
    seen, most = jax.device_get((state['epoch'], state['best']['right']))
    numbers = {f'train_{of}': float(seen[of] / seen['count']) for of in ('loss', 'accuracy')}
    numbers |= {'held_loss': float(loss), 'held_accuracy': float(right / len(labels))}
    watch.metrics.write(f'{name}/epochs', done - 1, numbers)
    watch.metrics.flush()
    best = state['best']
    if right > most:  # copies: the next step gives up the state's own arrays
      best = {'params': jax.tree.map(jnp.copy, state['params']), 'right': parallel.replicate(right)}
    return {**state, 'best': best, 'epoch': parallel.replicate(_nothing_seen())}

  return after_epoch


def _labelled_batches(
  read: Read, labels: np.ndarray, rows_at: Callable[[int], batches.Rows]
) -> Callable[[int], dict[str, np.ndarray]]:
  """step -> the batch that `train_step` takes."""

  def batch_at(step: int) -> dict[str, np.ndarray]:
    rows, mask = parallel.own(rows_at(step))
    return {'input': read(rows), 'label': labels[rows].astype(np.int32), 'mask': mask, 'row': rows}

  return batch_at


def train(
  network: Network,
  variables: Tree,
  read: Read,
  labels: np.ndarray,
  *,
  batch: int,
  epochs: int,
  optim_config: Any,
  seed: int,
  names: tuple[str | int, ...],
  held: Labelled | None = None,
  **fit: Any,
) -> Tree:
  """Trains on labelled rows and returns the variables of the last epoch, or of the best one on held rows.

  Args:
    network: from `build`.
    variables: 'params' and 'statistics' to start from.
    read: rows [G] -> input arrays. It is called in another thread, and that of `held` in one more at the same time.
    labels: int [N] class indices.
    batch: global batch size, G.
    epochs: passes over all rows.
    optim_config: the one that the network was built with.
    seed: of the random streams, with `names`.
    held: how to read at least one row of held speakers, and their labels: the epoch is chosen on them.
    fit: name, folder and watch, as loop.fit has them.
  """
  epoch_steps = batches.steps_per_epoch(len(labels), batch)
  steps, after_epoch = epochs * epoch_steps, None
  state = {
    **variables,
    'opt': optim.direction(optim_config).init(variables['params']),
    'step': np.asarray(0, np.int32),
    'steps': np.asarray(steps, np.int32),
  }
  if held is not None:
    state |= _nothing_chosen(variables['params'])
    after_epoch = _chooser(network, held, batch=batch, name=fit['name'], watch=fit['watch'])
  size = parallel.rows_a_step(batch, parts=network.accumulate)
  rows_at = batches.shuffled_rows(len(labels), batch, padded_to=size, seed=seed, names=names)
  batch_at, key = _labelled_batches(read, labels, rows_at), rngs.stream(seed, *names, 'draws')
  fit |= {'steps': steps, 'epoch_steps': epoch_steps, 'after_epoch': after_epoch}
  state = loop.fit(network.train_step, state, batch_at, key, **fit)
  chosen = state if held is None else state['best']
  return {'params': chosen['params'], 'statistics': state['statistics']}


def predict(
  network: Network,
  variables: Tree,
  read: Read,
  count: int,
  *,
  batch: int,
  tick: Callable[[int], Any] = lambda count: None,
) -> tuple[np.ndarray, np.ndarray]:
  """Logits [N, C] and features [N, F] of rows 0..N-1, float32; `tick` hears of each batch how many rows it had."""
  parts = []
  for _, part in outputs(network.predict_step, variables, read, count, batch=batch):
    parts.append(part)
    tick(len(part[0]))
  logits, features = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
  return logits, features


def outputs(
  step: Callable[[Tree, Tree], Tree], variables: Tree, read: Read, count: int, *, batch: int
) -> Iterator[tuple[int, Tree]]:
  """What a predict_step gives of rows 0..N-1, some rows at a time: the first row's number, arrays [n, ...]."""
  variables = parallel.replicate(variables)
  in_order = batches.rows_in_order(count, parallel.rows_a_step(batch))
  with batches.ahead(lambda of: parallel.shard({'input': read(parallel.own(of[0]))}), in_order) as placed:
    for (rows, mask), part in zip(in_order, placed, strict=True):
      yield int(rows[0]), jax.tree.map(functools.partial(np.compress, mask > 0, axis=0), step(variables, part))

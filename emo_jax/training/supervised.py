"""Learning from labels: both networks on segments, and the DBN's fine-tuning (pipeline steps: audio, visual net)."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.special

from emo_jax.models import inputs
from emo_jax.models.alexnet import AlexNet
from emo_jax.models.c3d import C3D
from emo_jax.training import batches, loop, optim, parallel, rngs

Tree = Any
Read = Callable[[np.ndarray], np.ndarray]  # rows [G] -> the network's input [G, ...]
Labelled = tuple[Read, np.ndarray]  # rows, and their class indices, int [N]
Forward = Callable[[Tree, jax.Array, jax.Array | None], tuple[jax.Array, jax.Array]]
AUGMENT = 100  # told apart from the dropout layers' numbers when folded into a row's key


class Network(NamedTuple):
  """A classifier and its compiled steps, built once for all folds.

  Attributes:
    forward: (variables, input [B, ...], keys [B] | None) -> logits [B, C], features [B, F]. Variables hold 'params'
      and 'statistics' (arrays fitted to training rows and not learnt, possibly none).
    images: input [B, ...] -> [B, K, h, w, 3], what the statistics are of.
    train_step, predict_step: mapped over the devices.
  """

  forward: Forward
  images: Callable[[jax.Array], jax.Array]
  train_step: Callable[..., tuple[Tree, Tree]]
  predict_step: Callable[[Tree, Tree], Tree]


def build(forward: Forward, images: Callable[[jax.Array], jax.Array], optim_config: Any) -> Network:
  """Compiles a forward function into training and prediction steps."""
  direction = optim.direction(optim_config)

  def train_step(state: Tree, batch: Tree, key: jax.Array) -> tuple[Tree, Tree]:
    keys = rngs.row_keys(key, state['step'], batch['row'])

    def loss_sum(params: Tree) -> tuple[jax.Array, jax.Array]:
      logits, _ = forward({'params': params, 'statistics': state['statistics']}, batch['input'], keys)
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch['label'])
      return jnp.sum(losses * batch['mask']), logits

    (loss, logits), gradient = jax.value_and_grad(loss_sum, has_aux=True)(state['params'])
    right = (jnp.argmax(logits, -1) == batch['label']) * batch['mask']
    sums = {'count': jnp.sum(batch['mask']), 'loss': loss, 'accuracy': jnp.sum(right)}
    gradient, sums = parallel.total((gradient, sums))
    gradient = jax.tree.map(lambda g: g / sums['count'], gradient)
    updates, opt = direction.update(gradient, state['opt'], state['params'])
    rate = optim.learning_rate(optim_config, state['step'], state['steps'])
    params = jax.tree.map(lambda p, u: p - rate * u, state['params'], updates)
    state = {**state, 'params': params, 'opt': opt, 'step': state['step'] + 1}
    if 'epoch' in state:
      state['epoch'] = jax.tree.map(jnp.add, state['epoch'], sums)
    return state, sums

  def predict_step(variables: Tree, batch: Tree) -> Tree:
    return forward(variables, batch['input'], None)

  return Network(forward, images, parallel.train_step(train_step), parallel.predict_step(predict_step))


def apply(model: nn.Module, variables: Tree, x: jax.Array, keys: jax.Array | None) -> tuple[jax.Array, jax.Array]:
  """The model with these variables' parameters: logits [B, C], features [B, F]."""
  return cast(tuple[jax.Array, jax.Array], model.apply({'params': variables['params']}, x, keys))


def augment_keys(keys: jax.Array) -> jax.Array:
  """[B] keys for augmentation, apart from those of dropout."""
  return jax.vmap(lambda key: jax.random.fold_in(key, AUGMENT))(keys)


def audio_network(config: Any, *, classes: int) -> tuple[Network, AlexNet]:
  """AlexNet on sound images: deltas, z-score by training statistics on the 64 x 64 map, masks, resize.

  With config.z_score 'after', as in the script, the resize comes before the z-score, whose statistics are then of
  [size, size] maps. Masks are in frames and bands, so checks.check refuses them there.
  """
  after = config.z_score == 'after'
  model = AlexNet(classes, width=config.width, form=config.form, norm=config.norm, dropout=config.dropout)

  def sound_images(log_mel: jax.Array) -> jax.Array:
    images = inputs.sound_image(log_mel, points=config.deltas)
    images = inputs.resized(images, config.size) if after else images
    return images[:, None]  # the axis that a face clip's frames have

  def forward(variables: Tree, log_mel: jax.Array, keys: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    images = standardised(sound_images(log_mel), variables['statistics'])[:, 0]
    if keys is not None:
      changes = {'shift': config.shift_mel, 'level': config.level, 'static': 1 if config.deltas else 3}
      images = inputs.vary_sound(images, augment_keys(keys), **changes)
      images = inputs.mask_sound(images, augment_keys(keys), time=config.mask_time, mel=config.mask_mel)
    return apply(model, variables, inputs.resized(images, config.size), keys)

  return build(forward, sound_images, config.optim), model


def visual_network(config: Any, *, classes: int) -> tuple[Network, C3D]:
  """C3D on face clips: scaling, z-score by the training frames' statistics, resize, mirroring, shift, gain."""
  model = C3D(classes, width=config.width, norm=config.norm, dropout=config.dropout)
  scaled = functools.partial(inputs.scaled_faces, scaling=config.scaling)

  def forward(variables: Tree, faces: jax.Array, keys: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    clips = inputs.resized(standardised(scaled(faces), variables['statistics']), config.size)
    if keys is not None:
      clips = inputs.vary_faces(
        clips, augment_keys(keys), flip=config.flip, shift=config.shift, brightness=config.brightness
      )
    return apply(model, variables, clips, keys)

  return build(forward, scaled, config.optim), model


def standardised(images: jax.Array, statistics: Tree) -> jax.Array:
  """Z-score, pixel by pixel: [B, K, h, w, 3] by 'mean' and 'deviation' [h, w, 3] (method.md A1)."""
  return (images - statistics['mean']) / statistics['deviation']


def image_statistics(network: Network, read: Read, rows_in_all: int, *, batch: int) -> dict[str, np.ndarray]:
  """Mean and deviation of a network's images over all training rows, pixel by pixel: float32 [h, w, 3] (method.md A1).

  Of face clips the mean is a mean face, as C3D's published mean volume is a mean frame. A pixel that never varies has
  deviation 1, so that it becomes 0.
  """
  size = parallel.rows_a_step(batch)
  # Sums about the first row's image: about 0, those of the squares would lose small deviations in float32.
  first_row = np.asarray(network.images(jnp.asarray(read(np.array([0])))))[0]
  reference, count = first_row[0], rows_in_all * len(first_row)

  def sums(batch: Tree) -> Tree:
    images = (network.images(batch['input']) - reference) * batch['mask'][:, None, None, None, None]
    return jnp.sum(images, (0, 1)), jnp.sum(jnp.square(images), (0, 1))

  step = parallel.sum_step(sums)
  mean, square = 0.0, 0.0
  for rows, mask in batches.rows_in_order(rows_in_all, size):
    first, second = jax.device_get(step(parallel.shard({'input': read(rows), 'mask': mask})))
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
    rows, mask = rows_at(step)
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
    read: rows [G] -> input arrays.
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
  rows_at = batches.shuffled_rows(len(labels), batch, padded_to=parallel.rows_a_step(batch), seed=seed, names=names)
  batch_at, key = _labelled_batches(read, labels, rows_at), rngs.stream(seed, *names, 'draws')
  fit |= {'steps': steps, 'epoch_steps': epoch_steps, 'after_epoch': after_epoch}
  state = loop.fit(network.train_step, state, batch_at, key, **fit)
  chosen = state if held is None else state['best']
  return {'params': chosen['params'], 'statistics': state['statistics']}


def predict(network: Network, variables: Tree, read: Read, count: int, *, batch: int) -> tuple[np.ndarray, np.ndarray]:
  """Logits [N, C] and features [N, F] of rows 0..N-1, float32."""
  variables = parallel.replicate(variables)
  outputs = []
  for rows, mask in batches.rows_in_order(count, parallel.rows_a_step(batch)):
    logits, features = network.predict_step(variables, parallel.shard({'input': read(rows)}))
    outputs.append((logits[mask > 0], features[mask > 0]))
  logits, features = (np.concatenate(part) for part in zip(*outputs, strict=True))
  return logits, features

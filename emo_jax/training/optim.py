"""Optimisers: the paper's SGD with momentum, and AdamW (method.md A3)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

LAST_LAYER = ('fc8', 'head')  # the networks' and the DBN's


def direction(config: Any) -> optax.GradientTransformation:
  """The update direction at learning rate 1; weight decay on kernels alone.

  The last layer's is scaled as a whole, decay and momentum with it, as MatConvNet scales a layer's learning rate.

  Args:
    config: name ('sgd' or 'adamw'), momentum, weight_decay, head_rate (the last layer's rate relative to lr).

  Raises:
    ValueError: another name.
  """
  kernels = lambda params: jax.tree.map(lambda x: x.ndim > 1, params)
  last = lambda params: jax.tree_util.tree_map_with_path(lambda path, _: path[0].key in LAST_LAYER, params)
  scale = optax.masked(optax.scale(config.head_rate), last)
  decay = optax.add_decayed_weights(config.weight_decay, mask=kernels)
  if config.name == 'sgd':
    return optax.chain(decay, optax.trace(config.momentum), scale)
  if config.name == 'adamw':
    return optax.chain(optax.scale_by_adam(), decay, scale)
  raise ValueError(f'optim.name={config.name!r}: use sgd or adamw')


def learning_rate(config: Any, step: jax.Array, steps: jax.Array) -> jax.Array:
  """The rate at a step. Both are arrays, so that one compiled step serves folds of different lengths.

  Args:
    config: lr, schedule ('constant', or 'cosine': linear warm-up over the first tenth, then a cosine down to 0).

  Raises:
    ValueError: another schedule.
  """
  if config.schedule == 'constant':
    return jnp.asarray(config.lr, jnp.float32)
  if config.schedule == 'cosine':
    done = step / steps
    return config.lr * jnp.minimum((step + 1) / (0.1 * steps), 0.5 * (1 + jnp.cos(jnp.pi * done)))
  raise ValueError(f'optim.schedule={config.schedule!r}: use constant or cosine')

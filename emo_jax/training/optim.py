"""Optimisers: the paper's SGD with momentum, and AdamW (method.md A3)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def direction(config: Any) -> optax.GradientTransformation:
  """The update direction at learning rate 1; weight decay on kernels alone.

  Args:
    config: name ('sgd' or 'adamw'), momentum, weight_decay.

  Raises:
    ValueError: another name.
  """
  kernels = lambda params: jax.tree.map(lambda x: x.ndim > 1, params)
  decay = optax.add_decayed_weights(config.weight_decay, mask=kernels)
  if config.name == 'sgd':
    return optax.chain(decay, optax.trace(config.momentum))
  if config.name == 'adamw':
    return optax.chain(optax.scale_by_adam(), decay)
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

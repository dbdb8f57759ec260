"""Dropout whose draws belong to rows, not to devices (part of both networks and of the DBN's fine-tuning)."""

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float, keys: jax.Array | None, layer: int) -> jax.Array:
  """Drops units at `rate` and scales up the rest. The same row gets the same mask on any number of devices.

  Args:
    x: [B, units].
    rate: share of units dropped, 0 <= rate < 1.
    keys: [B] random keys, one a row; None to predict.
    layer: tells the layers of one network apart.
  """
  if keys is None or rate == 0:
    return x
  draw = lambda key: jax.random.bernoulli(jax.random.fold_in(key, layer), 1 - rate, x.shape[1:])
  return jnp.where(jax.vmap(draw)(keys), x / (1 - rate), 0)

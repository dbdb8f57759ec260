"""Random streams: one seed, a name for each use, the step and the row folded in. No key is ever saved."""

import zlib

import jax
import numpy as np


def stream(seed: int, *names: str | int) -> jax.Array:
  """The key of a named stream: the seed with the names folded in one by one.

  Args:
    seed: config.seed or config.nets_seed.
    names: what the draws are for, 'audio', 'fold', 0, 'dropout'; the same names always give the same key.
  """
  key = jax.random.key(seed)
  for name in names:
    key = jax.random.fold_in(key, zlib.crc32(str(name).encode()))
  return key


def row_keys(key: jax.Array, step: jax.Array, rows: jax.Array) -> jax.Array:
  """[B] keys, one a training row. They hang on the row's id, so draws do not depend on which device has the row."""
  at_step = jax.random.fold_in(key, step)
  return jax.vmap(lambda row: jax.random.fold_in(at_step, row))(rows)


def shuffled(seed: int, epoch: int, count: int, *names: str | int) -> np.ndarray:
  """A permutation of `count` rows that depends on seed, names and epoch alone (on the host, by numpy)."""
  words = [seed, epoch, *(zlib.crc32(str(name).encode()) for name in names)]
  return np.random.default_rng(np.random.SeedSequence(words)).permutation(count)

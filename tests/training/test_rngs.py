"""Tests of the random streams."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from emo_jax.training import rngs


def bits(key: jax.Array) -> bytes:
  return np.asarray(jax.random.key_data(key)).tobytes()


def test_a_stream_hangs_on_the_seed_and_on_each_name_in_order() -> None:
  names = [('audio', 0), ('audio', 1), ('visual', 0), (0, 'audio'), ('audio',), ()]
  keys = {bits(rngs.stream(seed, *of)) for seed, of in itertools.product((0, 1), names)}
  assert len(keys) == 12
  assert bits(rngs.stream(1, 'audio', 0)) == bits(rngs.stream(1, 'audio', 0))


def test_row_keys_hang_on_step_and_row_not_on_the_place_in_the_batch() -> None:
  key, rows = jax.random.key(0), jnp.array([7, 3, 0, 9])
  first = [bits(k) for k in rngs.row_keys(key, jnp.int32(5), rows)]
  assert len(set(first)) == 4
  assert [bits(k) for k in rngs.row_keys(key, jnp.int32(5), rows[::-1])] == first[::-1]
  assert [bits(k) for k in rngs.row_keys(key, jnp.int32(5), rows[1:2])] == first[1:2]
  assert not set(first) & {bits(k) for k in rngs.row_keys(key, jnp.int32(6), rows)}


def test_shuffling_is_a_permutation_of_seed_epoch_and_names_alone() -> None:
  orders = {}
  for seed, epoch, name in itertools.product((0, 1), (0, 1, 2), ('audio', 'visual')):
    order = rngs.shuffled(seed, epoch, 50, name, 3)
    np.testing.assert_array_equal(np.sort(order), np.arange(50))
    np.testing.assert_array_equal(order, rngs.shuffled(seed, epoch, 50, name, 3))
    orders[seed, epoch, name] = order.tobytes()
  assert len(set(orders.values())) == len(orders)

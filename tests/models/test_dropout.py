"""Tests of dropout by its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emo_jax.models.dropout import dropout

KEYS = jax.random.split(jax.random.key(0), 8)
X = jnp.asarray(np.random.default_rng(0).uniform(1, 2, size=(8, 500)), jnp.float32)


@pytest.mark.parametrize('rate', [0.1, 0.5, 0.8])
def test_units_are_dropped_at_the_rate_and_the_rest_scaled_up(rate: float) -> None:
  y = np.asarray(dropout(X, rate, KEYS, 0))
  kept = y != 0
  assert abs(kept.mean() - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / y.size)
  np.testing.assert_allclose(y[kept], (X / (1 - rate))[kept], rtol=1e-6)


@pytest.mark.parametrize('parts', [2, 4, 8])
def test_a_rows_mask_does_not_depend_on_how_rows_are_dealt(parts: int) -> None:
  whole = dropout(X, 0.5, KEYS, 1)
  dealt = [dropout(x, 0.5, keys, 1) for x, keys in zip(jnp.split(X, parts), jnp.split(KEYS, parts), strict=True)]
  np.testing.assert_array_equal(jnp.concatenate(dealt), whole)
  order = np.random.default_rng(0).permutation(8)
  np.testing.assert_array_equal(dropout(X[order], 0.5, KEYS[order], 1), whole[order])


def test_rows_and_layers_have_masks_of_their_own() -> None:
  first, second = (np.asarray(dropout(X, 0.5, KEYS, layer)) > 0 for layer in (0, 1))
  for one, other in [(first, second), (first[:4], first[4:])]:
    assert 0.4 < (one == other).mean() < 0.6


@pytest.mark.parametrize(('rate', 'keys'), [(0.5, None), (0.0, KEYS)])
def test_nothing_is_dropped_when_predicting_or_at_rate_0(rate: float, keys: jax.Array | None) -> None:
  np.testing.assert_array_equal(dropout(X, rate, keys, 0), X)

"""Tests of the deep belief network against numpy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emo_jax.models import dbn

SIZES = (5, 4, 3)


def stack(seed: int = 0) -> list[dict[str, np.ndarray]]:
  rng = np.random.default_rng(seed)
  return [
    {
      'weights': rng.normal(size=(low, high)).astype(np.float32),
      'visible_bias': rng.normal(size=low).astype(np.float32),  # plays no part on the way up
      'hidden_bias': rng.normal(size=high).astype(np.float32),
    }
    for low, high in itertools.pairwise(SIZES)
  ]


def upward(layers: list[dict[str, np.ndarray]], x: np.ndarray) -> np.ndarray:
  for layer in layers:
    x = 1 / (1 + np.exp(-(x @ layer['weights'] + layer['hidden_bias'])))
  return x


@pytest.mark.parametrize('depth', [1, 2])
def test_joint_feature_stacks_the_layers_probabilities(depth: int) -> None:
  visible = np.random.default_rng(1).uniform(size=(6, 5)).astype(np.float32)
  got = dbn.joint_feature(stack()[:depth], jnp.asarray(visible))
  np.testing.assert_allclose(got, upward(stack()[:depth], visible), rtol=1e-5)


def test_scaling_uses_two_training_statistics_and_clips() -> None:
  train = np.array([[2.0, 3.0], [6.0, 10.0]], np.float32)
  statistics = dbn.scaler(train)
  assert (float(statistics['low']), float(statistics['high'])) == (2.0, 10.0)
  scaled = dbn.scale(statistics, np.array([[2.0, 10.0], [4.0, 6.0], [-5.0, 99.0]], np.float32))
  np.testing.assert_allclose(scaled, [[0, 1], [0.25, 0.5], [0, 1]])
  assert scaled.dtype == np.float32


def test_scaling_survives_features_that_never_vary() -> None:
  flat = np.full((3, 2), 4.0, np.float32)
  np.testing.assert_array_equal(dbn.scale(dbn.scaler(flat), flat), 0)


def test_a_new_head_gives_equal_scores_to_all_classes() -> None:
  head = dbn.init_head(stack(), classes=6)
  logits, _ = dbn.classify({'stack': stack(), 'head': head}, jnp.ones((2, 5)), None, dropout_rate=0.3)
  assert logits.shape == (2, 6) and not logits.any()


def test_prediction_is_the_stack_and_a_linear_head() -> None:
  rng = np.random.default_rng(2)
  head = {'kernel': rng.normal(size=(3, 4)).astype(np.float32), 'bias': rng.normal(size=4).astype(np.float32)}
  visible = rng.uniform(size=(6, 5)).astype(np.float32)
  logits, features = dbn.classify({'stack': stack(), 'head': head}, visible, None, dropout_rate=0.3)
  np.testing.assert_allclose(features, upward(stack(), visible), rtol=1e-5)
  np.testing.assert_allclose(logits, upward(stack(), visible) @ head['kernel'] + head['bias'], rtol=1e-4, atol=1e-5)


def test_the_last_layers_dropout_reaches_the_logits_but_not_the_features() -> None:
  layers, rows = stack()[:1], 64
  visible = np.random.default_rng(3).uniform(size=(rows, 5)).astype(np.float32)
  head = {'kernel': jnp.eye(4), 'bias': jnp.zeros(4)}
  keys = jax.random.split(jax.random.key(0), rows)
  logits, features = dbn.classify({'stack': layers, 'head': head}, visible, keys, dropout_rate=0.5)
  want = upward(layers, visible)
  np.testing.assert_allclose(features, want, rtol=1e-5)
  kept = np.asarray(logits) > 0
  assert 0.35 < kept.mean() < 0.65
  np.testing.assert_allclose(logits[kept], 2 * want[kept], rtol=1e-5)

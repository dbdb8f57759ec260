"""Tests of C3D against the published layers and a forward pass written out in numpy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emo_jax.models.c3d import C3D

# Sports-1M: input and output channels of each 3x3x3 convolution, inputs and outputs of each dense layer.
CONVOLUTIONS = {
  'conv1': (3, 64),
  'conv2': (64, 128),
  'conv3a': (128, 256),
  'conv3b': (256, 256),
  'conv4a': (256, 512),
  'conv4b': (512, 512),
  'conv5a': (512, 512),
  'conv5b': (512, 512),
}
DENSE = {'fc6': (8192, 4096), 'fc7': (4096, 4096), 'fc8': (4096, 487)}


def initialised(model: C3D, size: int) -> dict:
  return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, size, size, 3)))['params']


def random_variables(model: C3D, size: int) -> dict:
  rng = np.random.default_rng(0)
  spread = lambda leaf: np.sqrt(2 / math.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.1
  draw = lambda leaf: (spread(leaf) * rng.normal(size=leaf.shape)).astype(np.float32)
  return {'params': jax.tree.map(draw, initialised(model, size))}


def numpy_conv(x: np.ndarray, layer: dict) -> np.ndarray:
  padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3, 3), (1, 2, 3))
  return np.tensordot(windows, layer['kernel'], ((5, 6, 7, 4), (0, 1, 2, 3))) + layer['bias']


def numpy_pool(x: np.ndarray, window: tuple[int, int, int]) -> np.ndarray:
  for axis, step in enumerate(window, start=1):
    starts = range(0, x.shape[axis], step)
    x = np.stack([x.take(range(i, min(i + step, x.shape[axis])), axis).max(axis) for i in starts], axis)
  return x


def test_layers_are_those_of_sports_1m() -> None:
  params = initialised(C3D(487), 112)
  want = {name: {'kernel': (3, 3, 3, *io), 'bias': io[1:]} for name, io in CONVOLUTIONS.items()}
  want |= {name: {'kernel': io, 'bias': io[1:]} for name, io in DENSE.items()}
  assert jax.tree.map(lambda leaf: leaf.shape, params) == want
  by_hand = sum(27 * i * o + o for i, o in CONVOLUTIONS.values()) + sum(i * o + o for i, o in DENSE.values())
  assert by_hand == 79_991_015
  assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == by_hand


@pytest.mark.parametrize(('width', 'features'), [(1.0, 4096), (0.125, 512), (1 / 64, 64)])
def test_feature_size_scales_with_the_width(width: float, features: int) -> None:
  model, faces = C3D(6, width=width), jnp.zeros((2, 16, 16, 16, 3))
  variables = jax.eval_shape(model.init, jax.random.key(0), faces)
  logits, fc7 = jax.eval_shape(model.apply, variables, faces)
  assert (logits.shape, fc7.shape) == ((2, 6), (2, features))


def test_narrowest_network_keeps_two_channels_everywhere() -> None:
  assert initialised(C3D(6, width=1 / 1000), 16)['conv1']['kernel'].shape == (3, 3, 3, 3, 2)


def test_forward_pass_equals_numpy() -> None:
  model, size = C3D(3, width=1 / 64), 24  # 24, 12, 6, 3, 2, 1: the fourth pooling rounds up
  faces = np.random.default_rng(1).normal(size=(2, 16, size, size, 3)).astype(np.float32)
  variables = random_variables(model, size)
  params = variables['params']
  x = faces.astype(np.float64)
  for number, names in enumerate(
    (['conv1'], ['conv2'], ['conv3a', 'conv3b'], ['conv4a', 'conv4b'], ['conv5a', 'conv5b'])
  ):
    for name in names:
      x = np.maximum(numpy_conv(x, params[name]), 0)
    x = numpy_pool(x, (2 if number else 1, 2, 2))
  x = x.reshape(2, -1)
  for name in ('fc6', 'fc7'):
    x = np.maximum(x @ params[name]['kernel'] + params[name]['bias'], 0)
  logits, features = jax.jit(model.apply)(variables, faces)
  np.testing.assert_allclose(features, x, rtol=1e-4, atol=1e-4 * x.max())
  np.testing.assert_allclose(logits, x @ params['fc8']['kernel'] + params['fc8']['bias'], rtol=1e-3, atol=1e-4)
  assert features.min() == 0 and features.max() > 0


def test_dropout_needs_keys_and_changes_the_logits() -> None:
  model, faces = C3D(3, width=1 / 64), jnp.ones((2, 16, 4, 4, 3))
  variables = random_variables(model, 4)
  apply = jax.jit(model.apply)
  keys = jax.random.split(jax.random.key(0), 2)
  (plain, _), (again, _), (dropped, _) = apply(variables, faces), apply(variables, faces), apply(variables, faces, keys)
  np.testing.assert_array_equal(plain, again)
  np.testing.assert_allclose(plain[0], plain[1], atol=1e-6)  # equal rows
  assert np.abs(dropped[0] - dropped[1]).max() > 1e-6  # each row has its own mask


def test_an_unknown_norm_is_refused_by_name() -> None:
  with pytest.raises(ValueError, match="norm='batch'"):
    initialised(C3D(6, width=1 / 64, norm='batch'), 16)

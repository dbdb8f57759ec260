"""Tests of the 2-D convolution against Flax's and of local response normalisation against numpy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emo_jax.models.conv2d import Conv2D, conv2d, local_response_norm

# Kernel, stride, padding, groups, channels, features: AlexNet's five in both forms (narrower), SqueezeNet's.
LAYERS = [
  (11, 4, 2, 1, 3, 8),
  (11, 4, 0, 1, 3, 6),
  (5, 1, 2, 1, 8, 12),
  (5, 1, 2, 2, 6, 8),
  (3, 1, 1, 1, 12, 10),
  (3, 1, 1, 2, 4, 6),
  (3, 2, 0, 1, 3, 4),
  (1, 1, 0, 1, 4, 6),
  (3, 1, 0, 1, 2, 3),
  (4, 1, 2, 3, 6, 3),
]


def normal(*shape: int, seed: int = 0) -> jax.Array:
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize('layer', LAYERS)
def test_module_equals_flax_conv_in_value_and_gradients(layer: tuple[int, ...]) -> None:
  size, stride, padding, groups, channels, features = layer
  x = normal(2, 23, 20, channels)
  ours = Conv2D(features, size, stride, padding, groups)
  flax_conv = nn.Conv(features, (size, size), stride, padding, feature_group_count=groups)
  params = flax_conv.init(jax.random.key(0), x)
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, ours.init(jax.random.key(0), x))
  params['params']['bias'] = normal(features, seed=2)

  def of(module: nn.Module) -> tuple:
    y, pull_back = jax.vjp(lambda params, x: module.apply(params, x), params, x)
    return y, *pull_back(normal(*y.shape, seed=1))

  for got, want in zip(jax.tree.leaves(jax.jit(lambda: of(ours))()), jax.tree.leaves(of(flax_conv)), strict=True):
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * float(jnp.abs(want).max()))


def test_groups_are_split_on_cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
  x, kernel = normal(1, 5, 5, 4), normal(3, 3, 2, 6)  # one image: it is not halved

  def group_counts() -> list[int]:
    equations = jax.make_jaxpr(lambda x, kernel: conv2d(x, kernel, stride=2, groups=2))(x, kernel).jaxpr.eqns
    return [e.params['feature_group_count'] for e in equations if e.primitive.name == 'conv_general_dilated']

  assert group_counts() == [1, 1]
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert group_counts() == [2]


def test_module_computes_in_the_dtype_of_its_input() -> None:
  x = normal(1, 6, 6, 2).astype(jnp.bfloat16)
  params = Conv2D(3, 3, 1, 1).init(jax.random.key(0), x)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
  assert jnp.asarray(Conv2D(3, 3, 1, 1).apply(params, x)).dtype == jnp.bfloat16


@pytest.mark.parametrize(
  ('x_shape', 'kernel_shape', 'groups'),
  [((4, 4, 3), (3, 3, 3, 2), 1), ((1, 4, 4, 3), (3, 3, 1, 2), 1), ((1, 4, 4, 4), (3, 3, 2, 3), 2)],
)
def test_wrong_shapes_are_refused(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], groups: int) -> None:
  with pytest.raises(ValueError, match='conv2d in'):
    conv2d(jnp.zeros(x_shape), jnp.zeros(kernel_shape), groups=groups)


def lrn_oracle(x: np.ndarray) -> np.ndarray:
  y = np.empty_like(x)
  for i in range(x.shape[-1]):
    neighbours = x[..., max(0, i - 2) : i + 3]
    y[..., i] = x[..., i] / (1 + 1e-4 / 5 * (neighbours**2).sum(-1)) ** 0.75
  return y


@pytest.mark.parametrize('channels', [1, 3, 9])
def test_normalisation_equals_oracle(channels: int) -> None:
  x = 100 * np.random.default_rng(0).normal(size=(2, 3, 4, channels))
  np.testing.assert_allclose(local_response_norm(jnp.asarray(x, jnp.float32)), lrn_oracle(x), rtol=1e-5)


def test_gradient_of_normalisation_equals_finite_differences() -> None:
  random = np.random.default_rng(0)
  x, weight, direction = 100 * random.normal(size=(3, 9)), random.normal(size=(3, 9)), random.normal(size=(3, 9))
  x32, weight32 = jnp.asarray(x, jnp.float32), jnp.asarray(weight, jnp.float32)
  gradient = jax.grad(lambda x: jnp.vdot(local_response_norm(x), weight32))(x32)
  step = 1e-4 * direction
  slope = ((lrn_oracle(x + step) - lrn_oracle(x - step)) * weight).sum() / 2e-4
  np.testing.assert_allclose((np.asarray(gradient) * direction).sum(), slope, rtol=1e-5)

"""Tests of the 3-D convolution and pooling against XLA's own convolution and a numpy oracle."""

import functools
import itertools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from emo_jax.models.conv3d import Conv3D, conv3d, max_pool3d

# (B, T, H, W, C, O): odd sizes, one and two frames, one channel in or out, more channels in than out, wide layers.
SHAPES = [
  (2, 5, 7, 6, 3, 4),
  (1, 1, 5, 3, 4, 2),
  (3, 2, 4, 4, 1, 5),
  (2, 3, 1, 1, 6, 1),
  (1, 4, 9, 2, 1, 1),
  (2, 3, 5, 4, 64, 3),
  (1, 1, 2, 3, 70, 66),
]


def normal(*shape: int, seed: int = 0) -> jax.Array:
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def xla_conv3d(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return lax.conv_general_dilated(x, kernel, (1, 1, 1), 'SAME', dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'))


def max_pool_oracle(x: np.ndarray, window: tuple[int, int, int]) -> np.ndarray:
  sizes = [-(-size // step) for size, step in zip(x.shape[1:4], window, strict=True)]
  y = np.empty((x.shape[0], *sizes, x.shape[4]), x.dtype)
  for t, h, w in itertools.product(*map(range, sizes)):
    cut = tuple(slice(i * step, (i + 1) * step) for i, step in zip((t, h, w), window, strict=True))
    y[:, t, h, w] = x[:, *cut].max(axis=(1, 2, 3))
  return y


@pytest.mark.parametrize('stacked', [True, False])
@pytest.mark.parametrize('shape', SHAPES)
def test_value_and_gradients_equal_xla(shape: tuple[int, ...], stacked: bool) -> None:
  *x_shape, features = shape
  x, kernel = normal(*x_shape), normal(3, 3, 3, x_shape[-1], features, seed=1)
  weight = normal(*x_shape[:-1], features, seed=2)

  def value_and_gradients(convolve: Callable[..., jax.Array]) -> tuple[jax.Array, ...]:
    y, pull_back = jax.vjp(convolve, x, kernel)
    return y, *pull_back(weight)

  got = jax.jit(lambda: value_and_gradients(functools.partial(conv3d, stacked=stacked)))()
  want = jax.jit(lambda: value_and_gradients(xla_conv3d))()
  for ours, xla in zip(got, want, strict=True):
    assert ours.shape == xla.shape
    np.testing.assert_allclose(ours, xla, rtol=1e-4, atol=2e-4)


def test_platform_chooses_the_form(monkeypatch: pytest.MonkeyPatch) -> None:
  x, kernel = normal(1, 2, 3, 3, 2), normal(3, 3, 3, 2, 2)
  for platform, rank in (('cpu', 4), ('gpu', 5), ('tpu', 5)):
    monkeypatch.setattr(jax, 'default_backend', lambda platform=platform: platform)
    equations = jax.make_jaxpr(lambda x, kernel: conv3d(x, kernel))(x, kernel).jaxpr.eqns
    ranks = [e.invars[0].aval.ndim for e in equations if e.primitive.name == 'conv_general_dilated']
    assert ranks == [rank]


@pytest.mark.parametrize('stacked', [True, False])
def test_bfloat16_stays_bfloat16_and_is_close(stacked: bool) -> None:
  x, kernel = normal(2, 3, 5, 5, 3), normal(3, 3, 3, 3, 4, seed=1) / 9
  low = conv3d(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), stacked=stacked)
  assert low.dtype == jnp.bfloat16
  np.testing.assert_allclose(low.astype(jnp.float32), xla_conv3d(x, kernel), atol=0.05)


@pytest.mark.parametrize(
  ('x_shape', 'kernel_shape'),
  [((2, 4, 4, 3), (3, 3, 3, 3, 2)), ((1, 2, 4, 4, 3), (3, 3, 3, 1, 2)), ((1, 2, 4, 4, 3), (1, 3, 3, 3, 2))],
)
def test_wrong_shapes_are_refused(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...]) -> None:
  with pytest.raises(ValueError, match='conv3d needs'):
    conv3d(jnp.zeros(x_shape), jnp.zeros(kernel_shape))


def test_module_has_the_parameters_of_flax_conv() -> None:
  x = normal(2, 3, 5, 4, 3)
  ours, flax_conv = Conv3D(4), nn.Conv(4, (3, 3, 3))
  params = ours.init(jax.random.key(0), x)
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, flax_conv.init(jax.random.key(0), x))
  params['params']['bias'] = normal(4)
  got, want = jnp.asarray(ours.apply(params, x)), jnp.asarray(flax_conv.apply(params, x))
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_module_computes_in_the_dtype_of_its_input() -> None:
  x = normal(1, 2, 3, 3, 2).astype(jnp.bfloat16)
  params = Conv3D(3).init(jax.random.key(0), x)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
  assert jnp.asarray(Conv3D(3).apply(params, x)).dtype == jnp.bfloat16


@pytest.mark.parametrize('window', [(1, 2, 2), (2, 2, 2), (1, 1, 1), (2, 3, 1)])
@pytest.mark.parametrize('shape', [(2, 4, 6, 6, 3), (1, 3, 7, 5, 2), (2, 1, 1, 7, 1)])
def test_max_pool_equals_oracle(shape: tuple[int, ...], window: tuple[int, int, int]) -> None:
  x = normal(*shape) - 5.0  # all negative: padding with zeros would show
  np.testing.assert_array_equal(max_pool3d(x, window), max_pool_oracle(np.asarray(x), window))


def test_max_pool_rounds_seven_up_to_four() -> None:
  x = jnp.arange(7.0).reshape(1, 1, 1, 7, 1)
  np.testing.assert_array_equal(max_pool3d(x, (1, 2, 2)).ravel(), [1, 3, 5, 6])


@pytest.mark.parametrize('shape', [(2, 4, 6, 6, 3), (1, 3, 7, 5, 2)])
def test_max_pool_gradient_goes_to_the_largest(shape: tuple[int, ...]) -> None:
  x = normal(*shape)
  y, pull_back = jax.vjp(lambda x: max_pool3d(x, (2, 2, 2)), x)
  weight = normal(*y.shape, seed=1)
  spread = np.asarray(weight)
  for axis, size in enumerate(shape[1:4], start=1):
    spread = spread.repeat(2, axis).take(range(size), axis)
  largest = np.asarray(y)
  for axis, size in enumerate(shape[1:4], start=1):
    largest = largest.repeat(2, axis).take(range(size), axis)
  np.testing.assert_array_equal(pull_back(weight)[0], np.where(np.asarray(x) == largest, spread, 0))


def test_max_pool_gradient_of_ties_keeps_its_sum() -> None:
  gradient = jax.grad(lambda x: max_pool3d(x, (2, 2, 2)).sum())(jnp.zeros((1, 3, 3, 3, 1)))
  assert gradient.min() > 0
  assert gradient.sum() == 8


def test_max_pool_keeps_bfloat16() -> None:
  x = normal(1, 2, 3, 3, 2).astype(jnp.bfloat16)
  assert max_pool3d(x, (2, 2, 2)).dtype == jnp.bfloat16


@pytest.mark.parametrize(('shape', 'window'), [((2, 4, 4, 3), (1, 2, 2)), ((1, 2, 4, 4, 3), (2, 0, 2))])
def test_max_pool_refuses_wrong_arguments(shape: tuple[int, ...], window: tuple[int, int, int]) -> None:
  with pytest.raises(ValueError, match='max_pool3d needs'):
    max_pool3d(jnp.zeros(shape), window)


def test_gradients_agree_under_jit_and_pmap() -> None:
  devices = jax.local_device_count()
  x, kernel = normal(devices, 2, 3, 5, 5, 2), normal(3, 3, 3, 2, 3, seed=1)

  def loss(kernel: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.sum(max_pool3d(nn.relu(conv3d(x, kernel)), (1, 2, 2)) ** 2)

  def summed_gradient(kernel: jax.Array, x: jax.Array) -> jax.Array:
    return lax.psum(jax.grad(loss)(kernel, x), 'batch')

  mapped = jax.pmap(summed_gradient, axis_name='batch', in_axes=(None, 0), out_axes=None)(kernel, x)
  whole = jax.jit(jax.grad(loss))(kernel, x.reshape(-1, *x.shape[2:]))
  np.testing.assert_allclose(mapped, whole, rtol=1e-4, atol=1e-3)

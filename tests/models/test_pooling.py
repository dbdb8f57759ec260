"""Tests of maximum pooling against a numpy oracle, Flax's own pooling and its gradient."""

import itertools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emo_jax.models.pooling import max_pool2d, max_pool3d, max_pool3d_same


def normal(*shape: int, seed: int = 0) -> jax.Array:
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def ceiling_oracle(x: np.ndarray, window: tuple[int, int, int]) -> np.ndarray:
  sizes = [-(-size // step) for size, step in zip(x.shape[1:4], window, strict=True)]
  y = np.empty((x.shape[0], *sizes, x.shape[4]), x.dtype)
  for t, h, w in itertools.product(*map(range, sizes)):
    cut = tuple(slice(i * step, (i + 1) * step) for i, step in zip((t, h, w), window, strict=True))
    y[:, t, h, w] = x[:, *cut].max(axis=(1, 2, 3))
  return y


def assert_gradients_equal(ours: Callable, other: Callable, x: jax.Array) -> None:
  """Without ties there is one answer."""
  y, pull_back = jax.vjp(ours, x)
  want, other_pull_back = jax.vjp(other, x)
  np.testing.assert_array_equal(y, want)
  weight = normal(*y.shape, seed=1)
  np.testing.assert_allclose(pull_back(weight)[0], other_pull_back(weight)[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('window', [(1, 2, 2), (2, 2, 2), (1, 1, 1), (2, 3, 1)])
@pytest.mark.parametrize('shape', [(2, 4, 6, 6, 3), (1, 3, 7, 5, 2), (2, 1, 1, 7, 1)])
def test_rounding_up_equals_oracle(shape: tuple[int, ...], window: tuple[int, int, int]) -> None:
  x = normal(*shape) - 5.0  # all negative: padding with zeros would show
  np.testing.assert_array_equal(max_pool3d(x, window), ceiling_oracle(np.asarray(x), window))


def test_seven_rounds_up_to_four() -> None:
  x = jnp.arange(7.0).reshape(1, 1, 1, 7, 1)
  np.testing.assert_array_equal(max_pool3d(x, (1, 2, 2)).ravel(), [1, 3, 5, 6])


@pytest.mark.parametrize('shape', [(2, 4, 6, 6, 3), (1, 3, 7, 5, 2)])
def test_rounding_up_passes_gradients_to_the_largest(shape: tuple[int, ...]) -> None:
  padding = [(0, -size % 2) for size in shape[1:4]]
  assert_gradients_equal(
    lambda x: max_pool3d(x, (2, 2, 2)),
    lambda x: nn.max_pool(x, (2, 2, 2), (2, 2, 2), padding),
    normal(*shape) - 5.0,
  )


@pytest.mark.parametrize(
  ('window', 'strides'),
  [
    ((3, 3, 3), (1, 1, 1)),
    ((1, 3, 3), (1, 2, 2)),
    ((3, 3, 3), (2, 2, 2)),
    ((2, 2, 2), (2, 2, 2)),
    ((2, 1, 5), (3, 2, 2)),
  ],
)
@pytest.mark.parametrize('shape', [(2, 4, 6, 8, 3), (1, 3, 7, 5, 2), (1, 1, 1, 2, 1)])
def test_same_equals_flax(shape: tuple[int, ...], window: tuple[int, ...], strides: tuple[int, ...]) -> None:
  assert_gradients_equal(
    lambda x: max_pool3d_same(x, window, strides),
    lambda x: nn.max_pool(x, window, strides, 'SAME'),
    normal(*shape) - 5.0,
  )


@pytest.mark.parametrize(
  ('size', 'window', 'stride'), [(13, 3, 2), (14, 3, 2), (7, 3, 1), (9, 2, 4), (8, 5, 2), (3, 3, 2)]
)
def test_2d_equals_flax(size: int, window: int, stride: int) -> None:
  assert_gradients_equal(
    lambda x: max_pool2d(x, window, stride),
    lambda x: nn.max_pool(x, (window, window), (stride, stride)),
    normal(2, size, size + 2, 3) - 5.0,
  )


def test_ties_give_each_window_once() -> None:
  """As after a ReLU, where zeros tie: what comes back sums to what went in."""
  x = nn.relu(normal(2, 9, 9, 4) - 0.5)
  y, pull_back = jax.vjp(lambda x: max_pool2d(x, 3, 2), x)
  weight = normal(*y.shape, seed=1)
  np.testing.assert_allclose(pull_back(weight)[0].sum((1, 2)), weight.sum((1, 2)), rtol=1e-4, atol=1e-5)
  assert jax.grad(lambda x: max_pool3d(x, (2, 2, 2)).sum())(jnp.zeros((1, 3, 3, 3, 1))).sum() == 8


def test_gradients_agree_under_jit_vmap_and_pmap() -> None:
  devices = jax.local_device_count()
  x = normal(devices, 2, 5, 5, 3)
  gradient = jax.grad(lambda x: jnp.sum(max_pool2d(x, 3, 2) ** 2))
  want = gradient(x.reshape(-1, 5, 5, 3)).reshape(x.shape)
  np.testing.assert_allclose(jax.jit(jax.vmap(gradient))(x), want, rtol=1e-6)
  np.testing.assert_allclose(jax.pmap(gradient)(x), want, rtol=1e-6)


def test_bfloat16_is_kept() -> None:
  x = normal(1, 2, 3, 3, 2).astype(jnp.bfloat16)
  y, pull_back = jax.vjp(lambda x: max_pool3d(x, (2, 2, 2)), x)
  assert y.dtype == pull_back(y)[0].dtype == jnp.bfloat16


def test_no_windowed_reduction_is_left_to_xla() -> None:
  """Its gradient is what these replace."""
  lowered = jax.jit(jax.grad(lambda x: max_pool3d_same(x, (3, 3, 3), (2, 2, 2)).sum())).lower(normal(1, 4, 4, 4, 2))
  assert 'select_and_scatter' not in lowered.as_text()


@pytest.mark.parametrize(('shape', 'window'), [((2, 4, 4, 3), (1, 2, 2)), ((1, 2, 4, 4, 3), (2, 0, 2))])
def test_wrong_arguments_are_refused(shape: tuple[int, ...], window: tuple[int, int, int]) -> None:
  with pytest.raises(ValueError, match='max_pool3d needs'):
    max_pool3d(jnp.zeros(shape), window)
  with pytest.raises(ValueError, match='max_pool3d_same needs'):
    max_pool3d_same(jnp.zeros(shape), window, window)


@pytest.mark.parametrize('shape', [(2, 2, 5, 1), (2, 5, 5)])
def test_2d_refuses_too_small_images(shape: tuple[int, ...]) -> None:
  with pytest.raises(ValueError, match='max_pool2d needs'):
    max_pool2d(jnp.zeros(shape), 3, 2)


@pytest.mark.parametrize('window', [(1, 2, 2), (2, 2, 2), (2, 3, 1)])
def test_the_form_for_accelerators_gives_the_same(
  window: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
  x = normal(2, 3, 7, 6, 2) - 5.0
  on_cpu = jax.vjp(lambda x: max_pool3d(x, window), x)
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  y, pull_back = jax.vjp(lambda x: max_pool3d(x, window), x)
  np.testing.assert_array_equal(y, on_cpu[0])
  weight = normal(*y.shape, seed=1)
  np.testing.assert_allclose(pull_back(weight)[0], on_cpu[1](weight)[0], rtol=1e-6, atol=1e-6)

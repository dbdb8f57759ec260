"""Tests of the 3-D convolution, all its forms and the choice among them, against XLA's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from emo_jax.models import conv3d, conv_table
from emo_jax.models.conv3d import Conv3D
from emo_jax.models.pooling import max_pool3d

ONE = (1, 1, 1)
# (B, T, H, W, C, O), kernel, strides: odd and even sizes, single frames, one channel in or out, wide layers; the
# networks' kernels and strides, and some of no network.
CASES = [
  ((2, 5, 7, 6, 3, 4), (3, 3, 3), ONE),
  ((1, 1, 5, 3, 4, 2), (3, 3, 3), ONE),
  ((3, 2, 4, 4, 1, 5), (3, 3, 3), ONE),
  ((2, 3, 1, 1, 6, 1), (3, 3, 3), ONE),
  ((1, 1, 2, 3, 70, 66), (3, 3, 3), ONE),
  ((2, 1, 5, 6, 3, 4), (1, 3, 3), ONE),
  ((2, 4, 3, 5, 3, 2), (3, 1, 3), ONE),
  ((2, 1, 6, 7, 3, 4), (1, 5, 5), ONE),
  ((2, 3, 4, 5, 6, 4), (1, 1, 1), ONE),
  ((2, 5, 9, 8, 3, 4), (7, 7, 7), (2, 2, 2)),
  ((1, 4, 8, 7, 3, 2), (3, 3, 3), (1, 2, 2)),
  ((2, 3, 5, 4, 4, 3), (1, 1, 1), (2, 1, 2)),
]
FORMS = [
  (case, name, form)
  for case in CASES
  for name in ('CONVOLVE', 'INPUT_GRADIENT', 'KERNEL_GRADIENT')
  for form in conv3d.forms(getattr(conv3d, name), *case[1:])
]


def normal(*shape: int, seed: int = 0) -> jax.Array:
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def xla(x: jax.Array, kernel: jax.Array, *, strides: conv3d.Window = ONE) -> jax.Array:
  return lax.conv_general_dilated(x, kernel, strides, 'SAME', dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'))


def given(shape: tuple[int, ...], kernel: conv3d.Window, strides: conv3d.Window) -> tuple[jax.Array, ...]:
  """Input, kernel, and a gradient of the output."""
  *x_shape, features = shape
  size = [-(-n // step) for n, step in zip(x_shape[1:4], strides, strict=True)]
  dy = normal(x_shape[0], *size, features, seed=2)
  return normal(*x_shape), normal(*kernel, x_shape[-1], features, seed=1), dy


def assert_close(got: jax.Array, want: jax.Array) -> None:
  """Within float error of the largest value."""
  assert got.shape == want.shape
  assert got.dtype == want.dtype
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * float(jnp.abs(want).max()))


@pytest.mark.parametrize(('case', 'name', 'form'), FORMS)
def test_every_form_equals_xla(case: tuple, name: str, form: str) -> None:
  strides = case[2]
  x, kernel, dy = given(*case)
  y, pull_back = jax.vjp(lambda x, kernel: xla(x, kernel, strides=strides), x, kernel)
  want = dict(zip(('CONVOLVE', 'INPUT_GRADIENT', 'KERNEL_GRADIENT'), (y, *pull_back(dy)), strict=True))[name]
  operands = (x, kernel) if name == 'CONVOLVE' else (x, kernel, dy)
  assert_close(jax.jit(lambda *of: getattr(conv3d, name)[form](*of, strides))(*operands), want)


@pytest.mark.parametrize('case', CASES)
def test_value_and_gradients_equal_xla(case: tuple) -> None:
  strides = case[2]
  x, kernel, dy = given(*case)

  def value_and_gradients(convolve, x, kernel, dy):
    y, pull_back = jax.vjp(lambda x, kernel: convolve(x, kernel, strides=strides), x, kernel)
    return y, *pull_back(dy)

  got = jax.jit(lambda *of: value_and_gradients(conv3d.conv3d, *of))(x, kernel, dy)
  for ours, want in zip(got, value_and_gradients(xla, x, kernel, dy), strict=True):
    assert_close(ours, want)


def test_forms_that_cannot_do_a_kernel_are_left_out() -> None:
  assert 'winograd' in conv3d.forms(conv3d.CONVOLVE, (3, 1, 3), ONE)
  assert 'winograd' not in conv3d.forms(conv3d.CONVOLVE, (1, 5, 5), ONE)
  assert 'winograd' not in conv3d.forms(conv3d.CONVOLVE, (3, 3, 3), (1, 2, 1))
  assert 'taps' not in conv3d.forms(conv3d.KERNEL_GRADIENT, (3, 3, 3), (2, 1, 1))


@pytest.mark.parametrize('name', ['CONVOLVE', 'INPUT_GRADIENT', 'KERNEL_GRADIENT'])
def test_table_names_forms_that_can_do_its_layers(name: str) -> None:
  table: conv_table.Table = getattr(conv_table, name)
  assert table
  for layer, times in table.items():
    assert set(times) <= set(conv3d.forms(getattr(conv3d, name), layer.kernel, layer.strides))


def test_a_measured_layer_gets_its_fastest_form() -> None:
  for layer, times in conv_table.CONVOLVE.items():
    shapes = (*layer.size, layer.channels), (*layer.kernel, layer.channels, layer.features)
    chosen = conv3d.fastest(conv_table.CONVOLVE, *shapes, layer.strides)
    assert times[chosen] <= min(times.values()) + 3
    assert chosen == 'winograd' or times[chosen] == min(ms for form, ms in times.items() if form != 'winograd')


def test_what_compiles_long_has_to_save_three_milliseconds() -> None:
  layer = conv_table.Layer((3, 3, 3), ONE, (1, 2, 3, 3), 2, 4)
  shapes = (1, 2, 3, 3, 2), (3, 3, 3, 2, 4), ONE
  assert conv3d.fastest({layer: {'winograd': 7.1, 'summed': 10.0}}, *shapes) == 'summed'
  assert conv3d.fastest({layer: {'winograd': 6.9, 'summed': 10.0}}, *shapes) == 'winograd'
  smaller = (1, 2, 3, 3, 2), (3, 3, 3, 2, 2), ONE  # half the work, and half of what is saved
  assert conv3d.fastest({layer: {'winograd': 6.9, 'summed': 10.0}}, *smaller) == 'summed'


def test_other_layers_get_the_form_of_the_nearest() -> None:
  def layer(clips: int, channels: int, kernel: conv3d.Window = (3, 3, 3)) -> conv_table.Layer:
    return conv_table.Layer(kernel, ONE, (clips, 4, 4, 4), channels, 10)

  table = {layer(1, 10): {'few': 1.0, 'x': 2.0}, layer(1, 100): {'x': 2.0, 'wide': 1.0}, layer(50, 10): {'many': 1.0}}
  table[layer(1, 10, (1, 3, 3))] = {'flat': 1.0}

  def chosen(clips: int, channels: int, kernel: conv3d.Window = (3, 3, 3), strides: conv3d.Window = ONE) -> str:
    return conv3d.fastest(table, (clips, 4, 4, 4, channels), (*kernel, channels, 10), strides)

  assert chosen(1, 30) == 'few'  # 30 is nearer to 10 than to 100 as a ratio, not as a difference from 50
  assert chosen(1, 33) == 'wide'
  assert chosen(6, 10) == 'few'
  assert chosen(8, 10) == 'many'
  assert chosen(20, 40) == 'wide'  # 2.5 times the channels, 20 times the positions; not 4 and 2.5 times
  assert chosen(50, 10, (1, 3, 3)) == 'flat'
  assert chosen(1, 10, (5, 3, 3)) == chosen(1, 10, strides=(2, 1, 1)) == 'stacked'


@pytest.mark.parametrize('name', ['CONVOLVE', 'INPUT_GRADIENT', 'KERNEL_GRADIENT'])
def test_each_pass_takes_its_own_choice(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
  """Of the forward pass and the two gradients, one is made to yield zeros."""
  form = 'marked'
  layer = conv_table.Layer((3, 3, 3), ONE, (1, 2, 3, 3), 2, 4)
  monkeypatch.setitem(getattr(conv_table, name), layer, {form: 0.0})
  shapes = {'CONVOLVE': (1, 2, 3, 3, 4), 'INPUT_GRADIENT': (1, 2, 3, 3, 2), 'KERNEL_GRADIENT': (3, 3, 3, 2, 4)}
  monkeypatch.setitem(getattr(conv3d, name), form, lambda *of: jnp.zeros(shapes[name]))
  x, kernel, dy = given((1, 2, 3, 3, 2, 4), (3, 3, 3), ONE)
  y, pull_back = jax.vjp(conv3d.conv3d, x, kernel)
  results = dict(zip(('CONVOLVE', 'INPUT_GRADIENT', 'KERNEL_GRADIENT'), (y, *pull_back(dy)), strict=True))
  assert {key: not value.any() for key, value in results.items()} == {key: key == name for key in results}


@pytest.mark.parametrize(
  ('platform', 'dtype', 'channels', 'dimensions'),
  [('gpu', 'float32', 8, 5), ('gpu', 'bfloat16', 3, 4), ('tpu', 'float32', 3, 5), ('cpu', 'bfloat16', 3, 5)],
)
def test_accelerators_and_other_types_get_xlas_own_but_for_few_channels_on_a_gpu(
  monkeypatch: pytest.MonkeyPatch, platform: str, dtype: str, channels: int, dimensions: int
) -> None:
  monkeypatch.setattr(jax, 'default_backend', lambda: platform)
  x, kernel = normal(1, 2, 3, 3, channels).astype(dtype), normal(3, 3, 3, channels, 2).astype(dtype)
  equations = jax.make_jaxpr(lambda *of: conv3d.conv3d(*of))(x, kernel).jaxpr.eqns  # traced anew for each platform
  made = [e.invars[0].aval.ndim for e in equations if e.primitive.name == 'conv_general_dilated']
  assert made == [dimensions]


def test_bfloat16_stays_bfloat16_and_is_close() -> None:
  x, kernel = normal(2, 3, 5, 5, 3), normal(3, 3, 3, 3, 4, seed=1) / 9
  low = conv3d.conv3d(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
  assert low.dtype == jnp.bfloat16
  np.testing.assert_allclose(low.astype(jnp.float32), xla(x, kernel), atol=0.05)


@pytest.mark.parametrize(
  ('x_shape', 'kernel_shape'),
  [((2, 4, 4, 3), (3, 3, 3, 3, 2)), ((1, 2, 4, 4, 3), (3, 3, 3, 1, 2)), ((1, 2, 4, 4, 3), (1, 2, 3, 3, 2))],
)
def test_wrong_shapes_are_refused(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...]) -> None:
  with pytest.raises(ValueError, match='conv3d needs'):
    conv3d.conv3d(jnp.zeros(x_shape), jnp.zeros(kernel_shape))


@pytest.mark.parametrize(('kernel', 'strides'), [((3, 3, 3), ONE), ((1, 1, 1), ONE), ((5, 3, 3), (2, 2, 1))])
def test_module_equals_flax_conv(kernel: conv3d.Window, strides: conv3d.Window) -> None:
  x = normal(2, 3, 5, 4, 3)
  ours, flax_conv = Conv3D(4, kernel, strides), nn.Conv(4, kernel, strides)
  params = ours.init(jax.random.key(0), x)
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, flax_conv.init(jax.random.key(0), x))
  params['params']['bias'] = normal(4)
  got, want = jnp.asarray(ours.apply(params, x)), jnp.asarray(flax_conv.apply(params, x))
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_module_without_bias_has_a_kernel_alone() -> None:
  x = normal(1, 2, 3, 3, 2)
  params = Conv3D(4, use_bias=False).init(jax.random.key(0), x)
  assert list(params['params']) == ['kernel']
  assert_close(jnp.asarray(Conv3D(4, use_bias=False).apply(params, x)), xla(x, params['params']['kernel']))


def test_module_computes_in_the_dtype_of_its_input() -> None:
  x = normal(1, 2, 3, 3, 2).astype(jnp.bfloat16)
  params = Conv3D(3).init(jax.random.key(0), x)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
  assert jnp.asarray(Conv3D(3).apply(params, x)).dtype == jnp.bfloat16


def test_gradients_agree_under_vmap_jit_and_pmap() -> None:
  devices = jax.local_device_count()
  x, kernel = normal(devices, 2, 3, 5, 5, 2), normal(3, 3, 3, 2, 3, seed=1)

  def loss(kernel: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.sum(max_pool3d(nn.relu(conv3d.conv3d(x, kernel)), (1, 2, 2)) ** 2)

  def summed_gradient(kernel: jax.Array, x: jax.Array) -> jax.Array:
    return lax.psum(jax.grad(loss)(kernel, x), 'batch')

  whole = jax.jit(jax.grad(loss))(kernel, x.reshape(-1, *x.shape[2:]))
  mapped = jax.pmap(summed_gradient, axis_name='batch', in_axes=(None, 0), out_axes=None)(kernel, x)
  one_by_one = jax.vmap(lambda row: jax.grad(loss)(kernel, row[None]))(x.reshape(-1, *x.shape[2:]))
  assert_close(mapped, whole)
  assert_close(one_by_one.sum(0), whole)

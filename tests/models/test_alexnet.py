"""Tests of AlexNet against published parameter counts and a forward pass written out in numpy."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emo_jax.models.alexnet import AlexNet, head, local_response_norm, normalised


def shapes(model: AlexNet, size: int) -> dict[str, dict[str, tuple[int, ...]]]:
  variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
  return jax.tree.map(lambda leaf: leaf.shape, variables['params'])


def count(tree: dict) -> int:
  return sum(math.prod(shape) for shape in jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, tuple)))


def numpy_conv(x: np.ndarray, layer: dict, stride: int, padding: int, groups: int) -> np.ndarray:
  kernel, bias = (np.asarray(layer[name], np.float64) for name in ('kernel', 'bias'))
  x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))[:, ::stride, ::stride]
  parts = zip(np.split(windows, groups, axis=3), np.split(kernel, groups, axis=3), strict=True)
  return np.concatenate([np.tensordot(*part, ((4, 5, 3), (0, 1, 2))) for part in parts], -1) + bias


def numpy_pool(x: np.ndarray) -> np.ndarray:
  return np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::2, ::2].max((-2, -1))


def numpy_response_norm(x: np.ndarray) -> np.ndarray:
  y = np.empty_like(x)
  for c in range(x.shape[-1]):
    around = x[..., max(c - 2, 0) : c + 3]
    y[..., c] = x[..., c] / (1 + 1e-4 / 5 * (around**2).sum(-1)) ** 0.75
  return y


@pytest.mark.parametrize(('form', 'size', 'published'), [('single', 224, 61_100_840), ('caffe', 227, 60_965_224)])
def test_parameter_count_is_the_published_one(form: str, size: int, published: int) -> None:
  assert count(shapes(AlexNet(1000, form=form), size)) == published


@pytest.mark.parametrize('size', [224, 227])
def test_single_tower_has_torchvisions_layers(size: int) -> None:
  kernels = {name: layer['kernel'] for name, layer in shapes(AlexNet(6), size).items()}
  assert kernels == {
    'conv1': (11, 11, 3, 64),
    'conv2': (5, 5, 64, 192),
    'conv3': (3, 3, 192, 384),
    'conv4': (3, 3, 384, 256),
    'conv5': (3, 3, 256, 256),
    'fc6': (9216, 4096),
    'fc7': (4096, 4096),
    'fc8': (4096, 6),
  }


def test_original_form_is_grouped_as_in_caffe() -> None:
  kernels = {name: layer['kernel'] for name, layer in shapes(AlexNet(6, form='caffe'), 227).items()}
  assert kernels == {
    'conv1': (11, 11, 3, 96),
    'conv2': (5, 5, 48, 256),
    'conv3': (3, 3, 256, 384),
    'conv4': (3, 3, 192, 384),
    'conv5': (3, 3, 192, 256),
    'fc6': (9216, 4096),
    'fc7': (4096, 4096),
    'fc8': (4096, 6),
  }


@pytest.mark.parametrize(('width', 'features'), [(1.0, 4096), (0.25, 1024), (1 / 32, 128)])
@pytest.mark.parametrize('form', ['single', 'caffe'])
def test_feature_size_scales_with_the_width(form: str, width: float, features: int) -> None:
  model = AlexNet(5, width=width, form=form)
  images = jnp.zeros((3, 67, 67, 3))
  variables = jax.eval_shape(model.init, jax.random.key(0), images)
  logits, fc7 = jax.eval_shape(model.apply, variables, images)
  assert (logits.shape, fc7.shape) == ((3, 5), (3, features))


@pytest.mark.parametrize(('form', 'smallest'), [('single', 63), ('caffe', 67)])
def test_smallest_images_work_and_smaller_ones_are_refused(form: str, smallest: int) -> None:
  model = AlexNet(6, width=1 / 32, form=form)
  assert shapes(model, smallest)['fc6']['kernel'][0] == {'single': 8, 'caffe': 8}[form]  # one pixel, 8 channels
  for shape in [(1, smallest - 1, smallest, 3), (1, smallest, smallest - 1, 3)]:
    with pytest.raises(ValueError, match=f'too small.*at least {smallest} pixels'):
      jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))


@pytest.mark.parametrize(('field', 'word'), [('form', 'vgg'), ('norm', 'batch')])
def test_an_unknown_word_is_refused_by_name(field: str, word: str) -> None:
  with pytest.raises(ValueError, match=f"{field}='{word}'"):
    shapes(AlexNet(6, width=1 / 32, **{field: word}), 67)


@pytest.mark.parametrize('form', ['single', 'caffe'])
def test_forward_pass_equals_numpy(form: str) -> None:
  model = AlexNet(3, width=1 / 16, form=form)
  rng = np.random.default_rng(0)
  images = rng.normal(size=(2, 75, 67, 3)).astype(np.float32) * 20
  spread = lambda shape: np.sqrt(2 / math.prod(shape[:-1])) if len(shape) > 1 else 0.1
  draw = lambda shape: (spread(shape) * rng.normal(size=shape)).astype(np.float32)
  like = jax.eval_shape(model.init, jax.random.key(0), images)
  variables = jax.tree.map(lambda leaf: draw(leaf.shape), like)
  params = variables['params']
  layers = {  # stride, padding, groups, pooled
    'single': [(4, 2, 1, True), (1, 2, 1, True), (1, 1, 1, False), (1, 1, 1, False), (1, 1, 1, True)],
    'caffe': [(4, 0, 1, True), (1, 2, 2, True), (1, 1, 1, False), (1, 1, 2, False), (1, 1, 2, True)],
  }[form]
  x = images.astype(np.float64)
  for number, (stride, padding, groups, pooled) in enumerate(layers, start=1):
    x = np.maximum(numpy_conv(x, params[f'conv{number}'], stride, padding, groups), 0)
    if form == 'caffe' and number <= 2:
      x = numpy_response_norm(x)
    if pooled:
      x = numpy_pool(x)
  x = x.reshape(2, -1)
  for name in ('fc6', 'fc7'):
    x = np.maximum(x @ params[name]['kernel'] + params[name]['bias'], 0)
  logits, features = jax.jit(model.apply)(variables, images)
  np.testing.assert_allclose(features, x, rtol=1e-4, atol=1e-4 * x.max())
  want = x @ params['fc8']['kernel'] + params['fc8']['bias']
  np.testing.assert_allclose(logits, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
  assert features.min() == 0 and features.max() > 0


@pytest.mark.parametrize('channels', [3, 5, 9])
def test_response_norm_equals_a_loop_with_caffes_constants(channels: int) -> None:
  x = np.random.default_rng(0).normal(size=(2, 3, 4, channels)) * 300  # large enough for the norm to matter
  got = local_response_norm(jnp.asarray(x, jnp.float32))
  want = numpy_response_norm(x)
  assert np.abs(want / x - 1).max() > 0.3
  np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize(('channels', 'groups'), [(16, 8), (12, 2), (2, 1), (6, 1)])
def test_group_norm_uses_one_rows_groups_alone(channels: int, groups: int) -> None:
  import flax.linen as nn

  class Norm(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
      return normalised(x, 'group')

  x = np.random.default_rng(0).normal(2, 3, size=(3, 4, 5, channels)).astype(np.float32)
  got, _ = Norm().init_with_output(jax.random.key(0), x)
  want = np.empty_like(x)
  for row, group in itertools.product(range(3), range(groups)):
    part = slice(group * channels // groups, (group + 1) * channels // groups)
    values = x[row, :, :, part]
    want[row, :, :, part] = (values - values.mean()) / np.sqrt(values.var() + 1e-6)
  np.testing.assert_allclose(got, want, atol=1e-4)


def test_features_are_taken_before_dropout_and_each_layer_has_its_own_mask() -> None:
  import flax.linen as nn

  units = 400

  class Head(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, keys: jax.Array | None) -> tuple[jax.Array, jax.Array]:
      return head(x, keys, hidden=units, classes=units, dropout_rate=0.5)

  # fc6 gives ones; fc7 and fc8 pass on what they get: features = 2 * mask6, logits = 4 * mask6 * mask7.
  eye, zero = jnp.eye(units), jnp.zeros(units)
  params = {
    'fc6': {'kernel': jnp.zeros((1, units)), 'bias': jnp.ones(units)},
    'fc7': {'kernel': eye, 'bias': zero},
    'fc8': {'kernel': eye, 'bias': zero},
  }
  keys = jax.random.split(jax.random.key(0), 2)
  logits, features = map(np.asarray, Head().apply({'params': params}, jnp.zeros((2, 1)), keys))
  assert set(np.unique(features)) == {0.0, 2.0}
  assert set(np.unique(logits)) == {0.0, 4.0}
  kept = features > 0
  assert np.all(logits[~kept] == 0)
  assert 0.4 < kept.mean() < 0.6
  assert 0.4 < (logits[kept] > 0).mean() < 0.6
  logits, features = map(np.asarray, Head().apply({'params': params}, jnp.zeros((2, 1)), None))
  assert np.all(features == 1) and np.all(logits == 1)

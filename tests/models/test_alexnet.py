"""Tests of AlexNet against published parameter counts and a forward pass written out in numpy."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emo_jax.models.alexnet import AlexNet, classified, dense, local_response_norm, normalised


def shapes(model: AlexNet, size: int) -> dict[str, dict[str, tuple[int, ...]]]:
  variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
  return jax.tree.map(lambda leaf: leaf.shape, variables['params'])


def count(tree: dict) -> int:
  return sum(math.prod(shape) for shape in jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, tuple)))


def random_variables(model: AlexNet, size: int) -> dict:
  rng = np.random.default_rng(0)
  spread = lambda shape: np.sqrt(2 / math.prod(shape[:-1])) if len(shape) > 1 else 0.1
  draw = lambda shape: (spread(shape) * rng.normal(size=shape)).astype(np.float32)
  return {'params': jax.tree.map(draw, shapes(model, size), is_leaf=lambda x: isinstance(x, tuple))}


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


@pytest.mark.parametrize(
  ('form', 'size', 'published'),
  [
    ('single', 224, 61_100_840),  # torchvision's
    ('single', 227, 61_100_840),
    ('caffe', 227, 60_965_224),
    ('caffenet', 227, 60_965_224),
  ],
)
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


@pytest.mark.parametrize('form', ['caffe', 'caffenet'])
def test_original_forms_are_grouped_as_in_caffe(form: str) -> None:
  kernels = {name: layer['kernel'] for name, layer in shapes(AlexNet(6, form=form), 227).items()}
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
@pytest.mark.parametrize('form', ['single', 'caffe', 'caffenet'])
def test_feature_size_scales_with_the_width(form: str, width: float, features: int) -> None:
  model = AlexNet(5, width=width, form=form)
  images = jnp.zeros((3, 67, 67, 3))
  variables = jax.eval_shape(model.init, jax.random.key(0), images)
  logits, fc7 = jax.eval_shape(model.apply, variables, images)
  assert (logits.shape, fc7.shape) == ((3, 5), (3, features))


@pytest.mark.parametrize(('form', 'smallest'), [('single', 63), ('caffe', 67), ('caffenet', 67)])
def test_smallest_images_work_and_smaller_ones_are_refused(form: str, smallest: int) -> None:
  model = AlexNet(6, width=1 / 32, form=form)
  assert shapes(model, smallest)['fc6']['kernel'][0] == 8  # one pixel, 8 channels
  for shape in [(1, smallest - 1, smallest, 3), (1, smallest, smallest - 1, 3)]:
    with pytest.raises(ValueError, match=f'too small.*at least {smallest} pixels'):
      jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))


@pytest.mark.parametrize(('field', 'word'), [('form', 'vgg'), ('norm', 'batch'), ('trained', 'fc7')])
def test_an_unknown_word_is_refused_by_name(field: str, word: str) -> None:
  with pytest.raises(ValueError, match=f"{field}='{word}'"):
    shapes(AlexNet(6, width=1 / 32, **{field: word}), 67)


@pytest.mark.parametrize('form', ['single', 'caffe', 'caffenet'])
def test_forward_pass_equals_numpy(form: str) -> None:
  model = AlexNet(3, width=1 / 16, form=form)
  rng = np.random.default_rng(0)
  images = rng.normal(size=(2, 75, 67, 3)).astype(np.float32) * 20
  variables = random_variables(model, 67)
  params = variables['params']
  grouped = [(4, 0, 1, True), (1, 2, 2, True), (1, 1, 1, False), (1, 1, 2, False), (1, 1, 2, True)]
  layers = {  # stride, padding, groups, pooled
    'single': [(4, 2, 1, True), (1, 2, 1, True), (1, 1, 1, False), (1, 1, 1, False), (1, 1, 1, True)],
    'caffe': grouped,
    'caffenet': grouped,
  }[form]
  x = images.astype(np.float64)
  for number, (stride, padding, groups, pooled) in enumerate(layers, start=1):
    x = np.maximum(numpy_conv(x, params[f'conv{number}'], stride, padding, groups), 0)
    if form == 'caffe' and number <= 2:
      x = numpy_response_norm(x)
    if pooled:
      x = numpy_pool(x)
    if form == 'caffenet' and number <= 2:
      x = numpy_response_norm(x)
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
      for layer in ('fc6', 'fc7'):
        x = dense(x, layer, keys, units=units, rate=0.5)
      return classified(x, keys, classes=units, rate=0.5)

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


TRAINED = {'all': 8, 'last': 3, 'head': 1}  # layers that are trained, from the last


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('trained', TRAINED)
def test_whole_is_the_rest_on_the_trunk(trained: str, dtype: jnp.dtype) -> None:
  model = AlexNet(6, width=1 / 32, form='caffe', trained=trained, dtype=dtype)
  images = np.random.default_rng(0).normal(size=(2, 67, 67, 3)).astype(np.float32)
  variables = random_variables(model, 67)
  trunk = model.apply(variables, images, part='trunk')
  whole, rest = model.apply(variables, images), model.apply(variables, trunk, part='rest')
  for ours, parts in zip(whole, rest, strict=True):
    np.testing.assert_array_equal(ours, parts)
    assert ours.dtype == parts.dtype == trunk.dtype == np.float32
  assert trunk.shape[1:] == {'all': (67, 67, 3), 'last': (1, 1, 8), 'head': (128,)}[trained]


@pytest.mark.parametrize(('trained', 'count'), TRAINED.items())
def test_rest_has_the_trained_parameters_alone(trained: str, count: int) -> None:
  model, images = AlexNet(6, width=1 / 32, trained=trained), jnp.zeros((1, 67, 67, 3))
  whole = jax.eval_shape(model.init, jax.random.key(0), images)['params']
  trunk = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images, part='trunk')[0])
  rest = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, part='rest'), trunk)['params']
  assert jax.tree.map(jnp.shape, rest) == jax.tree.map(jnp.shape, {name: whole[name] for name in [*whole][-count:]})


def test_frozen_layers_drop_nothing() -> None:
  images, keys = np.ones((1, 67, 67, 3), np.float32), jax.random.split(jax.random.key(0), 1)
  frozen, free = (AlexNet(6, width=1 / 32, trained=trained) for trained in ('head', 'last'))
  variables = random_variables(frozen, 67)
  logits, features = frozen.apply(variables, images)
  dropped, same = frozen.apply(variables, images, keys)
  np.testing.assert_array_equal(same, features)
  assert np.abs(dropped - logits).max() > 0  # in front of fc8
  assert np.abs(free.apply(variables, images, keys)[1] - features).max() > 0


def test_bfloat16_is_near_and_keeps_its_parameters_in_float32() -> None:
  images = np.random.default_rng(0).normal(size=(2, 67, 67, 3)).astype(np.float32)
  exact, rough = (AlexNet(6, width=1 / 16, norm='group', dtype=dtype) for dtype in (jnp.float32, jnp.bfloat16))
  like = jax.eval_shape(rough.init, jax.random.key(0), images)
  assert {leaf.dtype for leaf in jax.tree.leaves(like)} == {np.dtype(np.float32)}
  variables = random_variables(rough, 67)
  (_, near), (_, far) = (jax.jit(model.apply)(variables, images) for model in (exact, rough))
  difference = np.abs(near - far).max() / np.abs(near).max()
  assert 1e-4 < difference < 0.05

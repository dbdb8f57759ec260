"""Tests of SqueezeNet against the published layers and a forward pass written out in numpy."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emo_jax.models.squeezenet import SqueezeNet

FIRES = {2: (64, 16, 64), 3: (128, 16, 64), 4: (128, 32, 128), 5: (256, 32, 128)}  # channels in, squeezed, expanded
FIRES |= {6: (256, 48, 192), 7: (384, 48, 192), 8: (384, 64, 256), 9: (512, 64, 256)}


def initialised(model: SqueezeNet, shape: tuple[int, ...], part: str = 'whole') -> dict:
  return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, part=part), jnp.zeros(shape))['params']


def random_variables(model: SqueezeNet) -> dict:
  rng = np.random.default_rng(0)
  spread = lambda leaf: np.sqrt(2 / math.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.1
  draw = lambda leaf: (spread(leaf) * rng.normal(size=leaf.shape)).astype(np.float32)
  return {'params': jax.tree.map(draw, initialised(model, (1, 64, 64, 3)))}


def count(tree: dict) -> int:
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def random_images(height: int, width: int) -> np.ndarray:
  return np.random.default_rng(1).normal(size=(2, height, width, 3)).astype(np.float32)


def numpy_unit(x: np.ndarray, layer: dict, stride: int = 1, padding: int = 0) -> np.ndarray:
  kernel = layer['kernel'].astype(np.float64)
  x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))[:, ::stride, ::stride]
  return np.maximum(np.tensordot(windows, kernel, ((4, 5, 3), (0, 1, 2))) + layer['bias'], 0)


def numpy_pool(x: np.ndarray) -> np.ndarray:
  return np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::2, ::2].max((-2, -1))


def numpy_features(x: np.ndarray, params: dict) -> np.ndarray:
  x = numpy_pool(numpy_unit(x, params['conv1'], stride=2))
  for number in FIRES:
    fire = params[f'fire{number}']
    squeezed = numpy_unit(x, fire['squeeze'])
    x = np.concatenate([numpy_unit(squeezed, fire['expand1']), numpy_unit(squeezed, fire['expand3'], padding=1)], -1)
    if number in (3, 5):
      x = numpy_pool(x)
  return x.mean((1, 2))


def test_layers_are_the_published_ones() -> None:
  params = initialised(SqueezeNet(1000), (1, 227, 227, 3))
  want: dict[str, Any] = {'conv1': {'kernel': (3, 3, 3, 64), 'bias': (64,)}}
  for number, (inputs, squeezed, expanded) in FIRES.items():
    want[f'fire{number}'] = {
      'squeeze': {'kernel': (1, 1, inputs, squeezed), 'bias': (squeezed,)},
      'expand1': {'kernel': (1, 1, squeezed, expanded), 'bias': (expanded,)},
      'expand3': {'kernel': (3, 3, squeezed, expanded), 'bias': (expanded,)},
    }
  want['fc8'] = {'kernel': (512, 1000), 'bias': (1000,)}
  assert jax.tree.map(lambda leaf: leaf.shape, params) == want
  assert count(params) == 1_235_496


@pytest.mark.parametrize(('dtype', 'least', 'most'), [(jnp.float32, 0, 1e-5), (jnp.bfloat16, 1e-4, 0.03)])
def test_forward_pass_equals_numpy(dtype: jnp.dtype, least: float, most: float) -> None:
  model, images = SqueezeNet(6, dtype=dtype), random_images(75, 70)
  variables = random_variables(model)
  fc8 = variables['params']['fc8']
  features = numpy_features(images, variables['params'])
  logits = features @ fc8['kernel'] + fc8['bias']
  for got, want in zip(jax.jit(model.apply)(variables, images), (logits, features), strict=True):
    assert got.dtype == jnp.float32
    assert least <= np.abs(got - want).max() / np.abs(want).max() < most


@pytest.mark.parametrize(('trained', 'layers', 'size'), [('last', {'fire9', 'fc8'}, 200_262), ('head', {'fc8'}, 3_078)])
def test_rest_has_the_trained_parameters_alone(trained: str, layers: set[str], size: int) -> None:
  model = SqueezeNet(6, trained=trained)
  variables = initialised(model, (1, 64, 64, 3))
  activations = jax.eval_shape(
    lambda v, x: model.apply(v, x, part='trunk'), {'params': variables}, jnp.zeros((1, 64, 64, 3))
  )
  trained_params = initialised(model, activations.shape, part='rest')
  assert set(trained_params) == layers
  assert count(trained_params) == size
  assert trained_params == {name: variables[name] for name in layers}
  assert set(initialised(model, (1, 64, 64, 3), part='trunk')) == set(variables) - layers


@pytest.mark.parametrize('trained', ['all', 'last', 'head'])
def test_trunk_and_rest_make_the_whole_to_the_last_bit(trained: str) -> None:
  model, images = SqueezeNet(6, trained=trained), random_images(64, 64)
  variables = random_variables(model)
  whole = jax.jit(lambda v, x: model.apply(v, x))
  parts = jax.jit(lambda v, x: model.apply(v, model.apply(v, x, part='trunk'), part='rest'))
  assert whole.lower(variables, images).as_text() == parts.lower(variables, images).as_text()  # the same program


def test_gradients_reach_every_parameter() -> None:
  model, images = SqueezeNet(6), random_images(64, 64)
  variables = random_variables(model)
  gradient = jax.jit(jax.grad(lambda v: jnp.sum(jnp.square(model.apply(v, images)[0]))))(variables)
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


def test_dropout_is_of_the_classifiers_input_row_by_row() -> None:
  model = SqueezeNet(6, trained='head', dropout=0.25)
  features, keys = jnp.ones((2, 512)), jax.random.split(jax.random.key(0), 2)
  params = {'fc8': {'kernel': jnp.ones((512, 6)), 'bias': jnp.zeros(6)}}
  logits, same = model.apply({'params': params}, features, keys, part='rest')
  np.testing.assert_array_equal(same, features)
  assert logits[0, 0] != logits[1, 0]
  np.testing.assert_allclose(logits, 512, rtol=0.1)
  np.testing.assert_allclose(logits * 0.75, np.round(logits * 0.75), atol=1e-2)  # whole numbers of units are kept


def test_smallest_images_work_and_smaller_ones_are_refused() -> None:
  initialised(SqueezeNet(6), (1, 31, 31, 3))
  for shape in [(1, 30, 31, 3), (1, 31, 30, 3)]:
    with pytest.raises(ValueError, match=r'too small.*at least 31 pixels'):
      initialised(SqueezeNet(6), shape)


def test_an_unknown_trained_part_is_refused_by_name() -> None:
  with pytest.raises(ValueError, match="trained='top'"):
    initialised(SqueezeNet(6, trained='top'), (1, 64, 64, 3))

"""Tests of I3D against the published layers and a forward pass written out in numpy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emo_jax.models.i3d import I3D

STEM = {'conv1': (7, 3, 64), 'conv2b': (1, 64, 64), 'conv2c': (3, 64, 192)}  # kernel, channels in and out
BLOCKS = {  # channels in; of the branches: 1x1; 1x1, 3x3; 1x1, 3x3; 1x1 behind a pooling
  'mixed_3b': (192, 64, 96, 128, 16, 32, 32),
  'mixed_3c': (256, 128, 128, 192, 32, 96, 64),
  'mixed_4b': (480, 192, 96, 208, 16, 48, 64),
  'mixed_4c': (512, 160, 112, 224, 24, 64, 64),
  'mixed_4d': (512, 128, 128, 256, 24, 64, 64),
  'mixed_4e': (512, 112, 144, 288, 32, 64, 64),
  'mixed_4f': (528, 256, 160, 320, 32, 128, 128),
  'mixed_5b': (832, 256, 160, 320, 32, 128, 128),
  'mixed_5c': (832, 384, 192, 384, 48, 128, 128),
}
SHAPE = (1, 16, 32, 32, 3)
LAST = {'mixed_5b', 'mixed_5c', 'fc8'}


def initialised(model: I3D, shape: tuple[int, ...] = SHAPE, part: str = 'whole') -> dict:
  return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, part=part), jnp.zeros(shape))['params']


def random_variables(model: I3D) -> dict:
  rng = np.random.default_rng(0)
  spread = lambda leaf: np.sqrt(2 / math.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 0.1
  draw = lambda leaf: (spread(leaf) * rng.normal(size=leaf.shape)).astype(np.float32)
  return {'params': jax.tree.map(draw, initialised(model))}


def count(tree: dict) -> int:
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def random_faces(*shape: int) -> np.ndarray:
  return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def numpy_windows(x: np.ndarray, window: tuple[int, ...], strides: tuple[int, ...], fill: float) -> np.ndarray:
  """TensorFlow's 'SAME': as many windows as steps fit, what is missing shared out, the odd one behind."""
  missing = [
    max((-(-size // step) - 1) * step + wide - size, 0)
    for size, wide, step in zip(x.shape[1:4], window, strides, strict=True)
  ]
  x = np.pad(x, [(0, 0), *((n // 2, n - n // 2) for n in missing), (0, 0)], constant_values=fill)
  steps = tuple(slice(None, None, step) for step in strides)
  return np.lib.stride_tricks.sliding_window_view(x, window, (1, 2, 3))[:, *steps]


def numpy_unit(x: np.ndarray, layer: dict, stride: int = 1) -> np.ndarray:
  windows = numpy_windows(x, layer['kernel'].shape[:3], (stride,) * 3, 0)
  return np.maximum(np.tensordot(windows, layer['kernel'], ((5, 6, 7, 4), (0, 1, 2, 3))) + layer['bias'], 0)


def numpy_pool(x: np.ndarray, window: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
  return numpy_windows(x, window, strides, -np.inf).max((-3, -2, -1))


def numpy_features(x: np.ndarray, params: dict) -> np.ndarray:
  x = numpy_pool(numpy_unit(x, params['conv1'], 2), (1, 3, 3), (1, 2, 2))
  x = numpy_unit(numpy_unit(x, params['conv2b']), params['conv2c'])
  x = numpy_pool(x, (1, 3, 3), (1, 2, 2))
  for name in BLOCKS:
    block = params[name]
    one, two = (numpy_unit(numpy_unit(x, block[f'branch{i}a']), block[f'branch{i}b']) for i in (1, 2))
    three = numpy_unit(numpy_pool(x, (3, 3, 3), (1, 1, 1)), block['branch3'])
    x = np.concatenate([numpy_unit(x, block['branch0']), one, two, three], -1)
    if name == 'mixed_3c':
      x = numpy_pool(x, (3, 3, 3), (2, 2, 2))
    if name == 'mixed_4f':
      x = numpy_pool(x, (2, 2, 2), (2, 2, 2))
  return x.mean((1, 2, 3))


def test_layers_are_the_published_ones() -> None:
  unit = lambda size, inputs, outputs: {'kernel': (size, size, size, inputs, outputs), 'bias': (outputs,)}
  want = {name: unit(*shape) for name, shape in STEM.items()}
  for name, (inputs, zero, one_a, one_b, two_a, two_b, three) in BLOCKS.items():
    want[name] = {
      'branch0': unit(1, inputs, zero),
      'branch1a': unit(1, inputs, one_a),
      'branch1b': unit(3, one_a, one_b),
      'branch2a': unit(1, inputs, two_a),
      'branch2b': unit(3, two_a, two_b),
      'branch3': unit(1, inputs, three),
    }
  want['fc8'] = {'kernel': (1024, 400), 'bias': (400,)}
  params = initialised(I3D(400), (1, 16, 224, 224, 3))
  assert jax.tree.map(lambda leaf: leaf.shape, params) == want
  assert count(params) == 12_689_984


def test_forward_pass_equals_numpy() -> None:
  model, faces = I3D(6), random_faces(2, 11, 41, 35, 3)
  variables = random_variables(model)
  fc8 = variables['params']['fc8']
  features = numpy_features(faces, variables['params'])
  logits = features @ fc8['kernel'] + fc8['bias']
  for got, want in zip(jax.jit(model.apply)(variables, faces), (logits, features), strict=True):
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_bfloat16_is_of_the_arithmetic_alone() -> None:
  full, half = (I3D(6, trained='last', dtype=dtype) for dtype in (jnp.float32, jnp.bfloat16))
  variables = random_variables(full)
  assert {leaf.dtype for leaf in jax.tree.leaves(initialised(half))} == {jnp.dtype('float32')}
  trunk = jax.make_jaxpr(lambda x: half.apply(variables, x, part='trunk'))(jnp.zeros(SHAPE))
  assert {leaf.dtype for leaf in trunk.out_avals} == {jnp.dtype('float32')}
  products = [line for line in str(trunk).splitlines() if '= conv_general_dilated' in line or '= dot_general' in line]
  assert len(products) > 40 and all(':bf16[' in line for line in products)
  activations = random_faces(2, 2, 2, 3, 832)
  run = lambda model: jax.jit(lambda v, x: model.apply(v, x, part='rest'))(variables, activations)
  for exact, near in zip(run(full), run(half), strict=True):
    assert near.dtype == jnp.float32
    assert 1e-4 < np.abs(near - exact).max() / np.abs(exact).max() < 0.03


@pytest.mark.parametrize(('trained', 'layers', 'size'), [('last', LAST, 4_762_870), ('head', {'fc8'}, 6_150)])
def test_rest_has_the_trained_parameters_alone(trained: str, layers: set[str], size: int) -> None:
  model = I3D(6, trained=trained)
  params = initialised(model)
  activations = jax.eval_shape(lambda v, x: model.apply(v, x, part='trunk'), {'params': params}, jnp.zeros(SHAPE))
  trained_params = initialised(model, activations.shape, part='rest')
  assert set(trained_params) == layers
  assert count(trained_params) == size
  assert trained_params == {name: params[name] for name in layers}
  assert set(initialised(model, part='trunk')) == set(params) - layers


@pytest.mark.parametrize('trained', ['all', 'last', 'head'])
def test_trunk_and_rest_make_the_whole_to_the_last_bit(trained: str) -> None:
  model, faces = I3D(6, trained=trained), random_faces(*SHAPE)
  variables = random_variables(model)
  whole = jax.jit(lambda v, x: model.apply(v, x))
  parts = jax.jit(lambda v, x: model.apply(v, model.apply(v, x, part='trunk'), part='rest'))
  assert whole.lower(variables, faces).as_text() == parts.lower(variables, faces).as_text()  # the same program


def test_gradients_reach_every_parameter() -> None:
  model, faces = I3D(6), random_faces(*SHAPE)
  variables = random_variables(model)
  loss = lambda v: jnp.sum(jnp.square(model.apply(v, faces)[0]))
  quick = {'xla_backend_optimization_level': 0}  # to compile
  gradient = jax.jit(jax.grad(loss), compiler_options=quick)(variables)
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


def test_dropout_is_of_the_classifiers_input_row_by_row() -> None:
  model = I3D(6, trained='head', dropout=0.25)
  features, keys = jnp.ones((2, 1024)), jax.random.split(jax.random.key(0), 2)
  params = {'fc8': {'kernel': jnp.ones((1024, 6)), 'bias': jnp.zeros(6)}}
  logits, same = model.apply({'params': params}, features, keys, part='rest')
  np.testing.assert_array_equal(same, features)
  assert logits[0, 0] != logits[1, 0]
  np.testing.assert_allclose(logits, 1024, rtol=0.1)
  np.testing.assert_allclose(logits * 0.75, np.round(logits * 0.75), atol=1e-2)  # whole numbers of units are kept


def test_an_unknown_trained_part_is_refused_by_name() -> None:
  with pytest.raises(ValueError, match="trained='top'"):
    initialised(I3D(6, trained='top'))

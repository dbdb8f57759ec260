"""Tests of C3D against the published layers and a forward pass written out in numpy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emo_jax.models.c3d import C3D, _gridded, _pool5

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
  assert by_hand - (4096 * 487 + 487) == 77_995_776  # to fc7
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


@pytest.mark.parametrize(('field', 'word'), [('norm', 'batch'), ('pool5', 'same'), ('trained', 'fc7')])
def test_an_unknown_word_is_refused_by_name(field: str, word: str) -> None:
  with pytest.raises(ValueError, match=f"{field}='{word}'"):
    initialised(C3D(6, width=1 / 64, **{field: word}), 16)


# Side of the map in front of fc6: five poolings of a side, and pool5 of the ports (inputs_and_weights.md 3.2).
@pytest.mark.parametrize(
  ('height', 'width', 'caffe', 'symmetric'),
  [(112, 112, (4, 4), (4, 4)), (150, 110, (5, 4), (5, 4)), (128, 171, (4, 6), (5, 6)), (227, 227, (8, 8), (8, 8))],
)
def test_map_in_front_of_fc6_has_the_published_size(
  height: int, width: int, caffe: tuple[int, int], symmetric: tuple[int, int]
) -> None:
  faces = jnp.zeros((1, 16, height, width, 3))
  for pool5, side in (('caffe', caffe), ('symmetric', symmetric)):
    model = C3D(6, width=1 / 256, trained='last', pool5=pool5)
    trunk = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), faces, part='trunk')[0])  # noqa: B023
    assert trunk.shape == (1, 1, *side, 2)


@pytest.mark.parametrize(('pool5', 'windows'), [('caffe', (1, 3, 5, 6)), ('symmetric', (0, 2, 4, 6))])
def test_pool5_of_seven_places_has_the_windows_of_its_kind(pool5: str, windows: tuple[int, ...]) -> None:
  ramp = np.arange(7.0)[:, None] * 10 + np.arange(7.0)  # of which each window's last place is the largest
  got = _pool5(jnp.asarray([ramp, ramp])[None, ..., None], pool5)[0, 0, :, :, 0]
  np.testing.assert_array_equal(got, ramp[np.ix_(windows, windows)])


@pytest.mark.parametrize(('size', 'places'), [(4, 1), (7, 2), (8, 2)])
def test_grid_takes_maxima_down_to_four_by_four(size: int, places: int) -> None:
  x = np.random.default_rng(0).normal(size=(2, 1, size, size, 3)).astype(np.float32)
  np.testing.assert_array_equal(_gridded(jnp.asarray(x), 4), numpy_pool(x, (1, places, places)))


def test_grid_lets_a_published_fc6_fit_227_pixels_and_refuses_what_it_cannot_reach() -> None:
  kernel = lambda size, grid: initialised(C3D(6, grid=grid), size)['fc6']['kernel'].shape
  assert kernel(227, 0) == (32768, 4096)
  assert kernel(227, 4) == kernel(112, 4) == kernel(112, 0) == (8192, 4096)
  with pytest.raises(ValueError, match=r'visual.grid=4: pool5 gives 5 x 5 maps.*112, 224 or 227'):
    kernel(150, 4)


TRAINED = {'all': 11, 'last': 3, 'head': 1}  # layers that are trained, from the last


@pytest.mark.parametrize(('trained', 'dtype'), [*((name, jnp.float32) for name in TRAINED), ('last', jnp.bfloat16)])
def test_whole_is_the_rest_on_the_trunk(trained: str, dtype: jnp.dtype) -> None:
  model, size = C3D(3, width=1 / 64, trained=trained, dtype=dtype), 8
  faces = np.random.default_rng(1).normal(size=(2, 16, size, size, 3)).astype(np.float32)
  variables = random_variables(model, size)
  trunk = model.apply(variables, faces, part='trunk')
  whole, rest = model.apply(variables, faces), model.apply(variables, trunk, part='rest')
  for ours, parts in zip(whole, rest, strict=True):
    np.testing.assert_array_equal(ours, parts)
    assert ours.dtype == parts.dtype == trunk.dtype == np.float32
  assert trunk.shape[1:] == {'all': (16, size, size, 3), 'last': (1, 1, 1, 8), 'head': (64,)}[trained]


@pytest.mark.parametrize(('trained', 'count'), TRAINED.items())
def test_rest_has_the_trained_parameters_alone(trained: str, count: int) -> None:
  model, faces = C3D(6, width=1 / 64, trained=trained), jnp.zeros((1, 16, 16, 16, 3))
  whole = initialised(model, 16)
  trunk = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), faces, part='trunk')[0])
  rest = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, part='rest'), trunk)['params']
  assert jax.tree.map(jnp.shape, rest) == jax.tree.map(jnp.shape, {name: whole[name] for name in [*whole][-count:]})

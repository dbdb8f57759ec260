"""Grad-CAM: closed forms on tiny networks, and the networks' own layers taken apart by hand."""

import functools
import pathlib
import types
from collections.abc import Callable
from typing import Any

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emo_jax.context import Experiment
from emo_jax.corpora.clip import Clip
from emo_jax.evaluation.folds import Fold
from emo_jax.frontend.segments import Segments
from emo_jax.models.alexnet import AlexNet
from emo_jax.models.c3d import C3D
from emo_jax.models.conv2d import Conv2D
from emo_jax.models.conv3d import Conv3D
from emo_jax.models.i3d import I3D
from emo_jax.models.pooling import max_pool2d
from emo_jax.models.squeezenet import SqueezeNet
from emo_jax.report import saliency
from emo_jax.steps import start
from emo_jax.training import checkpoint
from tests.tiny import get_config

Tree = Any


class Tiny(nn.Module):
  """One convolution of 1 x 1(x 1), possibly normalised; ReLU, the mean over all places, a linear classifier."""

  norm: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, keys: Any = None) -> Any:
    x = Conv2D(6, 1, name='only')(x) if x.ndim == 4 else Conv3D(6, (1, 1, 1), name='only')(x)
    x = nn.GroupNorm(num_groups=2)(x) if self.norm else x
    x = jnp.mean(nn.relu(x), tuple(range(1, x.ndim - 1)))
    return nn.Dense(3, name='fc8')(x), x


@functools.cache
def forward_of(model: nn.Module) -> Callable[..., Any]:
  return lambda variables, x, keys: model.apply({'params': variables['params']}, x, keys)


def drawn(model: nn.Module, shape: tuple[int, ...], *, rows: int = 3, seed: int = 0) -> tuple[Tree, np.ndarray]:
  """Parameters, biases among them, and inputs."""
  rng = np.random.default_rng(seed)
  inputs = rng.normal(size=(rows, *shape)).astype(np.float32)
  params = jax.eval_shape(lambda: model.init(jax.random.key(0), inputs[:1]))['params']
  return {'params': jax.tree.map(functools.partial(leaf_of, rng), params)}, inputs


def leaf_of(rng: np.random.Generator, like: Any) -> np.ndarray:
  """A kernel that keeps the size of what it is given, or a bias."""
  return rng.normal(0, np.sqrt(2 / np.prod(like.shape[:-1])) if like.ndim > 1 else 0.1, like.shape).astype(np.float32)


def peaked(cam: np.ndarray) -> np.ndarray:
  cam = np.maximum(cam, 0)
  peak = np.max(cam, tuple(range(1, cam.ndim)), keepdims=True)
  assert np.sum(peak > 0) > 1
  return cam / np.where(peak > 0, peak, 1)


@pytest.mark.parametrize('norm', [False, True])
@pytest.mark.parametrize('places', [(7, 8), (4, 6, 7)])
def test_one_convolution_and_a_mean_have_a_closed_form(places: tuple[int, ...], norm: bool) -> None:
  """The gradient in every place of map k is w[k, class] / places, so the heat is relu(sum of w[k, class] map[k])."""
  variables, inputs = drawn(Tiny(norm), (*places, 3))
  params, classes = variables['params'], np.array([0, 2, 1])
  maps = inputs @ params['only']['kernel'].reshape(3, 6) + params['only']['bias']
  if norm:
    grouped = maps.reshape(len(maps), -1, 2, 3)
    grouped = (grouped - grouped.mean((1, 3), keepdims=True)) / np.sqrt(grouped.var((1, 3), keepdims=True) + 1e-6)
    maps = grouped.reshape(maps.shape) * params['GroupNorm_0']['scale'] + params['GroupNorm_0']['bias']
  want = [np.maximum(m, 0) @ params['fc8']['kernel'][:, c] for m, c in zip(maps, classes, strict=True)]
  heat, layer = saliency.heat_maps(forward_of(Tiny(norm)), variables, inputs, classes, size=places)
  assert layer == ('only', 'GroupNorm_0' if norm else 'only', (*places, 6))
  np.testing.assert_allclose(heat, peaked(np.stack(want)), atol=1e-4)


def test_a_convolutional_network_taken_apart() -> None:
  """AlexNet behind conv5 written out; the gradient is that in what the ReLU gives, also where it gives 0."""
  model = AlexNet(4, width=1 / 32, dropout=0.0)
  variables, inputs = drawn(model, (112, 112, 3))
  params, classes = variables['params'], np.array([3, 0, 1])
  _, seen = jax.jit(functools.partial(model.apply, capture_intermediates=True))(variables, inputs)
  maps = nn.relu(seen['intermediates']['conv5']['__call__'][0])

  @jax.jit
  @jax.grad
  def gradient(maps: jax.Array) -> jax.Array:
    x = max_pool2d(maps, 3, 2).reshape(len(maps), -1)
    for name in ('fc6', 'fc7'):
      x = nn.relu(x @ params[name]['kernel'] + params[name]['bias'])
    return jnp.sum((x @ params['fc8']['kernel'] + params['fc8']['bias'])[np.arange(3), classes])

  weights = jnp.mean(gradient(maps), (1, 2), keepdims=True)
  want = peaked(np.asarray(jnp.sum(weights * maps, -1)))
  heat, layer = saliency.heat_maps(forward_of(model), variables, inputs, classes, size=(6, 6))
  assert layer == ('conv5', 'conv5', (6, 6, 8)) and np.any(maps == 0)
  np.testing.assert_allclose(heat, want, atol=1e-4)


def test_heat_is_brought_to_the_images_size_linearly() -> None:
  variables, inputs = drawn(Tiny(), (8, 8, 3))
  variables['params']['fc8']['kernel'] = np.abs(variables['params']['fc8']['kernel'])  # nowhere cut off
  small, _ = saliency.heat_maps(forward_of(Tiny()), variables, inputs, np.zeros(3, int), size=(8, 8))
  large, _ = saliency.heat_maps(forward_of(Tiny()), variables, inputs, np.zeros(3, int), size=(24, 32))
  want = np.stack([cv2.resize(one, (32, 24), interpolation=cv2.INTER_LINEAR) for one in small])
  np.testing.assert_allclose(large, peaked(want), atol=1e-5)
  assert np.all(large.max((1, 2)) == pytest.approx(1))


@pytest.mark.parametrize(
  ('model', 'shape', 'layer'),
  [
    (AlexNet(3, width=1 / 32), (224, 224, 3), ('conv5', 'conv5', (13, 13, 8))),
    (AlexNet(3, width=1 / 32, norm='group'), (112, 112, 3), ('conv5', 'GroupNorm_4', (6, 6, 8))),
    (AlexNet(3, width=1 / 32, norm='group'), (64, 64, 3), ('conv2', 'GroupNorm_1', (7, 7, 6))),
    (AlexNet(3, width=1 / 32, form='caffe'), (227, 227, 3), ('conv5', 'conv5', (13, 13, 8))),
    (C3D(3, width=1 / 64), (16, 112, 112, 3), ('conv5b', 'conv5b', (2, 7, 7, 8))),
    (C3D(3, width=1 / 64, norm='group'), (16, 56, 56, 3), ('conv4b', 'GroupNorm_5', (4, 7, 7, 8))),
    (C3D(3, width=1 / 64), (16, 32, 32, 3), ('conv3b', 'conv3b', (8, 8, 8, 4))),
    (SqueezeNet(3), (227, 227, 3), ('fire9', 'fire9', (13, 13, 512))),
    (I3D(3), (16, 224, 224, 3), ('mixed_5c', 'mixed_5c', (2, 7, 7, 1024))),
    (I3D(3), (16, 112, 112, 3), ('mixed_4f', 'mixed_4f', (4, 7, 7, 832))),
  ],
)
def test_the_layer_is_the_last_one_that_still_tells_places_apart(
  model: nn.Module, shape: tuple[int, ...], layer: tuple[str, str, tuple[int, ...]]
) -> None:
  inputs = jax.ShapeDtypeStruct((1, *shape), np.float32)
  params = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), inputs)['params']
  for _ in range(2):  # what was traced before is found again
    assert saliency.find_layer(forward_of(model), {'params': params}, inputs) == layer


@pytest.mark.parametrize(
  ('model', 'shape'),
  [
    (AlexNet(4, width=1 / 32, norm='group'), (64, 64, 3)),
    (AlexNet(4, width=1 / 32, form='caffenet'), (67, 67, 3)),
    (C3D(4, width=1 / 64, norm='group'), (16, 24, 24, 3)),
    (Tiny(), (8, 8, 3)),
  ],
)
def test_looking_changes_no_verdict(model: nn.Module, shape: tuple[int, ...]) -> None:
  variables, inputs = drawn(model, shape)
  layer = saliency.find_layer(forward_of(model), variables, inputs)
  _, logits = saliency._compiled(forward_of(model), layer, shape[:-1])(variables, inputs, np.zeros(3, int))
  np.testing.assert_allclose(logits, jax.jit(model.apply)(variables, inputs)[0], rtol=1e-4, atol=1e-6)


def test_a_rows_heat_is_its_own() -> None:
  """In whichever batch, and beside whichever rows, it stands."""
  model = AlexNet(4, width=1 / 32, norm='group')
  variables, inputs = drawn(model, (64, 64, 3), rows=saliency.BATCH + 3)
  classes = np.arange(len(inputs)) % 4
  heat = functools.partial(saliency.heat_maps, forward_of(model), variables, size=(64, 64))
  together, _ = heat(inputs, classes)
  assert together.shape == (len(inputs), 64, 64) and together.dtype == np.float32
  for n in (0, 5, saliency.BATCH, len(inputs) - 1):
    np.testing.assert_allclose(heat(inputs[[n]], classes[[n]])[0][0], together[n], atol=1e-5)


def test_where_nothing_speaks_for_a_class_nothing_is_lit() -> None:
  variables, inputs = drawn(Tiny(), (8, 8, 3))
  variables['params']['fc8']['kernel'] = np.tile(np.array([[-1.0, 1.0, 0.0]], np.float32), (6, 1))
  variables['params']['only']['bias'][:] = 0
  inputs[2] = 0  # dead: no map is above 0
  heat, _ = saliency.heat_maps(forward_of(Tiny()), variables, inputs, np.array([0, 2, 1]), size=(8, 8))
  assert np.array_equal(heat, np.zeros((3, 8, 8)))


@pytest.mark.parametrize('corner', [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_evidence_in_a_corner_lights_that_corner_of_its_own_channel(corner: tuple[int, int]) -> None:
  """Two kinds of patches in opposite corners, one for each of two classes."""
  own = tuple(slice(32 * at, 32 * at + 32) for at in corner)
  opposite = tuple(slice(32 - 32 * at, 64 - 32 * at) for at in corner)
  image = np.zeros((1, 64, 64, 3), np.float32)
  image[0, *own, 0] = image[0, *opposite, 1] = 1
  variables, _ = drawn(Tiny(), (64, 64, 3))
  params = variables['params']
  params['only'] = {'kernel': np.eye(3, 6, dtype=np.float32)[None, None], 'bias': np.zeros(6, np.float32)}
  params['fc8']['kernel'] = np.eye(6, 3, dtype=np.float32)
  for wanted, lit in ((0, own), (1, opposite)):
    heat, _ = saliency.heat_maps(forward_of(Tiny()), variables, image, np.array([wanted]), size=(64, 64))
    want = np.zeros((64, 64))
    want[lit] = 1
    np.testing.assert_allclose(heat[0], want, atol=1e-6)


SPEAKERS = ('s1', 's1', 's1', 's2', 's2', 's3', 's3')


@pytest.mark.parametrize(
  ('among', 'each', 'want'),
  [
    ((1, 1, 1, 1, 1, 1, 1), 3, [1, 3, 6]),
    ((1, 1, 1, 1, 1, 1, 1), 5, [1, 3, 6, 0, 4]),
    ((1, 1, 1, 1, 0, 0, 0), 3, [1, 3, 0]),
    ((1, 1, 1, 0, 0, 0, 0), 2, [1, 0]),
    ((1, 0, 0, 0, 0, 0, 0), 3, [0]),
    ((0, 0, 0, 0, 0, 0, 0), 3, []),
  ],
)
def test_every_speaker_has_a_turn_before_one_has_two(among: tuple[int, ...], each: int, want: list[int]) -> None:
  probability = np.array([0.9, 0.95, 0.9, 0.8, 0.5, 0.1, 0.3])
  assert saliency.surest(probability, list(SPEAKERS), np.array(among, bool), each=each) == want


def made(folder: pathlib.Path) -> Experiment:
  """Eight test clips of two speakers and two of the training, four segments each; the sixth clip has no face."""
  config = get_config()
  path = pathlib.Path('a.mp4')
  clips = [
    Clip(f'c{n}', picture=path, sound=path, speaker='s1' if n < 4 else 's2', emotion=('fear', 'joy')[n % 2], corpus='x')
    for n in range(10)
  ]
  fold = Fold(train=('s3',), held=(), test=('s1', 's2'))
  x = Experiment(config, folder, folder, clips, ['anger', 'fear', 'joy'], [fold])
  of_clip, rows = np.repeat(np.arange(10), 4), np.arange(40)
  x.segments = Segments(of_clip, rows, np.tile(rows[:, None], 16), np.ones(40, bool), of_clip != 5)
  sound = np.random.default_rng(0).normal(-40, 10, (40, 64, 64)).astype(np.float32)
  faces = np.random.default_rng(1).integers(0, 256, (40, 16, 32, 32, 3), dtype=np.uint8)
  x.store = types.SimpleNamespace(audio=lambda of: sound[of.start], faces=lambda of: faces[of.start])
  x.made['features'] = [folder / 'features']
  x.made['features'][0].mkdir()
  for number, modality in enumerate(('audio', 'visual')):
    own = rows if modality == 'audio' else rows[x.segments.has_face]
    np.save(folder / 'features' / f'{modality}_rows.npy', own)
    logits = np.random.default_rng(2 + number).normal(size=(len(own), 3))
    np.save(folder / 'features' / f'{modality}_logits.npy', logits)
  return x


def test_the_telling_segment_is_the_one_both_networks_are_surest_of(tmp_path: pathlib.Path) -> None:
  x = made(tmp_path)
  clips, classes = np.array([0, 3, 5, 7]), np.array([2, 1, 0, 0])
  found = saliency.telling(x, 0, clips, classes)
  for clip, wanted, row in zip(clips, classes, found, strict=True):
    if clip == 5:
      assert row == -1
      continue
    share = {r: 0.0 for r in range(4 * clip, 4 * clip + 4)}
    for modality in ('audio', 'visual'):
      stored = np.load(tmp_path / 'features' / f'{modality}_rows.npy').tolist()
      logits = np.load(tmp_path / 'features' / f'{modality}_logits.npy')
      for r in share:
        e = np.exp(logits[stored.index(r)])
        share[r] += e[wanted] / e.sum()
    assert row == max(share, key=share.__getitem__)


def test_examples_are_right_and_wrong_clips_with_their_own_pictures(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  """In place of heat, the number of the segment and the class that was asked for."""
  x = made(tmp_path)
  asked = lambda x, modality, number, rows, classes: (
    np.stack([rows, classes, np.full(len(rows), modality == 'visual')], 1),
    saliency.Layer(f'{modality}{number}', '', ()),
  )
  monkeypatch.setattr(saliency, 'grad_cam', asked)
  truth = np.array([1, 2, 1, 2, 1, 2, 1, 2])
  verdict = np.array([1, 2, 0, 2, 1, 2, 2, 1])
  sure = np.array([0.5, 0.9, 0.8, 0.7, 0.6, 0.99, 0.7, 0.9])
  shares = np.full((8, 3), 0.0)
  shares[np.arange(8), verdict] = sure
  shares[np.arange(8), (verdict + 1) % 3] = 1 - sure
  with np.errstate(divide='ignore'):
    scores = np.log(shares) + 3  # -inf where a share is 0
  found: Any = saliency.examples(x, 0, scores, np.arange(8), each=2)
  ones = found['examples']
  assert found['layers'] == {'audio': 'audio0', 'visual': 'visual0'} and '2' in found['rule']
  assert [one['clip'] for one in ones] == ['c1', 'c4', 'c7', 'c2']  # c5 would be the surest, but has no face
  assert [one['right'] for one in ones] == [True, True, False, False]
  rows = saliency.telling(x, 0, np.arange(8), verdict)
  for one, n in zip(ones, (1, 4, 7, 2), strict=True):
    assert one['speaker'] == ('s1' if n < 4 else 's2')
    assert (one['truth'], one['verdict']) == (x.classes[truth[n]], x.classes[verdict[n]])
    assert one['probability'] == pytest.approx(sure[n])
    segment = x.segments.take(rows[[n]])
    assert np.array_equal(one['audio']['image'], x.store.audio(segment)[0])
    assert np.array_equal(one['visual']['image'], x.store.faces(segment)[0])
    for of, modality in enumerate(('audio', 'visual')):
      assert one[modality]['heat'].tolist() == [rows[n], verdict[n], of]
      if truth[n] == verdict[n]:
        assert one['truth_heat'] is None
      else:
        assert one['truth_heat'][modality].tolist() == [rows[n], truth[n], of]


def test_without_clips_or_networks_there_are_no_examples(tmp_path: pathlib.Path) -> None:
  x = made(tmp_path)
  found: Any = saliency.examples(x, 0, np.zeros((1, 3)), np.array([5]))
  assert found['examples'] == [] and found['layers'] == {'audio': None, 'visual': None}
  del x.made['features']
  assert saliency.examples(x, 0, np.zeros((1, 3)), np.array([0])) is None


def test_scores_are_read_where_decide_left_them(tmp_path: pathlib.Path) -> None:
  x = made(tmp_path)
  x.made['decide/mean'] = [tmp_path / 'other', tmp_path]
  np.savez(tmp_path / 'mean_test.npz', clip=np.arange(2, 5), scores=np.arange(9).reshape(3, 3))
  scores, clips = saliency.scored(x, 1, 'mean')
  assert scores.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]] and clips.tolist() == [2, 3, 4]


def test_the_networks_of_the_fold_are_asked_with_all_that_stands_in_front_of_them(tmp_path: pathlib.Path) -> None:
  x = made(tmp_path)
  rows, classes = np.array([3, 30, 11]), np.array([0, 1, 2])
  for modality, size in (('audio', (64, 64)), ('visual', (16, 32, 32))):
    rng, saved = np.random.default_rng(4), []
    for number in range(2):
      like = start.variables_like(x, modality)
      params = jax.tree.map(functools.partial(leaf_of, rng), like['params'])
      statistics = {name: rng.uniform(0.5, 2, of.shape).astype(np.float32) for name, of in like['statistics'].items()}
      saved.append({'params': params, 'statistics': statistics})
      x.made.setdefault(f'{modality}_net', []).append(tmp_path / f'{modality}{number}')
      checkpoint.save(tmp_path / f'{modality}{number}' / 'network', saved[-1])
    heat, layer = saliency.grad_cam(x, modality, 1, rows, classes)
    assert heat.shape == (3, *size) and heat.min() >= 0 and heat.max() == pytest.approx(1)
    segments = x.segments.take(rows)
    inputs = x.store.audio(segments) if modality == 'audio' else x.store.faces(segments)
    whole = start.modality_of(x, modality).whole.forward
    want = saliency.heat_maps(whole, saved[1], inputs, classes, size=size)[0]
    np.testing.assert_array_equal(heat, want)
    assert layer.name == ('conv2' if modality == 'audio' else 'conv3b')
    assert not np.allclose(heat, saliency.grad_cam(x, modality, 0, rows, classes)[0])

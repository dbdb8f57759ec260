"""Tests of both networks with what stands in front of them: statistics, standardisation, resizing, augmentation."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from emo_jax.training import modalities, supervised

SGD = {'name': 'sgd', 'lr': 0.2, 'head_rate': 1.0, 'momentum': 0.9, 'weight_decay': 0.01, 'schedule': 'constant'}
GAIN = np.array([1.0, 0.5, 2.0], np.float32)


def numpy_sound_image(x: np.ndarray) -> np.ndarray:
  def slope(x: np.ndarray) -> np.ndarray:
    at = lambda n: x[..., np.clip(np.arange(x.shape[-1]) + n, 0, x.shape[-1] - 1)]
    return (at(1) - at(-1) + 2 * (at(2) - at(-2))) / 10

  return np.stack([x, slope(x), slope(slope(x))], -1)


def test_image_statistics_are_those_of_all_rows_pixel_by_pixel() -> None:
  sound = np.random.default_rng(0).normal(60, 10, size=(7, 64, 8)).astype(np.float32)
  sound[:, 5] = 42.0  # a band that never varies
  images = numpy_sound_image(sound.astype(np.float64))
  network = modalities.audio(audio_config(), classes=3).whole
  got = supervised.image_statistics(network, sound.__getitem__, 7, batch=3)  # batches of 3, 3 and 1
  np.testing.assert_allclose(got['mean'], images.mean(0), atol=1e-3)
  np.testing.assert_array_equal(got['deviation'][5], 1)
  np.testing.assert_allclose(np.delete(got['deviation'], 5, 0), np.delete(images.std(0), 5, 0), rtol=1e-2)


def test_statistics_of_face_clips_are_those_of_all_frames() -> None:
  faces = np.random.default_rng(0).integers(0, 256, size=(5, 16, 6, 4, 3), dtype=np.uint8)
  faces[:, :, 2] = 51  # a row of pixels that never varies
  network = modalities.visual(visual_config(), classes=3).whole
  got = supervised.image_statistics(network, faces.__getitem__, 5, batch=2)
  frames = (faces.astype(np.float64) / 127.5 - 1).reshape(-1, 6, 4, 3)
  np.testing.assert_allclose(got['mean'], frames.mean(0), atol=1e-5)
  np.testing.assert_array_equal(got['deviation'][2], 1)
  np.testing.assert_allclose(np.delete(got['deviation'], 2, 0), np.delete(frames.std(0), 2, 0), rtol=1e-4)


@pytest.mark.parametrize('batch', [30, 64])
def test_pixels_that_never_vary_have_deviation_1_at_any_level(batch: int) -> None:
  sound = np.full((700, 64, 8), 99.7, np.float32)  # dB; its square is not exact in float32
  network = modalities.audio(audio_config(), classes=3).whole
  got = supervised.image_statistics(network, sound.__getitem__, 700, batch=batch)
  np.testing.assert_array_equal(got['deviation'], 1)
  np.testing.assert_allclose(got['mean'][..., 0], 99.7, rtol=1e-5)


def audio_config(**of: object) -> Any:
  config = default.get_config().audio
  config.update({'width': 1 / 64, 'size': 64, 'optim': SGD, **of})
  return config


def visual_config(**of: object) -> Any:
  config = default.get_config().visual
  config.update({'width': 1 / 64, 'size': 8, 'dropout': 0.0, 'optim': SGD, **of})
  return config


def drawn(model: object, x: np.ndarray) -> dict:
  """Random parameters without the compilation that model.init takes."""
  rng = np.random.default_rng(5)
  like = jax.eval_shape(model.init, jax.random.key(0), x)['params']
  return jax.tree.map(lambda leaf: (0.3 * rng.normal(size=leaf.shape)).astype(np.float32), like)


def test_audio_network_standardises_by_training_statistics_and_augments_in_training_alone() -> None:
  rng = np.random.default_rng(0)
  sound = rng.normal(60, 10, size=(2, 64, 64)).astype(np.float32)
  statistics = {
    'mean': rng.normal(50, 1, size=(64, 64, 3)).astype(np.float32),
    'deviation': rng.uniform(5, 15, size=(64, 64, 3)).astype(np.float32),
    'gain': GAIN,
  }
  model, network, *_ = modalities.audio(audio_config(dropout=0.0, mask_time=64, mask_mel=64), classes=3)
  images = (numpy_sound_image(sound) - statistics['mean']) / statistics['deviation'] * GAIN
  variables = {'params': drawn(model, images), 'statistics': statistics}
  want = jax.jit(model.apply)({'params': variables['params']}, images)
  forward = jax.jit(network.forward)
  for ours, plain in zip(forward(variables, sound, None), want, strict=True):
    np.testing.assert_allclose(ours, plain, rtol=1e-3, atol=1e-3 * float(np.abs(plain).max()))
  augmented, _ = forward(variables, sound, jax.random.split(jax.random.key(0), 2))
  assert np.abs(augmented - want[0]).max() > 0.01 * np.abs(want[0]).max()


def bilinear(images: np.ndarray, size: int) -> np.ndarray:
  """[..., h, w, c] -> [..., size, size, c], for a size no smaller than h and w."""

  def weights(length: int) -> np.ndarray:
    place = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
    return np.maximum(1 - np.abs(place[:, None] - np.arange(length)), 0)

  return np.einsum('hi,wj,...ijc->...hwc', weights(images.shape[-3]), weights(images.shape[-2]), images)


def test_z_score_after_resizing_is_by_the_statistics_of_the_resized_images() -> None:
  sound = np.random.default_rng(0).normal(60, 10, size=(5, 64, 40)).astype(np.float32)
  model, network, *_ = modalities.audio(audio_config(size=80, z_score='after'), classes=3)
  images = bilinear(numpy_sound_image(sound.astype(np.float64)), 80)
  statistics = {**supervised.image_statistics(network, sound.__getitem__, 5, batch=2), 'gain': GAIN}
  np.testing.assert_allclose(statistics['mean'], images.mean(0), atol=1e-3)
  np.testing.assert_allclose(statistics['deviation'], images.std(0), rtol=1e-2)
  standardised = ((images - images.mean(0)) / images.std(0) * GAIN).astype(np.float32)
  variables = {'params': drawn(model, standardised), 'statistics': statistics}
  want, _ = jax.jit(model.apply)({'params': variables['params']}, standardised)
  got, _ = jax.jit(network.forward)(variables, sound, None)
  np.testing.assert_allclose(got, want, atol=1e-3 * float(np.abs(want).max()))


def test_a_step_of_the_grouped_network_with_the_scripts_switches(tmp_path: pathlib.Path, watch: Callable) -> None:
  settings = {**SGD, 'lr': 1e-3, 'head_rate': 1e-3}
  config = audio_config(form='caffe', size=227, z_score='after', deltas=9, dropout=0.0, optim=settings)
  model, network, *_ = modalities.audio(config, classes=3)
  sound = np.random.default_rng(0).normal(60, 10, size=(2, 64, 64)).astype(np.float32)
  statistics = {**supervised.image_statistics(network, sound.__getitem__, 2, batch=2), 'gain': np.ones(3, np.float32)}
  assert statistics['mean'].shape == (227, 227, 3)
  start = {'params': drawn(model, np.zeros((1, 227, 227, 3), np.float32)), 'statistics': statistics}
  of = {
    'batch': 2,
    'epochs': 1,
    'optim_config': config.optim,
    'seed': 0,
    'names': (),
    'name': 'audio',
    'watch': watch(),
  }
  labels = np.array([0, 2])
  after = supervised.train(network, start, sound.__getitem__, labels, **of, folder=tmp_path / 'c')['params']

  def loss(params: dict) -> jax.Array:
    logits, _ = network.forward({**start, 'params': params}, sound, None)  # no dropout: training predicts alike
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(2), labels])

  gradient = jax.jit(jax.grad(loss))(start['params'])
  for layer, rate in (('conv1', 1e-3), ('fc7', 1e-3), ('fc8', 1e-6)):
    before = start['params'][layer]
    decay = {'kernel': 0.01 * before['kernel'], 'bias': 0.0}
    for name in before:
      want = rate * (gradient[layer][name] + decay[name])
      assert np.abs(want).max() > 3e-7
      np.testing.assert_allclose(before[name] - after[layer][name], want, rtol=1e-2, atol=1e-7)


@pytest.mark.parametrize('change', [{'flip': True}, {'shift': 2}, {'brightness': 0.5}])
def test_visual_network_scales_and_resizes_and_augments_in_training_alone(change: dict) -> None:
  faces = np.random.default_rng(0).integers(0, 256, size=(4, 16, 8, 8, 3), dtype=np.uint8)
  model, network, *_ = modalities.visual(visual_config(**change), classes=3)
  rng = np.random.default_rng(1)
  statistics = {'mean': rng.normal(size=(8, 8, 3)), 'deviation': rng.uniform(0.5, 2, size=(8, 8, 3)), 'gain': GAIN}
  scaled = ((faces / 127.5 - 1 - statistics['mean']) / statistics['deviation'] * GAIN).astype(np.float32)
  variables = {'params': drawn(model, scaled), 'statistics': jax.tree.map(np.float32, statistics)}
  want, _ = jax.jit(model.apply)({'params': variables['params']}, scaled)
  forward = jax.jit(network.forward)
  size = float(np.abs(want).max())
  np.testing.assert_allclose(forward(variables, faces, None)[0], want, atol=1e-4 * size)
  augmented, _ = forward(variables, faces, jax.random.split(jax.random.key(1), 4))
  assert np.abs(augmented - want).max() > 1e-3 * size

"""Tests of learning from labels: against softmax regression in numpy, resuming, statistics, prediction."""

import pathlib
import types
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emo_jax.models.dropout import dropout
from emo_jax.training import batches, parallel, supervised

SGD = {'name': 'sgd', 'lr': 0.2, 'head_rate': 1.0, 'momentum': 0.9, 'weight_decay': 0.01, 'schedule': 'constant'}
OPTIM = types.SimpleNamespace(**SGD)
COUNT, CLASSES = 11, 3
INPUT = np.random.default_rng(0).normal(size=(COUNT, 4)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, CLASSES, COUNT)


def linear(variables: dict, x: jax.Array, keys: jax.Array | None) -> tuple[jax.Array, jax.Array]:
  return x @ variables['params']['kernel'] + variables['params']['bias'], x


def noisy(variables: dict, x: jax.Array, keys: jax.Array | None) -> tuple[jax.Array, jax.Array]:
  return linear(variables, dropout(x, 0.3, keys, 0), keys)


NOISY = supervised.build(noisy, jnp.asarray, OPTIM)


def start() -> dict:
  kernel = np.random.default_rng(2).normal(size=(4, CLASSES)).astype(np.float32)
  return {'params': {'kernel': kernel, 'bias': np.zeros(CLASSES, np.float32)}, 'statistics': {}}


def train(network: supervised.Network, folder: pathlib.Path, watch: object, **of: object) -> dict:
  settings = {'batch': 4, 'epochs': 4, 'optim_config': OPTIM, 'seed': 0, 'names': ('toy',)}
  read = of.pop('read', INPUT.__getitem__)
  return supervised.train(network, start(), read, LABELS, **{**settings, **of}, name='toy', folder=folder, watch=watch)


def softmax(x: np.ndarray) -> np.ndarray:
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def test_training_equals_softmax_regression_in_numpy(tmp_path: pathlib.Path, watch: Callable, lines: Callable) -> None:
  got = train(supervised.build(linear, jnp.asarray, OPTIM), tmp_path / 'c', watch())['params']
  rows_at = batches.shuffled_rows(COUNT, 4, padded_to=4, seed=0, names=('toy',))
  want = {name: x.astype(np.float64) for name, x in start()['params'].items()}
  velocity, losses, accuracies = {name: np.zeros_like(x) for name, x in want.items()}, [], []
  for step in range(4 * 3):
    rows, mask = rows_at(step)
    rows = rows[mask > 0]  # the third batch of an epoch has 3 rows, and counts as 3
    x, truth = INPUT[rows], np.eye(CLASSES)[LABELS[rows]]
    p = softmax(x @ want['kernel'] + want['bias'])
    losses.append(-np.log((p * truth).sum(1)).mean())
    accuracies.append((p.argmax(1) == LABELS[rows]).mean())
    gradient = {'kernel': x.T @ (p - truth) / len(rows) + 0.01 * want['kernel'], 'bias': (p - truth).mean(0)}
    for name in want:
      velocity[name] = 0.9 * velocity[name] - 0.2 * gradient[name]
      want[name] = want[name] + velocity[name]
  for name in want:
    np.testing.assert_allclose(got[name], want[name], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose([line['loss'] for line in lines()], losses, rtol=1e-4)
  np.testing.assert_allclose([line['accuracy'] for line in lines()], accuracies, rtol=1e-5)


@pytest.mark.parametrize('broken_at', [1, 5, 8])
def test_an_interrupted_training_ends_in_the_same_bytes(
  tmp_path: pathlib.Path, watch: Callable, broken_at: int
) -> None:
  whole = train(NOISY, tmp_path / 'whole', watch(save_every=3))
  calls = iter(range(100))

  def breaks(rows: np.ndarray) -> np.ndarray:
    if next(calls) == broken_at:
      raise OSError('the disk is gone')
    return INPUT[rows]

  with pytest.raises(OSError, match='the disk is gone'):
    train(NOISY, tmp_path / 'c', watch(save_every=3), read=breaks)
  resumed = train(NOISY, tmp_path / 'c', watch(save_every=3))
  for name in ('kernel', 'bias'):
    assert resumed['params'][name].tobytes() == whole['params'][name].tobytes()
    assert np.abs(whole['params'][name] - start()['params'][name]).max() > 0.01


def held_rows() -> supervised.Labelled:
  """Rows with labels that have nothing to do with them: their accuracy goes up and down, and often meets itself."""
  rng = np.random.default_rng(3)
  return rng.normal(size=(9, 4)).astype(np.float32).__getitem__, rng.integers(0, CLASSES, 9)


def test_the_epoch_with_the_most_held_rows_right_is_taken_the_earliest_of_equals(
  tmp_path: pathlib.Path, watch: Callable, lines: Callable
) -> None:
  got = train(NOISY, tmp_path / 'c', watch(), epochs=8, held=held_rows())
  written = lines()  # before the brute force writes its own
  epochs = [train(NOISY, tmp_path / str(e), watch(), epochs=e)['params'] for e in range(1, 9)]  # ends after each epoch
  x, labels = held_rows()[0](slice(None)), held_rows()[1]
  guesses = [softmax(x @ params['kernel'] + params['bias']) for params in epochs]
  accuracies = [(guess.argmax(1) == labels).mean() for guess in guesses]
  best = accuracies.index(max(accuracies))
  assert 0 < best < 7 and accuracies.count(max(accuracies)) > 1, 'the rows no longer tell the rules apart'
  for name in ('kernel', 'bias'):
    assert got['params'][name].tobytes() == epochs[best][name].tobytes()
  of_epochs = [line for line in written if line['train'] == 'toy/epochs']
  assert [line['step'] for line in of_epochs] == list(range(2, 24, 3))
  np.testing.assert_allclose([line['held_accuracy'] for line in of_epochs], accuracies, rtol=1e-6)
  losses = [-np.log(guess[range(9), labels]).mean() for guess in guesses]
  np.testing.assert_allclose([line['held_loss'] for line in of_epochs], losses, rtol=1e-4)
  for which in ('loss', 'accuracy'):
    of_steps = np.array([line[which] for line in written if line['train'] == 'toy']).reshape(8, 3)
    means = of_steps @ [4, 4, 3] / COUNT  # the third batch of an epoch has 3 rows
    np.testing.assert_allclose([line[f'train_{which}'] for line in of_epochs], means, rtol=1e-5)


@pytest.mark.parametrize('broken_at', [4, 9, 14, 22])
def test_an_interrupted_choice_falls_on_the_same_bytes(tmp_path: pathlib.Path, watch: Callable, broken_at: int) -> None:
  settings = {'epochs': 8, 'held': held_rows()}  # 24 steps
  whole = train(NOISY, tmp_path / 'whole', watch(), **settings)
  calls = iter(range(100))

  def breaks(rows: np.ndarray) -> np.ndarray:
    if next(calls) == broken_at:
      raise OSError('the disk is gone')
    return INPUT[rows]

  with pytest.raises(OSError, match='the disk is gone'):
    train(NOISY, tmp_path / 'c', watch(save_every=4), **settings, read=breaks)
  resumed = train(NOISY, tmp_path / 'c', watch(save_every=4), **settings)
  for name in ('kernel', 'bias'):
    assert resumed['params'][name].tobytes() == whole['params'][name].tobytes()


def test_draws_hang_on_seed_and_names(tmp_path: pathlib.Path, watch: Callable) -> None:
  settings = [{}, {'seed': 1}, {'names': ('toy', 1)}, {}]
  kernels = [
    train(NOISY, tmp_path / str(i), watch(), **of)['params']['kernel'].tobytes() for i, of in enumerate(settings)
  ]
  assert kernels[0] == kernels[3]
  assert len(set(kernels)) == 3


def test_a_diverging_training_is_stopped_with_its_name(tmp_path: pathlib.Path, watch: Callable) -> None:
  factors = iter([1, 1, 1, np.nan])
  with pytest.raises(FloatingPointError, match=r'toy: loss became nan at step 3; lower the learning rate'):
    train(NOISY, tmp_path / 'c', watch(), read=lambda rows: INPUT[rows] * np.float32(next(factors)))


@pytest.mark.parametrize('batch', [1, 4, 11, 20])
def test_prediction_keeps_the_order_of_rows_and_drops_the_padding(batch: int) -> None:
  variables = start()
  logits, features = supervised.predict(NOISY, variables, INPUT.__getitem__, COUNT, batch=batch)
  np.testing.assert_array_equal(features, INPUT)  # nothing dropped out
  np.testing.assert_allclose(logits, INPUT @ variables['params']['kernel'], rtol=1e-4, atol=1e-5)


def numpy_sound_image(x: np.ndarray) -> np.ndarray:
  def slope(x: np.ndarray) -> np.ndarray:
    at = lambda n: x[..., np.clip(np.arange(x.shape[-1]) + n, 0, x.shape[-1] - 1)]
    return (at(1) - at(-1) + 2 * (at(2) - at(-2))) / 10

  return np.stack([x, slope(x), slope(slope(x))], -1)


def test_image_statistics_are_those_of_all_rows_pixel_by_pixel() -> None:
  sound = np.random.default_rng(0).normal(60, 10, size=(7, 64, 8)).astype(np.float32)
  sound[:, 5] = 42.0  # a band that never varies
  images = numpy_sound_image(sound.astype(np.float64))
  network, _ = supervised.audio_network(audio_config(), classes=3)
  got = supervised.image_statistics(network, sound.__getitem__, 7, batch=3)  # batches of 3, 3 and 1
  np.testing.assert_allclose(got['mean'], images.mean(0), atol=1e-3)
  np.testing.assert_array_equal(got['deviation'][5], 1)
  np.testing.assert_allclose(np.delete(got['deviation'], 5, 0), np.delete(images.std(0), 5, 0), rtol=1e-2)


def test_statistics_of_face_clips_are_those_of_all_frames() -> None:
  faces = np.random.default_rng(0).integers(0, 256, size=(5, 16, 6, 4, 3), dtype=np.uint8)
  faces[:, :, 2] = 51  # a row of pixels that never varies
  network, _ = supervised.visual_network(visual_config(), classes=3)
  got = supervised.image_statistics(network, faces.__getitem__, 5, batch=2)
  frames = (faces.astype(np.float64) / 127.5 - 1).reshape(-1, 6, 4, 3)
  np.testing.assert_allclose(got['mean'], frames.mean(0), atol=1e-5)
  np.testing.assert_array_equal(got['deviation'][2], 1)
  np.testing.assert_allclose(np.delete(got['deviation'], 2, 0), np.delete(frames.std(0), 2, 0), rtol=1e-4)


@pytest.mark.parametrize('batch', [30, 64])
def test_pixels_that_never_vary_have_deviation_1_at_any_level(batch: int) -> None:
  sound = np.full((700, 64, 8), 99.7, np.float32)  # dB; its square is not exact in float32
  network, _ = supervised.audio_network(audio_config(), classes=3)
  got = supervised.image_statistics(network, sound.__getitem__, 700, batch=batch)
  np.testing.assert_array_equal(got['deviation'], 1)
  np.testing.assert_allclose(got['mean'][..., 0], 99.7, rtol=1e-5)


def audio_config(**of: object) -> types.SimpleNamespace:
  defaults = {'form': 'single', 'width': 1 / 64, 'size': 64, 'norm': 'none', 'dropout': 0.5, 'mask_time': 0}
  defaults |= {'mask_mel': 0, 'shift_mel': 0, 'level': 0.0, 'deltas': 5, 'z_score': 'before', 'optim': OPTIM}
  return types.SimpleNamespace(**{**defaults, **of})


def visual_config(**of: object) -> types.SimpleNamespace:
  defaults = {'width': 1 / 64, 'size': 8, 'norm': 'none', 'dropout': 0.0, 'scaling': 'fixed', 'flip': False}
  return types.SimpleNamespace(**{**defaults, 'shift': 0, 'brightness': 0.0, 'optim': OPTIM, **of})


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
  }
  network, model = supervised.audio_network(audio_config(dropout=0.0, mask_time=64, mask_mel=64), classes=3)
  images = (numpy_sound_image(sound) - statistics['mean']) / statistics['deviation']
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
  network, model = supervised.audio_network(audio_config(size=80, z_score='after'), classes=3)
  images = bilinear(numpy_sound_image(sound.astype(np.float64)), 80)
  statistics = supervised.image_statistics(network, sound.__getitem__, 5, batch=2)
  np.testing.assert_allclose(statistics['mean'], images.mean(0), atol=1e-3)
  np.testing.assert_allclose(statistics['deviation'], images.std(0), rtol=1e-2)
  standardised = ((images - images.mean(0)) / images.std(0)).astype(np.float32)
  variables = {'params': drawn(model, standardised), 'statistics': statistics}
  want, _ = jax.jit(model.apply)({'params': variables['params']}, standardised)
  got, _ = jax.jit(network.forward)(variables, sound, None)
  np.testing.assert_allclose(got, want, atol=1e-3 * float(np.abs(want).max()))


def test_a_step_of_the_grouped_network_with_the_scripts_switches(tmp_path: pathlib.Path, watch: Callable) -> None:
  settings = types.SimpleNamespace(**{**SGD, 'lr': 1e-3, 'head_rate': 1e-3})
  config = audio_config(form='caffe', size=227, z_score='after', deltas=9, dropout=0.0, optim=settings)
  network, model = supervised.audio_network(config, classes=3)
  sound = np.random.default_rng(0).normal(60, 10, size=(2, 64, 64)).astype(np.float32)
  statistics = supervised.image_statistics(network, sound.__getitem__, 2, batch=2)
  assert statistics['mean'].shape == (227, 227, 3)
  start = {'params': drawn(model, np.zeros((1, 227, 227, 3), np.float32)), 'statistics': statistics}
  of = {'batch': 2, 'epochs': 1, 'optim_config': settings, 'seed': 0, 'names': (), 'name': 'audio', 'watch': watch()}
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
  network, model = supervised.visual_network(visual_config(**change), classes=3)
  rng = np.random.default_rng(1)
  statistics = {'mean': rng.normal(size=(8, 8, 3)), 'deviation': rng.uniform(0.5, 2, size=(8, 8, 3))}
  scaled = ((faces / 127.5 - 1 - statistics['mean']) / statistics['deviation']).astype(np.float32)
  variables = {'params': drawn(model, scaled), 'statistics': jax.tree.map(np.float32, statistics)}
  want, _ = jax.jit(model.apply)({'params': variables['params']}, scaled)
  forward = jax.jit(network.forward)
  size = float(np.abs(want).max())
  np.testing.assert_allclose(forward(variables, faces, None)[0], want, atol=1e-4 * size)
  augmented, _ = forward(variables, faces, jax.random.split(jax.random.key(1), 4))
  assert np.abs(augmented - want).max() > 1e-3 * size


def test_nothing_crosses_between_host_and_device_unasked_in_training(tmp_path: pathlib.Path, watch: Callable) -> None:
  state = {
    **start(),
    'opt': jax.device_get(supervised.optim.direction(OPTIM).init(start()['params'])),
    'step': np.asarray(0, np.int32),
    'steps': np.asarray(3, np.int32),
  }
  rows = np.arange(4 * parallel.device_count(), dtype=np.int32) % COUNT
  mask = np.ones(len(rows), np.float32)
  batch = {'input': INPUT[rows], 'label': LABELS[rows].astype(np.int32), 'mask': mask, 'row': rows}
  key, watching = jax.random.key(0), watch(save_every=2)
  with jax.transfer_guard('disallow'):
    state = supervised.loop.fit(
      NOISY.train_step, state, lambda _: batch, key, steps=3, name='toy', folder=tmp_path / 'c', watch=watching
    )
  assert jnp.isfinite(state['params']['kernel']).all()

"""Tests of contrastive divergence: against loops in numpy, exact likelihoods and scikit-learn."""

import itertools
import pathlib
import types
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neural_network import BernoulliRBM

from emo_jax.models import rbm
from emo_jax.training import batches, contrastive, parallel, rngs

NAMES = ('fusion', 0, 'rbm', 0)
DATA = np.random.default_rng(0).uniform(size=(10, 5)).astype(np.float32)


def config(**of: object) -> types.SimpleNamespace:
  defaults = {'lr': 0.1, 'momentum': (0.5, 0.2, 0.0), 'weight_decay': 0.01, 'batch': 4, 'epochs': 5}
  more = {'average_epochs': 2, 'cd_steps': 1, 'sample_visible': False, 'init_scale': 0.1}
  return types.SimpleNamespace(**{**defaults, **more, **of})


def train(folder: pathlib.Path, watch: object, data: np.ndarray = DATA, *, hidden: int = 3, **of: object) -> rbm.Params:
  return contrastive.train_rbm(
    data, hidden=hidden, config=config(**of), seed=0, names=NAMES, name='rbm', folder=folder, watch=watch
  )


def trajectory(settings: types.SimpleNamespace, data: np.ndarray, hidden: int) -> tuple[list[rbm.Params], list[float]]:
  """Parameters after each step and reconstruction errors, step by step in numpy; only the sampling is shared."""
  rows_at = batches.shuffled_rows(len(data), settings.batch, padded_to=settings.batch, seed=0, names=NAMES)
  key, per_epoch = rngs.stream(0, *NAMES, 'draws'), -(-len(data) // settings.batch)
  start = rbm.init(rngs.stream(0, *NAMES, 'init'), data.shape[1], hidden, scale=settings.init_scale)
  params = {name: np.asarray(x, np.float64) for name, x in start.items()}
  velocity, states, errors = {name: np.zeros_like(x) for name, x in params.items()}, [], []
  for step in range(settings.epochs * per_epoch):
    rows, mask = rows_at(step)
    rows = rows[mask > 0]
    keys = rngs.row_keys(key, jnp.int32(step), jnp.asarray(rows))
    single = {name: jnp.asarray(x, jnp.float32) for name, x in params.items()}
    ways = {'steps': settings.cd_steps, 'sample_visible': settings.sample_visible}
    v0, vk = data[rows].astype(np.float64), np.asarray(rbm.negative_phase(single, data[rows], keys, **ways))
    h0, hk = (1 / (1 + np.exp(-(v @ params['weights'] + params['hidden_bias']))) for v in (v0, vk))
    rise = {  # the way up in likelihood
      'weights': (v0.T @ h0 - vk.T @ hk) / len(rows) - settings.weight_decay * params['weights'],
      'visible_bias': (v0 - vk).mean(0),
      'hidden_bias': (h0 - hk).mean(0),
    }
    momentum = settings.momentum[min(step // per_epoch, len(settings.momentum) - 1)]
    for name in params:
      velocity[name] = momentum * velocity[name] + settings.lr * rise[name]
      params[name] = params[name] + velocity[name]
    states.append(dict(params))
    errors.append(((v0 - vk) ** 2).mean())
  return states, errors


@pytest.mark.parametrize(
  'of',
  [{}, {'cd_steps': 2, 'sample_visible': True}, {'average_epochs': 9}, {'average_epochs': 0}, {'momentum': (0.9,)}],
)
def test_training_equals_numpy_with_momentum_by_epoch_and_the_mean_over_the_last_epochs(
  tmp_path: pathlib.Path, watch: Callable, lines: Callable, of: dict
) -> None:
  got = train(tmp_path / 'c', watch(), **of)
  settings = config(**of)
  states, errors = trajectory(settings, DATA, 3)
  last = states[-min(max(settings.average_epochs * 3, 1), len(states)) :]  # 3 steps an epoch
  for name in got:
    want = np.mean([state[name] for state in last], 0)
    np.testing.assert_allclose(got[name], want, atol=1e-5)
    assert isinstance(got[name], np.ndarray)
  np.testing.assert_allclose([line['reconstruction_error'] for line in lines()], errors, rtol=1e-4)


def test_a_step_is_compiled_once_for_all_folds() -> None:
  settings = {'lr': 0.1, 'momentum': (0.5,), 'weight_decay': 0.0, 'cd_steps': 1, 'sample_visible': False}
  assert contrastive.cd_step(**settings) is contrastive.cd_step(**settings)
  assert contrastive.cd_step(**settings) is not contrastive.cd_step(**{**settings, 'cd_steps': 2})


@pytest.mark.parametrize('broken_at', [2, 8, 13])
def test_an_interrupted_training_ends_in_the_same_bytes(
  tmp_path: pathlib.Path, watch: Callable, monkeypatch: pytest.MonkeyPatch, broken_at: int
) -> None:
  whole = train(tmp_path / 'whole', watch(save_every=4))
  calls, shard = iter(range(100)), parallel.shard

  def breaks(batch: dict) -> dict:
    if next(calls) == broken_at:
      raise OSError('the power is gone')
    return shard(batch)

  with monkeypatch.context() as patched, pytest.raises(OSError, match='the power is gone'):
    patched.setattr(parallel, 'shard', breaks)
    train(tmp_path / 'c', watch(save_every=4))
  resumed = train(tmp_path / 'c', watch(save_every=4))
  for name in whole:
    assert resumed[name].tobytes() == whole[name].tobytes()


def test_values_that_are_not_finite_stop_the_training(tmp_path: pathlib.Path, watch: Callable) -> None:
  data = DATA.copy()
  data[3, 2] = np.nan
  with pytest.raises(FloatingPointError, match='rbm: reconstruction_error became nan at step'):
    train(tmp_path / 'c', watch(), data)


def log_likelihood(params: rbm.Params, data: np.ndarray) -> float:
  """Mean exact log p(v), the partition function summed over all states."""
  visible, hidden = (np.array(list(itertools.product((0.0, 1.0), repeat=n))) for n in params['weights'].shape)
  value = lambda v: np.logaddexp.reduce(
    (v @ params['visible_bias'])[:, None] + hidden @ params['hidden_bias'] + v @ params['weights'] @ hidden.T, axis=1
  )
  return float(np.mean(value(data)) - np.logaddexp.reduce(value(visible)))


@pytest.mark.parametrize('cd_steps', [1, 5])
def test_the_exact_likelihood_of_the_data_rises(tmp_path: pathlib.Path, watch: Callable, cd_steps: int) -> None:
  bars = np.array([[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1], [1, 1, 1, 1, 1, 1]], np.float32)
  data = np.repeat(bars, 5, 0)
  of = {'cd_steps': cd_steps, 'sample_visible': True, 'weight_decay': 0.0, 'lr': 0.2, 'batch': 20, 'average_epochs': 1}
  likelihoods = [
    log_likelihood(train(tmp_path / str(epochs), watch(log_every=500), data, hidden=6, epochs=epochs, **of), data)
    for epochs in (1, 300, 1000)
  ]
  assert likelihoods[0] == pytest.approx(-6 * np.log(2), abs=0.1)  # to begin with, all states are alike
  assert likelihoods[1] > likelihoods[0] + 0.3
  assert likelihoods[2] > likelihoods[1] + 0.3
  assert likelihoods[2] < -np.log(4)  # the entropy of the data: no model can do better


def test_digits_are_learnt_as_well_as_scikit_learn_learns_them(tmp_path: pathlib.Path, watch: Callable) -> None:
  data = (load_digits().data / 16).astype(np.float32)
  of = {'epochs': 7, 'batch': 10, 'average_epochs': 1, 'weight_decay': 0.0, 'momentum': (0.0,), 'init_scale': 0.01}
  of |= {'sample_visible': True}
  params = train(tmp_path / 'c', watch(log_every=200), data, hidden=64, **of)
  keys = jax.random.split(jax.random.key(0), len(data))
  ours = float(jnp.mean(rbm.pseudo_likelihood(params, jnp.asarray(data), keys)))
  sklearn = BernoulliRBM(n_components=64, learning_rate=0.1, batch_size=10, n_iter=7, random_state=0).fit(data)
  theirs = sklearn.score_samples(data).mean()
  assert ours == pytest.approx(-21, abs=1.5)
  assert ours > theirs - 1
  # The same estimate of the same parameters: only the units that happen to be flipped differ.
  sklearn.components_ = params['weights'].T
  sklearn.intercept_hidden_, sklearn.intercept_visible_ = params['hidden_bias'], params['visible_bias']
  assert sklearn.score_samples(data).mean() == pytest.approx(ours, abs=1.0)


def train_stack(folder: pathlib.Path, watch: object, **of: object) -> list[rbm.Params]:
  return contrastive.train_stack(
    DATA, units=(4, 3, 2), config=config(**of), seed=0, name='toy', folder=folder, watch=watch
  )


def test_each_layer_sees_the_probabilities_of_the_one_below(
  tmp_path: pathlib.Path, watch: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
  seen, plain = [], contrastive.train_rbm
  spy = lambda data, **of: (seen.append((data, of['hidden'])), plain(data, **of))[1]
  monkeypatch.setattr(contrastive, 'train_rbm', spy)
  stack = train_stack(tmp_path, watch())
  assert [hidden for _, hidden in seen] == [4, 3, 2]
  assert [layer['weights'].shape for layer in stack] == [(5, 4), (4, 3), (3, 2)]
  want = DATA
  for (data, _), layer in zip(seen, stack, strict=True):
    np.testing.assert_allclose(data, want, rtol=1e-5)
    want = 1 / (1 + np.exp(-(want @ layer['weights'] + layer['hidden_bias'])))


def test_layers_that_are_done_are_not_trained_again(
  tmp_path: pathlib.Path, watch: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
  whole = train_stack(tmp_path / 'whole', watch())
  plain, trained = contrastive.train_rbm, []

  def breaks(data: np.ndarray, **of: object) -> rbm.Params:
    trained.append(of['hidden'])
    if len(trained) == 2:
      raise OSError('the power is gone')
    return plain(data, **of)

  ticks = []
  monkeypatch.setattr(contrastive, 'train_rbm', breaks)
  with pytest.raises(OSError, match='the power is gone'):
    train_stack(tmp_path / 'c', watch())
  resumed = train_stack(tmp_path / 'c', watch(ticks.append))
  assert trained == [4, 3, 3, 2]
  assert sum(ticks) == 3 * 5 * 3  # progress counts what was done before
  for layer, other in zip(resumed, whole, strict=True):
    assert all(layer[name].tobytes() == other[name].tobytes() for name in layer)


def test_layers_and_seeds_have_draws_of_their_own(tmp_path: pathlib.Path, watch: Callable) -> None:
  of = {'units': (5, 5), 'config': config(epochs=1), 'name': 'toy', 'watch': watch()}
  stacks = [contrastive.train_stack(DATA, seed=seed, folder=tmp_path / str(seed), **of) for seed in (0, 1)]
  assert len({layer['weights'].tobytes() for stack in stacks for layer in stack}) == 4

"""Tests of the unrolled stack: against PCA, scipy's L-BFGS-B and its own promises."""

import itertools
import pathlib
from collections.abc import Callable

import jax
import numpy as np
import pytest
import scipy.optimize

from emo_jax.models import dbn, rbm
from emo_jax.training import autoencoder, loop, parallel

TWO = dbn.stack_units(2, visible='probability', top='linear')
DATA = np.random.default_rng(0).uniform(size=(12, 6)).astype(np.float32)


def some_stack(kinds: dbn.Kinds, *sizes: int) -> list[rbm.Params]:
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.normal(scale=0.3, size=shape).astype(np.float32)
  return [
    {'weights': draw(below, above), 'visible_bias': draw(below), 'hidden_bias': draw(above)}
    for (below, above), _ in zip(itertools.pairwise(sizes), kinds, strict=True)
  ]


STACK = some_stack(TWO, 6, 4, 2)


def train(
  folder: pathlib.Path,
  watch: loop.Watch,
  stack: dbn.Stack = STACK,
  kinds: dbn.Kinds = TWO,
  data: np.ndarray = DATA,
  *,
  iterations: int = 10,
) -> list[rbm.Params]:
  return autoencoder.train(stack, kinds, data, iterations=iterations, name='tune', folder=folder, watch=watch)


def test_what_is_not_finite_stops_it_and_leaving_it_out_is_no_way_out(tmp_path: pathlib.Path, watch: Callable) -> None:
  bad = DATA.copy()
  bad[3, 2] = np.nan
  with pytest.raises(FloatingPointError, match='tune: reconstruction_error became nan at step 0'):
    train(tmp_path / 'stop', watch(), data=bad)
  of = {'iterations': 20, 'name': 'tune', 'watch': watch(), 'nonfinite': 'skip'}
  with pytest.raises(FloatingPointError, match=r'became nan at step 9.* updates of 10 steps'):
    autoencoder.train(STACK, TWO, bad, folder=tmp_path / 'skip', **of)


def errors(lines: Callable[[], list[dict]]) -> np.ndarray:
  return np.array([line['reconstruction_error'] for line in lines() if line['train'] == 'tune'])


def sigmoid(x: np.ndarray) -> np.ndarray:
  return 1 / (1 + np.exp(-x))


def error_of(ways: list[np.ndarray], data: np.ndarray) -> float:
  """The mean squared error of 6-4-2-4-6 with a linear code: four times weights and bias."""
  w1, b1, w2, b2, w3, b3, w4, b4 = ways
  code = sigmoid(data @ w1 + b1) @ w2 + b2
  return float(np.mean((sigmoid(sigmoid(code @ w3 + b3) @ w4 + b4) - data) ** 2))


def ways_of(stack: dbn.Stack) -> list[np.ndarray]:
  up = [layer[name] for layer in stack for name in ('weights', 'hidden_bias')]
  down = [way for layer in reversed(stack) for way in (layer['weights'].T, layer['visible_bias'])]
  return [np.asarray(way, np.float64) for way in (*up, *down)]


def test_the_error_falls_from_that_of_the_stack_and_never_rises(
  tmp_path: pathlib.Path, watch: Callable, lines: Callable
) -> None:
  train(tmp_path / 'c', watch(), iterations=60)
  found = errors(lines)
  assert len(found) == 60
  assert found[0] == pytest.approx(error_of(ways_of(STACK), DATA), rel=1e-5)
  assert np.diff(found).max() <= 1e-7
  assert found[-1] < found[0] / 3


def test_it_ends_where_scipy_ends(tmp_path: pathlib.Path, watch: Callable, lines: Callable) -> None:
  data, kinds = np.random.default_rng(0).uniform(size=(20, 4)), (rbm.Units('probability', 'linear'),)
  stack = some_stack(kinds, 4, 2)
  start = ways_of(stack)
  ends = np.cumsum([way.size for way in start])[:-1]

  def loss(flat: np.ndarray) -> float:
    w1, b1, w2, b2 = (part.reshape(way.shape) for part, way in zip(np.split(flat, ends), start, strict=True))
    return float(np.mean((sigmoid((data @ w1 + b1) @ w2 + b2) - data) ** 2))

  flat = np.concatenate([way.ravel() for way in start])
  theirs = scipy.optimize.minimize(loss, flat, method='L-BFGS-B', options={'maxiter': 500, 'maxfun': 10**5})
  assert theirs.success
  train(tmp_path / 'c', watch(), stack, kinds, data.astype(np.float32), iterations=120)
  assert errors(lines)[-1] == pytest.approx(theirs.fun, rel=1e-3)


def test_linear_units_reach_the_error_of_pca(tmp_path: pathlib.Path, watch: Callable, lines: Callable) -> None:
  kinds, rng = (rbm.Units('linear', 'linear'),), np.random.default_rng(1)
  data = (rng.normal(size=(30, 5)) @ rng.normal(size=(5, 5)) + rng.normal(size=5)).astype(np.float32)
  params = train(tmp_path / 'c', watch(), some_stack(kinds, 5, 2), kinds, data, iterations=100)
  left, values, _ = np.linalg.svd(data - data.mean(0), full_matrices=False)
  assert errors(lines)[-1] == pytest.approx(np.sum(values[2:] ** 2) / data.size, rel=1e-3)
  codes = data @ params[0]['weights'] + params[0]['hidden_bias']
  parts = left[:, :2] * values[:2]  # the codes span the same plane
  coefficients = np.linalg.lstsq(np.c_[codes, np.ones(30)], parts, rcond=None)[0]
  np.testing.assert_allclose(np.c_[codes, np.ones(30)] @ coefficients, parts, atol=0.02 * values[0])


def test_the_way_up_comes_back_changed_and_in_the_shape_of_the_stack(tmp_path: pathlib.Path, watch: Callable) -> None:
  found = train(tmp_path / 'c', watch(), iterations=3)
  assert [{name: x.shape for name, x in layer.items()} for layer in found] == [
    {name: x.shape for name, x in layer.items()} for layer in STACK
  ]
  for layer, old in zip(found, STACK, strict=True):
    assert all(isinstance(x, np.ndarray) for x in layer.values())
    assert np.abs(layer['weights'] - old['weights']).max() > 1e-3
    np.testing.assert_array_equal(layer['visible_bias'], old['visible_bias'])  # the way down has its own


@pytest.mark.parametrize('broken_at', [3, 7])
def test_an_interrupted_training_ends_in_the_same_bytes(
  tmp_path: pathlib.Path, watch: Callable, power_cut: Callable, broken_at: int
) -> None:
  whole = train(tmp_path / 'whole', watch(save_every=1000))
  with power_cut(broken_at):
    train(tmp_path / 'c', watch(save_every=2))
  ticks = []
  resumed = train(tmp_path / 'c', watch(ticks.append, save_every=2))
  assert ticks[0] == broken_at // 2 * 2 and sum(ticks) == 10
  for layer, other in zip(resumed, whole, strict=True):
    assert all(layer[name].tobytes() == other[name].tobytes() for name in layer)


def test_rows_that_fill_up_the_devices_do_not_count(
  tmp_path: pathlib.Path, watch: Callable, lines: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
  alone = train(tmp_path / 'alone', watch(), iterations=5)
  monkeypatch.setattr(parallel, 'rows_a_step', lambda rows: rows + 3)
  filled = train(tmp_path / 'filled', watch(), iterations=5)
  np.testing.assert_allclose(errors(lines)[5:], errors(lines)[:5], rtol=1e-5)
  for layer, other in zip(filled, alone, strict=True):
    assert all(np.allclose(layer[name], other[name], atol=1e-4) for name in layer)


def test_what_cannot_get_better_stays_as_it_is(tmp_path: pathlib.Path, watch: Callable, lines: Callable) -> None:
  kinds, zeros = (rbm.Units('linear', 'linear'),), np.zeros(6, np.float32)
  identity = {'weights': np.eye(6, dtype=np.float32), 'visible_bias': zeros, 'hidden_bias': zeros}
  (found,) = train(tmp_path / 'c', watch(), [identity], kinds)
  np.testing.assert_array_equal(found['weights'], np.eye(6))
  assert not errors(lines).any()


def test_the_iteration_is_compiled_once_for_all_folds(
  tmp_path: pathlib.Path, watch: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
  kinds = [rbm.Units('probability', 'gaussian'), rbm.Units('linear', 'bernoulli')]  # used nowhere else
  plain, traced = dbn.autoencode, []
  monkeypatch.setattr(dbn, 'autoencode', lambda *of: (traced.append(1), plain(*of))[1])
  train(tmp_path / '0', watch(), STACK, kinds, iterations=2)
  first = len(traced)
  train(tmp_path / '1', watch(), jax.tree.map(lambda x: x + 0.1, STACK), kinds, 1 - DATA, iterations=2)
  assert len(traced) == first > 0

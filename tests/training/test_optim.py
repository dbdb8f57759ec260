"""Tests of the optimisers against loops in numpy."""

import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emo_jax.training import optim


def config(**of: object) -> types.SimpleNamespace:
  defaults = {'name': 'sgd', 'lr': 0.1, 'head_rate': 1.0, 'momentum': 0.9, 'weight_decay': 0.05}
  return types.SimpleNamespace(**{**defaults, 'schedule': 'constant', **of})


def some_params() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  return {'kernel': rng.normal(size=(3, 2)).astype(np.float32), 'bias': rng.normal(size=2).astype(np.float32)}


def gradients(steps: int) -> list[dict[str, np.ndarray]]:
  rng = np.random.default_rng(1)
  return [jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), some_params()) for _ in range(steps)]


def optimised(of: types.SimpleNamespace, steps: int) -> dict[str, jax.Array]:
  direction, params = optim.direction(of), some_params()
  state = direction.init(params)
  for gradient in gradients(steps):
    update, state = direction.update(gradient, state, params)
    params = jax.tree.map(lambda p, u: p - of.lr * u, params, update)
  return params


def test_sgd_equals_matconvnets_momentum_with_decay_on_kernels_alone() -> None:
  want = {name: x.astype(np.float64) for name, x in some_params().items()}
  momentum = {name: np.zeros_like(x) for name, x in want.items()}
  for gradient in gradients(5):
    for name, decay in [('kernel', 0.05), ('bias', 0.0)]:
      momentum[name] = 0.9 * momentum[name] - decay * want[name] - gradient[name]
      want[name] = want[name] + 0.1 * momentum[name]
  got = optimised(config(), 5)
  for name in want:
    np.testing.assert_allclose(got[name], want[name], rtol=1e-5)


def test_adamw_equals_a_loop_with_decay_apart_from_the_moments() -> None:
  want = {name: x.astype(np.float64) for name, x in some_params().items()}
  first = {name: np.zeros_like(x) for name, x in want.items()}
  second = {name: np.zeros_like(x) for name, x in want.items()}
  for t, gradient in enumerate(gradients(5), start=1):
    for name, decay in [('kernel', 0.05), ('bias', 0.0)]:
      first[name] = 0.9 * first[name] + 0.1 * gradient[name]
      second[name] = 0.999 * second[name] + 0.001 * gradient[name] ** 2
      step = first[name] / (1 - 0.9**t) / (np.sqrt(second[name] / (1 - 0.999**t)) + 1e-8)
      want[name] = want[name] - 0.1 * (step + decay * want[name])
  got = optimised(config(name='adamw'), 5)
  for name in want:
    np.testing.assert_allclose(got[name], want[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('head', ['fc8', 'head'])
@pytest.mark.parametrize('name', ['sgd', 'adamw'])
def test_the_last_layer_goes_its_share_of_the_way_with_its_decay(name: str, head: str) -> None:
  rng = np.random.default_rng(2)
  kernel = lambda: {'kernel': rng.normal(size=(3, 2)).astype(np.float32), 'bias': np.ones(2, np.float32)}
  params = {'stack': [kernel(), kernel()], head: kernel()}
  slow, plain = (optim.direction(config(name=name, head_rate=rate)) for rate in (0.001, 1.0))
  states = slow.init(params), plain.init(params)
  for _ in range(3):  # the same parameters each time: the moments too are to be the same
    gradient = {'stack': [kernel(), kernel()], head: kernel()}
    update, state = slow.update(gradient, states[0], params)
    want, other = plain.update(gradient, states[1], params)
    states = state, other
    jax.tree.map(np.testing.assert_array_equal, update['stack'], want['stack'])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 0.001 * b, rtol=1e-5), update[head], want[head])


def test_sgd_moves_the_last_layer_as_matconvnets_layer_rates_do() -> None:
  params, want = {'fc8': some_params()}, {name: x.astype(np.float64) for name, x in some_params().items()}
  momentum = {name: np.zeros_like(x) for name, x in want.items()}
  direction = optim.direction(config(head_rate=0.5))
  state = direction.init(params)
  for gradient in gradients(5):
    update, state = direction.update({'fc8': gradient}, state, params)
    params = jax.tree.map(lambda p, u: p - 0.1 * u, params, update)
    for name, decay in [('kernel', 0.05), ('bias', 0.0)]:
      momentum[name] = 0.9 * momentum[name] - decay * want[name] - gradient[name]
      want[name] = want[name] + 0.1 * 0.5 * momentum[name]  # the layer's rate: lr times its own
  for name in want:
    np.testing.assert_allclose(params['fc8'][name], want[name], rtol=1e-5)


def test_constant_rate_is_constant() -> None:
  rates = [float(optim.learning_rate(config(), jnp.int32(step), jnp.int32(200))) for step in (0, 7, 199)]
  np.testing.assert_allclose(rates, 0.1, rtol=1e-6)


@pytest.mark.parametrize(
  ('step', 'share'),
  [
    (0, 1 / 20),
    (9, 10 / 20),
    (20, 0.5 * (1 + math.cos(0.1 * math.pi))),
    (100, 0.5),
    (150, 0.5 * (1 - math.sqrt(0.5))),
    (199, 0.5 * (1 - math.cos(math.pi / 200))),
  ],
)
def test_cosine_rate_warms_up_over_a_tenth_and_ends_near_0(step: int, share: float) -> None:
  rate = jax.jit(lambda step, steps: optim.learning_rate(config(schedule='cosine'), step, steps))
  assert float(rate(jnp.int32(step), jnp.int32(200))) == pytest.approx(0.1 * share, rel=1e-3, abs=1e-7)


def test_unknown_words_are_refused_by_name() -> None:
  with pytest.raises(ValueError, match=r"optim.name='lion'.*sgd or adamw"):
    optim.direction(config(name='lion'))
  with pytest.raises(ValueError, match=r"optim.schedule='step'.*constant or cosine"):
    optim.learning_rate(config(schedule='step'), jnp.int32(0), jnp.int32(1))

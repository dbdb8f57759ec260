"""Tests of the RBM against exact enumeration of all states and against automatic differentiation."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emo_jax.models import rbm

SIZES = [(1, 1), (3, 2), (4, 6), (6, 4)]


def states(units: int) -> np.ndarray:
  return np.array(list(itertools.product((0.0, 1.0), repeat=units)))


def some_rbm(visible: int, hidden: int, seed: int = 0) -> rbm.Params:
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  return {'weights': draw(visible, hidden), 'visible_bias': draw(visible), 'hidden_bias': draw(hidden)}


def joint(params: rbm.Params) -> np.ndarray:
  """p(v, h) [2**V, 2**H] from the energy, state by state."""
  weights, b, c = (np.asarray(params[name], np.float64) for name in ('weights', 'visible_bias', 'hidden_bias'))
  visible, hidden = states(len(b)), states(len(c))
  negative_energy = np.array([[b @ v + c @ h + v @ weights @ h for h in hidden] for v in visible])
  unnormalised = np.exp(negative_energy)
  return unnormalised / unnormalised.sum()


@pytest.mark.parametrize(('visible', 'hidden'), SIZES)
def test_conditionals_equal_enumeration(visible: int, hidden: int) -> None:
  params = some_rbm(visible, hidden)
  p = joint(params)
  given_visible = (p / p.sum(1, keepdims=True)) @ states(hidden)
  given_hidden = (p / p.sum(0, keepdims=True)).T @ states(visible)
  np.testing.assert_allclose(rbm.hidden_probability(params, states(visible)), given_visible, rtol=1e-4)
  np.testing.assert_allclose(rbm.visible_probability(params, states(hidden)), given_hidden, rtol=1e-4)


@pytest.mark.parametrize(('visible', 'hidden'), SIZES)
def test_free_energy_gives_the_marginal_of_the_visible_units(visible: int, hidden: int) -> None:
  params = some_rbm(visible, hidden)
  energy = np.asarray(rbm.free_energy(params, jnp.asarray(states(visible), jnp.float32)), np.float64)
  p = np.exp(-energy)
  np.testing.assert_allclose(p / p.sum(), joint(params).sum(1), rtol=1e-4)


def test_init_draws_weights_of_the_scale_and_zero_biases() -> None:
  params = rbm.init(jax.random.key(0), 200, 300, scale=0.02)
  assert {name: x.shape for name, x in params.items()} == {
    'weights': (200, 300),
    'visible_bias': (200,),
    'hidden_bias': (300,),
  }
  assert abs(float(params['weights'].std()) - 0.02) < 2e-4
  assert abs(float(params['weights'].mean())) < 4 * 0.02 / np.sqrt(60000)
  assert not params['visible_bias'].any() and not params['hidden_bias'].any()


@pytest.mark.parametrize('masked', [False, True])
def test_contrastive_gradient_equals_that_of_the_free_energies(masked: bool) -> None:
  params, rows = some_rbm(6, 4), 7
  rng = np.random.default_rng(1)
  positive, negative = (jnp.asarray(rng.uniform(size=(rows, 6)), jnp.float32) for _ in range(2))
  mask = jnp.asarray([1, 1, 0, 1, 0, 1, 1] if masked else [1] * rows, jnp.float32)

  def loss(params: rbm.Params) -> jax.Array:
    difference = rbm.free_energy(params, positive) - rbm.free_energy(params, jax.lax.stop_gradient(negative))
    return jnp.sum(difference * mask) / jnp.sum(mask)

  want = jax.grad(loss)(params)
  got = rbm.contrastive_gradient(params, positive, negative, mask)
  for name in want:
    np.testing.assert_allclose(got[name] / mask.sum(), want[name], atol=1e-6)


def test_draws_follow_their_probabilities_and_belong_to_rows() -> None:
  probability = jnp.tile(jnp.asarray([0.0, 0.1, 0.5, 0.9, 1.0]), (20000, 1))
  keys = jax.random.split(jax.random.key(0), 20000)
  drawn = np.asarray(rbm.bernoulli(probability, keys, 0))
  assert set(np.unique(drawn)) == {0.0, 1.0}
  np.testing.assert_allclose(drawn.mean(0), probability[0], atol=4 * np.sqrt(0.25 / 20000))
  assert drawn[:, 0].max() == 0 and drawn[:, 4].min() == 1
  np.testing.assert_array_equal(rbm.bernoulli(probability[100:130], keys[100:130], 0), drawn[100:130])
  assert (np.asarray(rbm.bernoulli(probability, keys, 1)) != drawn)[:, 2].mean() == pytest.approx(0.5, abs=0.02)


def test_gibbs_sampling_reproduces_the_exact_distribution() -> None:
  params, chains = some_rbm(4, 3, seed=2), 20000
  keys = jax.random.split(jax.random.key(0), chains)
  sample = jax.jit(lambda visible: rbm.negative_phase(params, visible, keys, steps=25, sample_visible=True))
  visible = np.asarray(sample(jnp.zeros((chains, 4))))
  observed = np.array([(visible == state).all(1).sum() for state in states(4)])
  expected = chains * joint(params).sum(1)
  assert observed.sum() == chains and expected.min() > 5
  assert ((observed - expected) ** 2 / expected).sum() < 45  # chi-square, 15 degrees of freedom: one in 10,000


def test_unsampled_visible_units_stand_for_their_probabilities() -> None:
  params, chains = some_rbm(4, 2), 4000
  data = jnp.tile(jnp.asarray([1.0, 0.0, 0.3, 1.0]), (chains, 1))
  keys = jax.random.split(jax.random.key(0), chains)
  got = np.asarray(rbm.negative_phase(params, data, keys, steps=1, sample_visible=False))
  choices = np.asarray(rbm.visible_probability(params, jnp.asarray(states(2), jnp.float32)))
  of_choice = np.array([np.isclose(got, choice, atol=1e-6).all(1).mean() for choice in choices])
  on = np.asarray(rbm.hidden_probability(params, data[0]))
  want = np.prod(np.where(states(2) == 1, on, 1 - on), axis=1)
  np.testing.assert_allclose(of_choice, want, atol=4 * np.sqrt(0.25 / chains))  # one of 4 hidden states, each so often


def test_pseudo_likelihood_is_unbiased() -> None:
  visible, params, draws = 4, some_rbm(4, 3), 4000
  p = joint(params).sum(1)
  of_state = {tuple(v): p[i] for i, v in enumerate(states(visible))}
  for v in states(visible)[[0, 5, 11, 15]]:
    flips = [tuple(np.where(np.arange(visible) == i, 1 - v, v)) for i in range(visible)]
    terms = np.array([np.log(of_state[tuple(v)] / (of_state[tuple(v)] + of_state[flip])) for flip in flips])
    keys = jax.random.split(jax.random.key(3), draws)
    got = np.asarray(rbm.pseudo_likelihood(params, jnp.tile(jnp.asarray(v, jnp.float32), (draws, 1)), keys))
    nearest = np.abs(got[:, None] - visible * terms).min(1)
    assert nearest.max() < 1e-4  # each draw is V log p(v_i | the others) of one unit i
    assert abs(got.mean() - terms.sum()) < 4 * got.std() / np.sqrt(draws)

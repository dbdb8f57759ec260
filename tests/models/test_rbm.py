"""Tests of the RBM, for every pair of kinds, against sums and integrals over its energy and automatic differentiation.

`nodes` makes both of them sums: all states of binary units, a grid for real ones (the trapezoid rule, which for
Gaussians is exact to many digits once steps are shorter than their deviation).
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from emo_jax.models import rbm

KINDS = ('bernoulli', 'probability', 'gaussian', 'linear')
PAIRS = [rbm.Units(*pair) for pair in itertools.product(KINDS, KINDS)]
MODELS = [(units, False) for units in PAIRS] + [(units, True) for units in PAIRS if units.visible in rbm.REAL]
DRAWN = [(units, learnt) for units, learnt in MODELS if {*units} <= {'bernoulli', 'gaussian'}]


def name_of(model: tuple[rbm.Units, bool]) -> str:
  return '-'.join(model[0]) + '-variance' * model[1]


each_model = pytest.mark.parametrize('model', MODELS, ids=name_of)
each_drawn_model = pytest.mark.parametrize('model', DRAWN, ids=name_of)


def some_rbm(model: tuple[rbm.Units, bool], visible: int, hidden: int, *, scale: float = 1.0) -> rbm.Params:
  """Random parameters, with weights that leave a machine real on both sides a finite log Z."""
  units, learnt = model
  rng = np.random.default_rng(0)
  params = {'weights': (visible, hidden), 'visible_bias': visible, 'hidden_bias': hidden}
  params = {name: rng.normal(size=shape) for name, shape in params.items()}
  params['weights'] *= scale
  if learnt:
    params['log_variance'] = rng.uniform(-0.8, 0.8, size=visible)
  if units.visible in rbm.REAL and units.hidden in rbm.REAL:
    deviation = np.sqrt(variance(params))
    params['weights'] *= min(1, 0.7 / np.linalg.norm(params['weights'] / deviation[:, None], 2))
  return {name: jnp.asarray(x, jnp.float32) for name, x in params.items()}


def sizes(units: rbm.Units) -> tuple[int, int]:
  """As many units as a sum can take: grids grow fast."""
  return 4 if units.visible in rbm.BINARY else 2, 5 if units.hidden in rbm.BINARY else 2


def doubles(params: rbm.Params) -> dict[str, np.ndarray]:
  return {name: np.asarray(x, np.float64) for name, x in params.items()}


def variance(params: dict[str, np.ndarray]) -> np.ndarray:
  return np.exp(params.get('log_variance', np.zeros(len(params['visible_bias']))))


def states(units: int) -> np.ndarray:
  return np.array(list(itertools.product((0.0, 1.0), repeat=units)))


def nodes(kind: str, units: int) -> tuple[np.ndarray, float]:
  """Points [P, units], and the volume that each one stands for in a sum over them."""
  if kind in rbm.BINARY:
    return states(units), 1.0
  grid = np.linspace(-14, 14, 47)
  return np.array(list(itertools.product(grid, repeat=units))), (grid[1] - grid[0]) ** units


def exp_minus_energy(params: rbm.Params, units: rbm.Units, v: np.ndarray, h: np.ndarray) -> np.ndarray:
  """exp(-E(v, h)) [rows of v, rows of h], written down from its definition."""
  of = doubles(params)
  b, c, s = of['visible_bias'], of['hidden_bias'], variance(of)
  of_visible = -v @ b if units.visible in rbm.BINARY else ((v - b) ** 2 / (2 * s)).sum(1)
  of_hidden = -h @ c if units.hidden in rbm.BINARY else (h**2 / 2 - c * h).sum(1)
  return np.exp(-of_visible[:, None] - of_hidden + (v / s) @ of['weights'] @ h.T)


def joint(params: rbm.Params, units: rbm.Units) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Nodes of both sides, [P, V] and [Q, H], and the probabilities [P, Q] of their pairs."""
  v, h = (nodes(kind, params[bias].size) for kind, bias in zip(units, ('visible_bias', 'hidden_bias'), strict=True))
  p = exp_minus_energy(params, units, v[0], h[0])
  return v[0], h[0], p / p.sum()


def rows_for(kind: str, units: int, rows: int, seed: int) -> np.ndarray:
  """Rows that such units may be given: probabilities, or real numbers."""
  rng = np.random.default_rng(seed)
  x = rng.uniform(size=(rows, units)) if kind in rbm.BINARY else rng.normal(size=(rows, units))
  return x.astype(np.float32)


@each_model
def test_means_are_those_of_one_side_given_the_other(model: tuple[rbm.Units, bool]) -> None:
  units, (visible, hidden) = model[0], sizes(model[0])
  params = some_rbm(model, visible, hidden)
  v, h = rows_for(units.visible, visible, 7, 1), rows_for(units.hidden, hidden, 7, 2)
  every_v, every_h = nodes(units.visible, visible)[0], nodes(units.hidden, hidden)[0]
  of_h = exp_minus_energy(params, units, v, every_h)
  of_v = exp_minus_energy(params, units, every_v, h)
  want_h, want_v = of_h @ every_h / of_h.sum(1, keepdims=True), of_v.T @ every_v / of_v.sum(0)[:, None]
  np.testing.assert_allclose(rbm.hidden_mean(params, v, units), want_h, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(rbm.visible_mean(params, h, units), want_v, rtol=1e-4, atol=1e-5)


@each_model
def test_free_energy_is_minus_log_of_the_sum_over_hidden_units(model: tuple[rbm.Units, bool]) -> None:
  units, (visible, hidden) = model[0], sizes(model[0])
  params = some_rbm(model, visible, hidden)
  v = np.concatenate([rows_for(units.visible, visible, 5, 1), nodes('bernoulli', visible)[0]]).astype(np.float32)
  every_h, volume = nodes(units.hidden, hidden)
  want = -np.log(exp_minus_energy(params, units, v, every_h).sum(1) * volume)
  np.testing.assert_allclose(rbm.free_energy(params, v, units), want, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(rbm.free_energy(params, v[3], units), want[3], rtol=1e-4, atol=1e-4)


@each_model
def test_free_energy_gradient_of_data_less_that_of_samples_equals_automatic_differentiation(
  model: tuple[rbm.Units, bool],
) -> None:
  units, params = model[0], some_rbm(model, 5, 4)
  data, samples = rows_for(units.visible, 5, 7, 1), rows_for(units.visible, 5, 6, 2)
  of_data = jnp.asarray([1, 1, 0, 1, 0, 1, 1], jnp.float32)
  of_samples = jnp.asarray([0, 1, 1, 0, 1, 0], jnp.float32)

  def loss(params: rbm.Params) -> jax.Array:
    mean = lambda rows, mask: jnp.sum(rbm.free_energy(params, rows, units) * mask) / jnp.sum(mask)
    return mean(data, of_data) - mean(samples, of_samples)

  want = jax.grad(loss)(params)
  positive = rbm.free_energy_gradient(params, data, of_data, units)
  negative = rbm.free_energy_gradient(params, samples, of_samples, units)
  assert positive.keys() == want.keys()
  for name in want:
    got = positive[name] / of_data.sum() - negative[name] / of_samples.sum()
    np.testing.assert_allclose(got, want[name], rtol=1e-4, atol=1e-5, err_msg=name)


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


@pytest.mark.parametrize('visible', KINDS)
def test_biases_from_data_alone_give_each_unit_its_mean(visible: str) -> None:
  data, units = rows_for(visible, 6, 50, 0), rbm.Units(visible, 'bernoulli')
  bias = rbm.bias_from_data(data, units)
  assert bias.dtype == np.float32
  unweighted = {'weights': jnp.zeros((6, 3)), 'visible_bias': bias, 'hidden_bias': jnp.ones(3)}
  got = rbm.visible_mean(unweighted, jnp.ones(3), units)
  np.testing.assert_allclose(got, data.mean(0), rtol=1e-5, atol=1e-6)


def test_units_that_never_vary_get_a_finite_bias() -> None:
  data = np.tile(np.array([0.0, 1.0], np.float32), (20, 1))
  bias = rbm.bias_from_data(data, rbm.Units('bernoulli', 'bernoulli'))
  np.testing.assert_allclose(special.expit(bias), [1 / 21, 20 / 21], rtol=1e-6)
  np.testing.assert_array_equal(rbm.bias_from_data(data, rbm.Units('gaussian', 'bernoulli')), [0, 1])


def test_bernoulli_draws_follow_their_probabilities() -> None:
  probability = jnp.tile(jnp.asarray([0.0, 0.1, 0.5, 0.9, 1.0]), (20000, 1))
  drawn = np.asarray(rbm.sample(probability, 'bernoulli', jax.random.split(jax.random.key(0), 20000), 0))
  assert set(np.unique(drawn)) == {0.0, 1.0} and drawn.dtype == np.float32
  np.testing.assert_allclose(drawn.mean(0), probability[0], atol=4 * np.sqrt(0.25 / 20000))
  assert drawn[:, 0].max() == 0 and drawn[:, 4].min() == 1


def test_gaussian_draws_follow_their_means_and_variances() -> None:
  mean, of_variance = np.array([-2.0, 0.0, 3.0], np.float32), np.array([0.25, 1.0, 9.0], np.float32)
  keys = jax.random.split(jax.random.key(0), 20000)
  drawn = np.asarray(rbm.sample(jnp.tile(mean, (20000, 1)), 'gaussian', keys, 0, of_variance))
  for unit, around, of in zip(drawn.T, mean, of_variance, strict=True):
    assert stats.kstest(unit, stats.norm(around, np.sqrt(of)).cdf).pvalue > 1e-4
  assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 4 / np.sqrt(20000)


@pytest.mark.parametrize('kind', ['probability', 'linear'])
def test_means_stand_for_draws_of_probability_and_linear_units(kind: str) -> None:
  mean = jnp.asarray(rows_for(kind, 3, 5, 0))
  keys = jax.random.split(jax.random.key(0), 5)
  np.testing.assert_array_equal(rbm.sample(mean, kind, keys, 0, jnp.full(3, 4.0)), mean)


@pytest.mark.parametrize('kind', ['bernoulli', 'gaussian'])
def test_draws_belong_to_rows_and_numbered_draws_are_independent(kind: str) -> None:
  mean, keys = jnp.full((20000, 2), 0.5), jax.random.split(jax.random.key(0), 20000)
  first, second = (np.asarray(rbm.sample(mean, kind, keys, draw)) for draw in (0, 1))
  np.testing.assert_array_equal(rbm.sample(mean[100:130], kind, keys[100:130], 0), first[100:130])
  np.testing.assert_array_equal(rbm.sample(mean, kind, keys, jnp.asarray(1)), second)
  every = np.concatenate([first, second, np.roll(first, 1, axis=0)], axis=1)
  assert np.abs(np.corrcoef(every.T) - np.eye(6)).max() < 4 / np.sqrt(20000)


@functools.partial(jax.jit, static_argnames='units')
def sampled(params: rbm.Params, keys: jax.Array, units: rbm.Units) -> tuple[jax.Array, jax.Array]:
  """A visible and a hidden sample a key, after 60 rounds from hidden units at 0."""
  one_round = lambda number, hidden: rbm.gibbs(params, hidden, keys, units, number)[1]
  hidden = jax.lax.fori_loop(0, 59, one_round, jnp.zeros((len(keys), len(params['hidden_bias']))))
  return rbm.gibbs(params, hidden, keys, units, 59)


@each_drawn_model
def test_gibbs_sampling_reproduces_the_moments_of_the_joint_distribution(model: tuple[rbm.Units, bool]) -> None:
  units, chains = model[0], 20000
  params = some_rbm(model, *sizes(units))
  x = np.concatenate(sampled(params, jax.random.split(jax.random.key(0), chains), units), axis=1, dtype=np.float64)
  v, h, p = joint(params, units)
  first = np.concatenate([p.sum(1) @ v, p.sum(0) @ h])
  second = np.block([[v.T * p.sum(1) @ v, v.T @ p @ h], [h.T @ p.T @ v, h.T * p.sum(0) @ h]])
  for drawn, want in ((x, first), (x[:, :, None] * x[:, None], second)):
    assert (np.abs(drawn.mean(0) - want) < 4 * drawn.std(0) / np.sqrt(chains)).all()


@pytest.mark.parametrize('hidden', ['bernoulli', 'gaussian'])
def test_gibbs_sampling_visits_each_visible_state_as_often_as_it_is_probable(hidden: str) -> None:
  units, chains = rbm.Units('bernoulli', hidden), 20000
  params = some_rbm((units, False), *sizes(units))
  visible = np.asarray(sampled(params, jax.random.split(jax.random.key(1), chains), units)[0])
  v, _, p = joint(params, units)
  observed, expected = [(visible == state).all(1).sum() for state in v], chains * p.sum(1)
  assert expected.min() > 5
  assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_gibbs_sampling_of_gaussian_visible_units_follows_their_mixture() -> None:
  model = (rbm.Units('gaussian', 'bernoulli'), True)
  params = some_rbm(model, *sizes(model[0]))
  visible = np.asarray(sampled(params, jax.random.split(jax.random.key(1), 20000), model[0])[0])
  _, h, p = joint(params, model[0])
  of = doubles(params)
  means = h @ of['weights'].T + of['visible_bias']
  for unit, mean, deviation in zip(visible.T, means.T, np.sqrt(variance(of)), strict=True):
    quantile = stats.norm.cdf(unit[:, None], mean, deviation) @ p.sum(0)
    assert stats.kstest(quantile, 'uniform').pvalue > 1e-4


@pytest.mark.parametrize(
  'units', [rbm.Units('bernoulli', 'bernoulli'), rbm.Units('gaussian', 'gaussian')], ids='-'.join
)
def test_rounds_of_gibbs_sampling_have_draws_of_their_own(units: rbm.Units) -> None:
  params, keys = some_rbm((units, False), 40, 30), jax.random.split(jax.random.key(0), 5)
  rounds = [rbm.gibbs(params, jnp.zeros((5, 30)), keys, units, number) for number in range(3)]
  assert len({np.asarray(side).tobytes() for both in rounds for side in both}) == 6
  again = rbm.gibbs(params, jnp.zeros((5, 30)), keys, units, jnp.int32(2))
  jax.tree.map(np.testing.assert_array_equal, again, rounds[2])


def test_gibbs_sampling_in_means_has_nothing_random() -> None:
  units = rbm.Units('linear', 'linear')
  params = some_rbm((units, True), 4, 3)
  start, of = rows_for('linear', 3, 5, 0), doubles(params)
  visible, hidden = rbm.gibbs(params, start, jax.random.split(jax.random.key(0), 5), units, 0)
  want_visible = start.astype(np.float64) @ of['weights'].T + of['visible_bias']
  want_hidden = want_visible / variance(of) @ of['weights'] + of['hidden_bias']
  np.testing.assert_allclose(visible, want_visible, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(hidden, want_hidden, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('hidden', ['bernoulli', 'gaussian'])
def test_pseudo_likelihood_is_unbiased(hidden: str) -> None:
  units, draws = rbm.Units('bernoulli', hidden), 4000
  params = some_rbm((units, False), 4, 2)
  every, _, p = joint(params, units)
  of_state = {tuple(v): of_v for v, of_v in zip(every, p.sum(1), strict=True)}
  score = jax.jit(functools.partial(rbm.pseudo_likelihood, units=units))
  for v in every[[0, 5, 11, 15]]:
    flips = [tuple(np.where(np.arange(4) == i, 1 - v, v)) for i in range(4)]
    terms = np.array([np.log(of_state[tuple(v)] / (of_state[tuple(v)] + of_state[flip])) for flip in flips])
    rows, keys = jnp.tile(jnp.asarray(v, jnp.float32), (draws, 1)), jax.random.split(jax.random.key(3), draws)
    got = np.asarray(score(params, rows, keys))
    nearest = np.abs(got[:, None] - 4 * terms).min(1)
    assert nearest.max() < 1e-4  # each draw is V log p(v_i | the others) of one unit i
    assert abs(got.mean() - terms.sum()) < 4 * got.std() / np.sqrt(draws)


def log_partition(params: rbm.Params, units: rbm.Units) -> float:
  """log Z: a sum over the states of a binary side, the other side in closed form; of a Gaussian if both are real."""
  of = doubles(params)
  w, b, c, s = of['weights'], of['visible_bias'], of['hidden_bias'], variance(of)
  if units.visible in rbm.REAL and units.hidden in rbm.REAL:  # E = x'Px/2 - q'x + constant, x = (v, h)
    precision = np.block([[np.diag(1 / s), -w / s[:, None]], [-(w / s[:, None]).T, np.eye(len(c))]])
    linear = np.concatenate([b / s, c])
    log_volume = (len(linear) * np.log(2 * np.pi) - np.linalg.slogdet(precision)[1]) / 2
    return log_volume + (linear @ np.linalg.solve(precision, linear) - np.sum(b**2 / s)) / 2
  if units.hidden in rbm.REAL:  # integral of exp(-h^2 / 2 + (c + x) h): (2 pi)^(1/2) exp((c + x)^2 / 2)
    v = states(len(b))
    x = v @ w
    return special.logsumexp(v @ b + ((c + x) ** 2 / 2 + np.log(2 * np.pi) / 2).sum(1))
  h = states(len(c))
  x = h @ w.T
  if units.visible in rbm.REAL:
    return special.logsumexp(h @ c + ((2 * b * x + x**2) / s + np.log(2 * np.pi * s)).sum(1) / 2)
  return special.logsumexp(h @ c + np.logaddexp(0, b + x).sum(1))


annealed = functools.partial(
  jax.jit(rbm.log_partition, static_argnames=('units', 'chains')), key=jax.random.key(0), chains=4000
)


@pytest.mark.parametrize(('scale', 'temperatures'), [(0.7, 100), (0.08, 1)])  # far away by steps, or near by a jump
@each_drawn_model
def test_annealed_importance_sampling_finds_the_log_partition(
  model: tuple[rbm.Units, bool], scale: float, temperatures: int
) -> None:
  params = some_rbm(model, 8, 6, scale=scale)
  got = np.asarray(annealed(params, units=model[0], temperatures=temperatures), np.float64)
  assert got.shape == (4000,)
  weights = np.exp(got - got.max())
  error = weights.std() / weights.mean() / np.sqrt(4000)  # of the log of the mean, to first order
  estimate = np.log(weights.mean()) + got.max()
  assert error < 0.02
  assert abs(estimate - log_partition(params, model[0])) < 4 * error


@each_drawn_model
def test_log_partition_of_a_machine_that_starts_where_it_ends_is_exact(model: tuple[rbm.Units, bool]) -> None:
  params = {**some_rbm(model, 8, 6), 'weights': jnp.zeros((8, 6)), 'hidden_bias': jnp.zeros(6)}
  got = annealed(params, units=model[0], temperatures=100)
  np.testing.assert_allclose(got, log_partition(params, model[0]), rtol=1e-5)


def test_more_temperatures_narrow_the_log_weights() -> None:
  units = rbm.Units('bernoulli', 'bernoulli')
  params = some_rbm((units, False), 8, 6)
  few, many = (annealed(params, units=units, temperatures=temperatures) for temperatures in (1, 100))
  assert many.std() < few.std() / 2


def test_log_partition_draws_units_whose_means_stand_for_samples_in_training() -> None:
  params = some_rbm((rbm.Units('linear', 'probability'), True), 8, 6)
  got, want = (
    annealed(params, units=rbm.Units(*units), temperatures=100)
    for units in (('linear', 'probability'), ('gaussian', 'bernoulli'))
  )
  np.testing.assert_array_equal(got, want)

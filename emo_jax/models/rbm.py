"""Restricted Boltzmann machines as pure functions over a dict of arrays (pipeline step: fusion; method.md A4).

Energy E(v, h) = A(v) + B(h) - (v / s)'W h with

  A(v) = -b'v for binary visible units, sum of (v - b)^2 / 2s for real ones (s their variance; 1 for binary ones),
  B(h) = -c'h for binary hidden units,  sum of h^2 / 2 - c'h for real ones.

Parameters: {'weights': [V, H], 'visible_bias': [V], 'hidden_bias': [H]}, and 'log_variance' [V] where the variance of
real visible units is learnt (the parametrisation of Cho, Ilin and Raiko 2011). With real units on both sides there is
a distribution only while the largest singular value of the weights, over the visible deviations, is below 1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Params = dict[str, jax.Array]

BINARY = ('bernoulli', 'probability')
REAL = ('gaussian', 'linear')


class Units(NamedTuple):
  """The kinds of units of the two sides of an RBM, visible and hidden.

  'bernoulli' units are sampled from {0, 1}, 'gaussian' ones from a normal distribution. 'probability' and 'linear'
  units are the same two where the mean stands for the sample, as the toolbox runs them (method.md A4).
  """

  visible: str
  hidden: str


def drawn(units: Units) -> Units:
  """The sampled kinds of the same units: those whose distribution the machine describes."""
  return Units(*('bernoulli' if kind in BINARY else 'gaussian' for kind in units))


def meant(units: Units) -> Units:
  """The kinds of the same units where means stand for samples."""
  return Units(*('probability' if kind in BINARY else 'linear' for kind in units))


def init(key: jax.Array, visible: int, hidden: int, *, scale: float) -> Params:
  """Small random weights, scale * N(0, 1), and biases 0 (method.md A4)."""
  return {
    'weights': scale * jax.random.normal(key, (visible, hidden)),
    'visible_bias': jnp.zeros(visible),
    'hidden_bias': jnp.zeros(hidden),
  }


def bias_from_data(data: np.ndarray, units: Units) -> np.ndarray:
  """Visible biases that alone give each unit its mean over the data (Hinton 2012, 8.1): [N, V] -> [V].

  Means of binary units are kept 1 / (N + 1) away from 0 and 1.
  """
  mean = data.mean(0, dtype=np.float64)
  if units.visible in BINARY:
    mean = np.clip(mean, 1 / (len(data) + 1), len(data) / (len(data) + 1))
    mean = np.log(mean / (1 - mean))
  return mean.astype(np.float32)


def variance(params: Params) -> jax.Array:
  """Of the visible units given the hidden ones: [V]; 1 where none is learnt, and of no meaning for binary units."""
  return jnp.exp(params.get('log_variance', jnp.zeros_like(params['visible_bias'])))


def _log_sum(given: jax.Array, kind: str) -> jax.Array:
  """Log of the sum (integral) over a unit of a kind of exp(given * unit - its own energy without bias)."""
  return jax.nn.softplus(given) if kind in BINARY else (jnp.square(given) + jnp.log(2 * jnp.pi)) / 2


def _hidden_input(params: Params, visible: jax.Array) -> jax.Array:
  return (visible / variance(params)) @ params['weights'] + params['hidden_bias']


def hidden_mean(params: Params, visible: jax.Array, units: Units) -> jax.Array:
  """E[h | v], for binary units p(h = 1 | v): [..., V] -> [..., H]."""
  given = _hidden_input(params, visible)
  return jax.nn.sigmoid(given) if units.hidden in BINARY else given


def visible_mean(params: Params, hidden: jax.Array, units: Units) -> jax.Array:
  """E[v | h], for binary units p(v = 1 | h): [..., H] -> [..., V]."""
  given = hidden @ params['weights'].T + params['visible_bias']
  return jax.nn.sigmoid(given) if units.visible in BINARY else given


def free_energy(params: Params, visible: jax.Array, units: Units) -> jax.Array:
  """F(v) = -log of the sum (integral) over h of exp(-E(v, h)): [..., V] -> [...]; p(v) is proportional to exp(-F)."""
  hidden = _log_sum(_hidden_input(params, visible), units.hidden)
  if units.visible in BINARY:
    own = -visible * params['visible_bias']
  else:
    own = jnp.square(visible - params['visible_bias']) / (2 * variance(params))
  return jnp.sum(own, -1) - jnp.sum(hidden, -1)


def free_energy_gradient(
  params: Params, visible: jax.Array, weight: jax.Array, units: Units, hidden: jax.Array | None = None
) -> Params:
  """Gradient of the weighted sum of F over rows, by its sufficient statistics.

  What does not depend on v is left out (b / s of real visible biases): it cancels in contrastive divergence.

  Contrastive divergence (Hinton 2002) descends its mean over data minus its mean over samples.

  Args:
    visible: [B, V].
    weight: [B], of each row; 0 leaves one out.
    hidden: [B, H], the rows' hidden means where they are known.
  """
  hidden = (hidden_mean(params, visible, units) if hidden is None else hidden) * weight[:, None]
  given = visible / variance(params)
  gradient = {
    'weights': -given.T @ hidden,
    'visible_bias': -weight @ given,
    'hidden_bias': -jnp.sum(hidden, 0),
  }
  if 'log_variance' in params:
    apart = jnp.square(visible - params['visible_bias']) / (2 * variance(params))
    gradient['log_variance'] = jnp.sum(given * (hidden @ params['weights'].T), 0) - weight @ apart
  return gradient


def sample(
  mean: jax.Array, kind: str, keys: jax.Array, draw: int | jax.Array, variance: jax.Array | float = 1.0
) -> jax.Array:
  """Draws units [B, units] of a kind. Draws belong to rows: keys [B]; `draw` tells the draws of one step apart."""
  row_keys = jax.vmap(lambda key: jax.random.fold_in(key, draw))(keys)
  if kind == 'bernoulli':
    uniform = jax.vmap(lambda key: jax.random.uniform(key, mean.shape[1:]))(row_keys)
    return (uniform < mean).astype(mean.dtype)
  if kind == 'gaussian':
    return mean + jnp.sqrt(variance) * jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(row_keys)
  return mean


def gibbs(
  params: Params, hidden: jax.Array, keys: jax.Array, units: Units, number: int | jax.Array
) -> tuple[jax.Array, jax.Array]:
  """One round of block Gibbs sampling from hidden states: [B, H] -> visible [B, V], hidden [B, H].

  Args:
    hidden: samples to start from.
    keys: [B], one a row.
    number: of the round, from 0; tells rounds with the same keys apart. Draw 0 is left to who drew `hidden`.
  """
  visible = sample(visible_mean(params, hidden, units), units.visible, keys, 2 * number + 1, variance(params))
  return visible, sample(hidden_mean(params, visible, units), units.hidden, keys, 2 * number + 2)


def pseudo_likelihood(params: Params, visible: jax.Array, keys: jax.Array, units: Units) -> jax.Array:
  """Stochastic estimate of the log pseudo-likelihood of binary rows, as scikit-learn scores: [B, V] -> [B].

  One visible unit a row, drawn at random, is flipped: V * log sigmoid(F(flipped) - F(v)). Of rows between 0 and 1 it is
  an index of fit and no likelihood.
  """
  unit = jax.vmap(lambda key: jax.random.randint(key, (), 0, visible.shape[-1]))(keys)
  chosen = jax.nn.one_hot(unit, visible.shape[-1], dtype=visible.dtype)
  flipped = jnp.where(chosen > 0, 1 - visible, visible)
  change = free_energy(params, flipped, units) - free_energy(params, visible, units)
  return visible.shape[-1] * jax.nn.log_sigmoid(change)


def log_partition(params: Params, key: jax.Array, units: Units, *, chains: int, temperatures: int) -> jax.Array:
  """Annealed importance sampling of log Z (Neal 2001; Salakhutdinov and Murray 2008).

  From the machine without weights, whose Z is known, to this one: weights and hidden biases are scaled from 0 to 1.

  Args:
    key: of the random stream.
    chains: independent estimates.
    temperatures: steps on the way.

  Returns:
    [chains] log-weights: log Z is estimated by the log of the mean of their exponentials, and they spread widely where
    more temperatures are needed.
  """
  kinds = drawn(units)
  keys, bias = jax.random.split(key, chains), params['visible_bias']
  cooled = lambda beta: {**params, 'weights': beta * params['weights'], 'hidden_bias': beta * params['hidden_bias']}
  base = jnp.broadcast_to(jax.nn.sigmoid(bias) if units.visible in BINARY else bias, (chains, len(bias)))
  if units.visible in BINARY:
    own = jnp.sum(jax.nn.softplus(bias))
  else:
    own = jnp.sum(jnp.log(2 * jnp.pi * variance(params))) / 2
  hidden_one = _log_sum(jnp.zeros(()), units.hidden)
  start = sample(base, kinds.visible, keys, 0, variance(params))

  def anneal(step: jax.Array, carried: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    visible, weight = carried
    warm, cold = cooled(step / temperatures), cooled((step + 1) / temperatures)
    weight += free_energy(warm, visible, units) - free_energy(cold, visible, units)
    hidden = sample(hidden_mean(cold, visible, units), kinds.hidden, keys, 2 * step + 2)
    mean = visible_mean(cold, hidden, units)
    return sample(mean, kinds.visible, keys, 2 * step + 3, variance(params)), weight

  weight = jax.lax.fori_loop(0, temperatures, anneal, (start, jnp.zeros(chains)))[1]
  return own + hidden_one * len(params['hidden_bias']) + weight

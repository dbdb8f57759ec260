"""Restricted Boltzmann machines as pure functions over a dict of arrays (pipeline step: fusion; method.md A4).

Energy E(v, h) = -b'v - c'h - v'Wh with binary units. Parameters: {'weights': [V, H], 'visible_bias': [V],
'hidden_bias': [H]}.
"""

import jax
import jax.numpy as jnp

Params = dict[str, jax.Array]


def init(key: jax.Array, visible: int, hidden: int, *, scale: float) -> Params:
  """Small random weights, scale * N(0, 1), and biases 0 (method.md A4)."""
  return {
    'weights': scale * jax.random.normal(key, (visible, hidden)),
    'visible_bias': jnp.zeros(visible),
    'hidden_bias': jnp.zeros(hidden),
  }


def hidden_probability(params: Params, visible: jax.Array) -> jax.Array:
  """p(h = 1 | v): [..., V] -> [..., H]."""
  return jax.nn.sigmoid(visible @ params['weights'] + params['hidden_bias'])


def visible_probability(params: Params, hidden: jax.Array) -> jax.Array:
  """p(v = 1 | h): [..., H] -> [..., V]."""
  return jax.nn.sigmoid(hidden @ params['weights'].T + params['visible_bias'])


def free_energy(params: Params, visible: jax.Array) -> jax.Array:
  """F(v) = -b'v - sum over j of log(1 + exp(c_j + v'W_j)): [..., V] -> [...]; p(v) is proportional to exp(-F)."""
  hidden = jax.nn.softplus(visible @ params['weights'] + params['hidden_bias'])
  return -visible @ params['visible_bias'] - jnp.sum(hidden, -1)


def bernoulli(probability: jax.Array, keys: jax.Array, draw: int) -> jax.Array:
  """Binary draws [B, units] that belong to rows: keys [B], `draw` tells the draws of one step apart."""
  uniform = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, draw), probability.shape[1:]))(keys)
  return (uniform < probability).astype(probability.dtype)


def negative_phase(
  params: Params, visible: jax.Array, keys: jax.Array, *, steps: int, sample_visible: bool
) -> jax.Array:
  """The visible side after `steps` rounds of block Gibbs sampling from the data: [B, V] -> [B, V].

  Hidden units are sampled. Visible units are sampled too, or (sample_visible=False, as the toolbox runs) stand for
  their probabilities, which suits features scaled to [0, 1].
  """
  for step in range(steps):
    hidden = bernoulli(hidden_probability(params, visible), keys, 2 * step)
    visible = visible_probability(params, hidden)
    if sample_visible:
      visible = bernoulli(visible, keys, 2 * step + 1)
  return visible


def contrastive_gradient(params: Params, positive: jax.Array, negative: jax.Array, mask: jax.Array) -> Params:
  """Gradient of the sum over rows of F(positive) - F(negative), the samples held fixed, by its sufficient statistics.

  Descending it is contrastive divergence (Hinton 2002): v'p(h|v) of the data minus that of the samples.

  Args:
    positive, negative: [B, V], data and samples.
    mask: [B], 0 leaves a row out.
  """
  positive_hidden = hidden_probability(params, positive) * mask[:, None]
  negative_hidden = hidden_probability(params, negative) * mask[:, None]
  return {
    'weights': negative.T @ negative_hidden - positive.T @ positive_hidden,
    'visible_bias': mask @ (negative - positive),
    'hidden_bias': jnp.sum(negative_hidden - positive_hidden, 0),
  }


def pseudo_likelihood(params: Params, visible: jax.Array, keys: jax.Array) -> jax.Array:
  """Stochastic estimate of the log pseudo-likelihood of binary rows, as scikit-learn scores: [B, V] -> [B].

  One visible unit a row, drawn at random, is flipped: V * log sigmoid(F(flipped) - F(v)).
  """
  unit = jax.vmap(lambda key: jax.random.randint(key, (), 0, visible.shape[-1]))(keys)
  chosen = jax.nn.one_hot(unit, visible.shape[-1], dtype=visible.dtype)
  flipped = jnp.where(chosen > 0, 1 - visible, visible)
  return visible.shape[-1] * jax.nn.log_sigmoid(free_energy(params, flipped) - free_energy(params, visible))

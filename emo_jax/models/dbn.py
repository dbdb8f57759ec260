"""The deep belief network that fuses sound and face: RBMs in a stack, and what is built on it (pipeline step: fusion).

The paper's section on fusion; method.md A4. A stack is a list of RBM parameters, the lowest first; `kinds` says of what
units each one is.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emo_jax.models import rbm
from emo_jax.models.dropout import dropout

Stack = Sequence[rbm.Params]
Kinds = Sequence[rbm.Units]


def stack_units(depth: int, *, visible: str, top: str) -> tuple[rbm.Units, ...]:
  """The units of each RBM of a stack: inner layers are binary, and each layer sees the means of the one below.

  Args:
    depth: RBMs in the stack.
    visible: kind of the lowest visible units (rbm.Units).
    top: kind of the last hidden units; 'linear' is the script's (method.md A4).

  Raises:
    ValueError: no such kind.
  """
  for field, kind in (('visible', visible), ('top', top)):
    if kind not in rbm.BINARY + rbm.REAL:
      raise ValueError(f'config.fusion.{field}={kind!r}: use {", ".join(rbm.BINARY + rbm.REAL)}')
  visibles = (visible, *['probability'] * (depth - 1))
  hiddens = (*['bernoulli'] * (depth - 1), top)
  return tuple(rbm.Units(*pair) for pair in zip(visibles, hiddens, strict=True))


def fit_scaler(parts: Sequence[np.ndarray], *, kind: str) -> dict[str, np.ndarray]:
  """What brings joined features to the range of the visible units, from training rows (contract.md, DBN input).

  Args:
    parts: [N, F] features of each modality.
    kind: 'modality' (to [0, 1] by the min and max of all of a modality's features), 'joint' (one min and max for both:
      the script), 'feature' (each feature by its own), 'standard' (each to mean 0 and deviation 1, for real visible
      units).

  Returns:
    'low' and 'spread', float32 [V] each, V the sum of all F; 'clipped', whether values are cut to [0, 1]; 'mean',
    float32 [V], the training rows' mean once they are scaled.

  Raises:
    ValueError: another kind.
  """
  mean = np.concatenate([part.mean(0, dtype=np.float64) for part in parts])
  if kind == 'standard':
    low, spread = mean, np.concatenate([part.std(0, dtype=np.float64) for part in parts])
  elif kind == 'feature':
    low, spread = (np.concatenate([of(part, axis=0) for part in parts]) for of in (np.min, np.ptp))
  elif kind in ('modality', 'joint'):
    ends = np.array([(part.min(), part.max()) for part in parts])
    if kind == 'joint':
      ends[:] = ends[:, 0].min(), ends[:, 1].max()
    sizes = [part.shape[1] for part in parts]
    low, spread = np.repeat(ends[:, 0], sizes), np.repeat(ends[:, 1] - ends[:, 0], sizes)
  else:
    raise ValueError(f'config.fusion.scaling={kind!r}: use modality, joint, feature or standard')
  spread = np.where(spread > 1e-12, spread, 1)  # what never varies becomes 0
  return {
    'low': low.astype(np.float32),
    'spread': spread.astype(np.float32),
    'clipped': np.asarray(kind != 'standard'),
    'mean': ((mean - low) / spread).astype(np.float32),
  }


def scale(scaler: dict[str, np.ndarray], parts: Sequence[np.ndarray]) -> np.ndarray:
  """Features [N, F] of each modality to visible units [N, V], by training statistics."""
  visible = (np.concatenate(parts, axis=1) - scaler['low']) / scaler['spread']
  return np.clip(visible, 0, 1) if scaler['clipped'] else visible


def joint_feature(stack: Stack, visible: jax.Array, kinds: Kinds) -> jax.Array:
  """Means of the last hidden layer, each layer fed with those of the one below: [B, V] -> [B, H]."""
  for layer, units in zip(stack, kinds, strict=True):
    visible = rbm.hidden_mean(layer, visible, units)
  return visible


def visible_feature(stack: Stack, hidden: jax.Array, kinds: Kinds) -> jax.Array:
  """Means of the visible units, each layer fed with those of the one above: [B, H] -> [B, V]."""
  for layer, units in zip(reversed(stack), reversed(kinds), strict=True):
    hidden = rbm.visible_mean(layer, hidden, units)
  return hidden


def reconstruct(stack: Stack, visible: jax.Array, kinds: Kinds) -> jax.Array:
  """Up to the top and down again, in means: [B, V] -> [B, V]; of a stack before any fine-tuning."""
  return visible_feature(stack, joint_feature(stack, visible, kinds), kinds)


def generate(stack: Stack, keys: jax.Array, kinds: Kinds, *, steps: int) -> jax.Array:
  """Draws visible units as the stack imagines them (Hinton, Osindero and Teh 2006).

  Block Gibbs sampling in the top RBM, from hidden units at 0, then one pass down in means. The top RBM's units are
  drawn even where training let means stand for them: in a mean there is nothing random.

  Args:
    stack: as the greedy training left it, before any fine-tuning.
    keys: [B], one a draw.
    steps: rounds in the top RBM, at least 1.

  Returns:
    [B, V]: means of the lowest visible units given the top RBM's drawn ones; of a single RBM the draws themselves.
  """
  top, units = stack[-1], rbm.drawn(kinds[-1])
  one_round = lambda number, hidden: rbm.gibbs(top, hidden, keys, units, number)[1]
  hidden = jax.lax.fori_loop(0, steps - 1, one_round, jnp.zeros((len(keys), len(top['hidden_bias']))))
  visible, _ = rbm.gibbs(top, hidden, keys, units, steps - 1)
  return visible_feature(stack[:-1], visible, kinds[:-1])


def fill_in(
  stack: Stack, visible: jax.Array, known: jax.Array, keys: jax.Array, kinds: Kinds, *, how: str, steps: int
) -> jax.Array:
  """Fills in the visible units that lack, with those that are there held fast.

  In the lowest RBM alone: a chain through the whole stack, up and down in means, was no better on held speakers (192
  clips, three seeds) and takes longer.

  Args:
    stack: as the greedy training left it, before any fine-tuning.
    visible: [B, V]; what stands for units that lack is where their chain starts.
    known: bool [B, V], which units are there.
    keys: [B], one a row.
    how: 'gibbs', block Gibbs sampling of hidden and lacking units in turn, drawn even where training let means stand
      for them; 'mean_field', their means in turn.
    steps: rounds, at least 1.

  Returns:
    [B, V]: units that are there as given; of the others, the mean given the hidden units: the last one of
    'mean_field', of 'gibbs' averaged over the second half of the rounds.
  """
  lowest, sampled = stack[0], how == 'gibbs'
  units, first = (rbm.drawn(kinds[0]), steps // 2) if sampled else (rbm.meant(kinds[0]), steps - 1)

  def one_round(number: jax.Array, carried: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    whole, total = carried
    hidden = rbm.sample(rbm.hidden_mean(lowest, whole, units), units.hidden, keys, 2 * number)
    mean = rbm.visible_mean(lowest, hidden, units)
    drawn = rbm.sample(mean, units.visible, keys, 2 * number + 1, rbm.variance(lowest))
    return jnp.where(known, visible, drawn), total + jnp.where(number < first, 0, mean)

  total = jax.lax.fori_loop(0, steps, one_round, (visible, jnp.zeros_like(visible)))[1]
  return jnp.where(known, visible, total / (steps - first))


def drop_half(visible: jax.Array, keys: jax.Array, of_sound: np.ndarray, *, share: float, draw: int) -> jax.Array:
  """Takes one half away from some rows, sound or face with equal chance: its units become 0 (modality dropout).

  Args:
    visible: [B, V].
    keys: [B], one a row.
    of_sound: bool [V], which units are the sound's; the others are the face's.
    share: of the rows that lose a half, 0 to 1.
    draw: tells this draw from others with the same keys.
  """
  chance = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, draw)))(keys)[:, None]
  return jnp.where(jnp.where(of_sound, chance < share / 2, (share / 2 <= chance) & (chance < share)), 0, visible)


def init_head(stack: Stack, *, classes: int) -> dict[str, jax.Array]:
  """The softmax layer on top starts at 0: at first only the head learns, from what the RBMs found."""
  return {'kernel': jnp.zeros((stack[-1]['weights'].shape[1], classes)), 'bias': jnp.zeros(classes)}


def classify(
  params: dict[str, Any], visible: jax.Array, keys: jax.Array | None, kinds: Kinds, *, dropout_rate: float
) -> tuple[jax.Array, jax.Array]:
  """The stack as a feed-forward network with a softmax head, for fine-tuning.

  Args:
    params: 'stack', a list of RBM parameters, and 'head'.
    visible: [B, V].
    keys: [B] for dropout after each hidden layer; None to predict.

  Returns:
    logits [B, C], joint features [B, H_last] (before dropout of the last layer).
  """
  x = visible
  for number, (layer, units) in enumerate(zip(params['stack'], kinds, strict=True)):
    hidden = rbm.hidden_mean(layer, x, units)
    x = dropout(hidden, dropout_rate, keys, number)
  return x @ params['head']['kernel'] + params['head']['bias'], hidden


def unroll(stack: Stack) -> dict[str, Any]:
  """The stack as an autoencoder, whose way down starts as the way up and then learns for itself.

  Hinton and Salakhutdinov 2006; method.md A4.
  """
  down = [{'weights': layer['weights'].T, 'bias': layer['visible_bias']} for layer in reversed(stack)]
  return {'stack': list(stack), 'down': down}


def autoencode(params: dict[str, Any], visible: jax.Array, kinds: Kinds) -> jax.Array:
  """What the unrolled stack makes of visible units: [B, V] -> [B, V].

  Args:
    params: 'stack' and 'down', from `unroll`.
  """
  x = joint_feature(params['stack'], visible, kinds)
  for layer, units in zip(params['down'], reversed(kinds), strict=True):
    given = x @ layer['weights'] + layer['bias']
    x = jax.nn.sigmoid(given) if units.visible in rbm.BINARY else given
  return x

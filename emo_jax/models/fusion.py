"""Networks that stand in the DBN's place: fully connected, concatenation, attention, joint encoding (step: fusion).

Method.md A5 and C, whose defects are not copied. All take features that are scaled already and return logits [B, C]
and features [B, F].

A sequence is [B, T, Va + Vv + 1]: the sound's features of a clip's segments, the face's, and a column that is 1 where
there is a segment and 0 behind the last one, in the padding. Nothing hangs on T but its padding, parameters included.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from emo_jax.models.dropout import dropout

PRIMARY = ('visual', 'audio')
Drop = Callable[[jax.Array], jax.Array]


def dropping(rate: float, keys: jax.Array | None) -> Drop:
  """Dropout for one pass through a network; each call counts as a layer of its own.

  Args:
    rate, keys: as `dropout` has them.
  """
  numbers = itertools.count()
  return lambda x: dropout(x, rate, keys, next(numbers))


def parts_of(sequences: jax.Array, sound: int) -> tuple[jax.Array, jax.Array, jax.Array]:
  """[B, T, Va + Vv + 1] -> the sound's features [B, T, Va], the face's [B, T, Vv], where there are segments [B, T]."""
  return sequences[..., :sound], sequences[..., sound:-1], sequences[..., -1] > 0


def mean_over(x: jax.Array, mask: jax.Array) -> jax.Array:
  """The mean of each clip's segments: [B, T, F], [B, T] -> [B, F]."""
  return jnp.mean(x, axis=1, where=mask[..., None])


def positions(length: int, width: int) -> jax.Array:
  """Sines and cosines of wavelengths from 2 pi to 20000 pi segments, by turns: [T, width] (Vaswani 2017)."""
  channel = jnp.arange(width)
  angle = jnp.arange(length)[:, None] / 10000 ** (channel // 2 * 2 / width)
  return jnp.where(channel % 2 == 0, jnp.sin(angle), jnp.cos(angle))


def fed(x: jax.Array, drop: Drop, name: str, *, hidden: int, units: int, bias: bool = True) -> jax.Array:
  """Dense, ReLU, dropout, dense; to be called within a compact module."""
  x = drop(nn.relu(nn.Dense(hidden, name=f'{name}_1')(x)))
  return nn.Dense(units, use_bias=bias, name=f'{name}_2')(x)


def attended(queries: jax.Array, to: jax.Array, mask: jax.Array, drop: Drop, name: str, *, heads: int) -> jax.Array:
  """Multi-head attention, added to its queries and normalised after; to be called within a compact module.

  Args:
    queries: [B, T, d].
    to: [B, T, d], keys and values.
    mask: bool [B, T], which of these there are.
  """
  given = nn.MultiHeadDotProductAttention(heads, name=name)(queries, to, mask=mask[:, None, None])
  return nn.LayerNorm(name=f'{name}_norm')(queries + drop(given))


def glimpsed(x: jax.Array, mask: jax.Array, drop: Drop, name: str, *, glimpses: int) -> jax.Array:
  """Weighted means over a clip's segments, by weights that a small network gives each segment (TBJE's AttFlat).

  The weights' own bias is left out: it is the same for all segments, so a softmax over them takes it away again.

  Args:
    x: [B, T, d].
    mask: bool [B, T].

  Returns:
    [B, glimpses * d]; to be called within a compact module.
  """
  scores = fed(x, drop, name, hidden=2 * x.shape[-1], units=glimpses, bias=False)
  weights = jax.nn.softmax(scores, axis=1, where=mask[..., None])
  return jnp.einsum('btg,btd->bgd', weights, x).reshape(len(x), -1)


class FullyConnected(nn.Module):
  """Fully connected layers on a segment's features (ICMR 2016-like; method.md A5).

  Attributes:
    classes: C.
    units: of each hidden layer, the lowest first.
    dropout: rate after each.
  """

  classes: int
  units: Sequence[int]
  dropout: float = 0.3

  @nn.compact
  def __call__(self, x: jax.Array, keys: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Logits [B, C] and the last hidden layer [B, units[-1]], of segments [B, V].

    Args:
      x: [B, V].
      keys: [B] random keys for dropout, one a row; None to predict.
    """
    drop = dropping(self.dropout, keys)
    for number, units in enumerate(self.units):
      hidden = nn.relu(nn.Dense(units, kernel_init=nn.initializers.he_normal(), name=f'fc_{number}')(x))
      x = drop(hidden)
    return nn.Dense(self.classes, name='head')(x), hidden


class ConcatMLP(nn.Module):
  """Both halves' features brought to one width, joined, and mixed by one layer (Tripathi 2018; method.md C3).

  Attributes:
    classes: C.
    sound: Va, the features that are the sound's; they come first.
    width: units of all layers.
    dropout: rate in front of the classifier.
  """

  classes: int
  sound: int
  width: int = 256
  dropout: float = 0.3

  @nn.compact
  def __call__(self, x: jax.Array, keys: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Logits [B, C] and the hidden layer [B, width].

    Args:
      x: [B, Va + Vv], a clip's pooled features.
      keys: [B] or None, as FullyConnected has them.
    """
    sound = nn.Dense(self.width, name='audio')(x[:, : self.sound])
    face = nn.Dense(self.width, name='visual')(x[:, self.sound :])
    hidden = nn.relu(nn.Dense(self.width, name='joint')(nn.relu(jnp.concatenate([sound, face], axis=1))))
    return nn.Dense(self.classes, name='head')(dropping(self.dropout, keys)(hidden)), hidden


class EncoderLayer(nn.Module):
  """A transformer's layer that normalises first, and in which a segment sees itself and those before it."""

  heads: int

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, drop: Drop) -> jax.Array:
    """[B, T, d] -> [B, T, d], where bool [B, T] says."""
    seen = nn.combine_masks(mask[:, None, None], nn.make_causal_mask(mask))
    normal = nn.LayerNorm(name='attention_norm')(x)
    x = x + drop(nn.MultiHeadDotProductAttention(self.heads, name='attention')(normal, normal, mask=seen))
    normal = nn.LayerNorm(name='feed_norm')(x)
    return x + drop(fed(normal, drop, 'feed', hidden=4 * x.shape[-1], units=x.shape[-1]))


class CrossModalAttention(nn.Module):
  """The sound says which segments of the face matter (CFN-SR, Fu 2021; method.md C2, the port).

  Each clip has its own weights, where the published code sums them over the batch, and they are added to the face's
  features (the residual), which its script with the encoder leaves out.

  Attributes:
    classes: C.
    sound: Va.
    width: d, channels of both halves.
    blocks: layers of the sound's encoder.
    heads: of each of them; they divide the width.
    dropout: rate in the encoder.
  """

  classes: int
  sound: int
  width: int = 256
  blocks: int = 2
  heads: int = 4
  dropout: float = 0.3

  @nn.compact
  def __call__(self, sequences: jax.Array, keys: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Logits [B, C] and the means of face and sound [B, 2 d].

    Args:
      sequences: [B, T, Va + Vv + 1].
      keys: [B] or None.
    """
    sound, face, mask = parts_of(sequences, self.sound)
    sound, face = nn.Dense(self.width, name='audio')(sound), nn.Dense(self.width, name='visual')(face)
    asks = nn.Dense(self.width, use_bias=False, name='asks')(self._last(sound, mask, dropping(self.dropout, keys)))
    match = jnp.tanh(nn.Dense(self.width, name='answers')(face) + asks[:, None])
    # No bias: the same for all segments, it would leave the softmax as it is.
    weights = jax.nn.softmax(nn.Dense(1, use_bias=False, name='match')(match), axis=1, where=mask[..., None])
    features = jnp.concatenate([mean_over(face * (1 + weights), mask), mean_over(sound, mask)], axis=1)
    return nn.Dense(self.classes, name='head')(features), features

  def _last(self, sound: jax.Array, mask: jax.Array, drop: Drop) -> jax.Array:
    """The encoder's output at each clip's last segment: [B, T, d] -> [B, d]."""
    x = drop(math.sqrt(self.width) * sound + positions(*sound.shape[1:]))
    for number in range(self.blocks):
      x = EncoderLayer(self.heads, name=f'block_{number}')(x, mask, drop)
    last = jnp.sum(mask, axis=1) - 1
    return nn.LayerNorm(name='encoded')(x[jnp.arange(len(x)), last])


class JointBlock(nn.Module):
  """Self-attention for the primary half; the same for the other, which then looks at the primary (TBJE's SA and SGA).

  Glimpses look at the whole clip: each half's are joined and added to each of its segments. TBJE has as many as
  segments, one for each, which would tie the parameters to the longest clip; here there are as many as heads.

  Attributes:
    heads: of each attention, and glimpses.
    glimpses: whether the block ends with them (all but the last one's).
  """

  heads: int
  glimpses: bool

  @nn.compact
  def __call__(self, x: jax.Array, y: jax.Array, mask: jax.Array, drop: Drop) -> tuple[jax.Array, jax.Array]:
    """Primary and secondary [B, T, d] -> the same, where bool [B, T] says."""
    own = attended(x, x, mask, drop, 'primary', heads=self.heads)
    guided = attended(y, y, mask, drop, 'secondary', heads=self.heads)
    guided = attended(guided, x, mask, drop, 'guide', heads=self.heads)
    x, y = x + self._fed(own, drop, 'primary_feed'), y + self._fed(guided, drop, 'secondary_feed')
    if not self.glimpses:
      return x, y
    return self._looked(x, mask, drop, 'primary_glimpse'), self._looked(y, mask, drop, 'secondary_glimpse')

  def _fed(self, x: jax.Array, drop: Drop, name: str) -> jax.Array:
    width = x.shape[-1]
    return nn.LayerNorm(name=f'{name}_norm')(x + drop(fed(x, drop, name, hidden=2 * width, units=width)))

  def _looked(self, x: jax.Array, mask: jax.Array, drop: Drop, name: str) -> jax.Array:
    seen = nn.Dense(x.shape[-1], name=f'{name}_joined')(glimpsed(x, mask, drop, name, glimpses=self.heads))
    return nn.LayerNorm(name=f'{name}_norm')(x + drop(seen)[:, None])


class JointEncoding(nn.Module):
  """Two sequences encoded together, one guiding the other (TBJE, Delbrouck 2020; method.md C1).

  Padding is masked in every block, where the published code does so in the first alone.

  Attributes:
    classes: C.
    sound: Va.
    primary: 'visual' or 'audio', the half that guides.
    width: d, channels of both halves.
    blocks: how often they are encoded.
    heads: of each attention; they divide the width.
    dropout: rate behind each attention and in each feed-forward network.
  """

  classes: int
  sound: int
  primary: str = 'visual'
  width: int = 256
  blocks: int = 2
  heads: int = 4
  dropout: float = 0.3

  @nn.compact
  def __call__(self, sequences: jax.Array, keys: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Logits [B, C] and what both halves' readouts add up to, normalised: [B, 2 d].

    Args:
      sequences: [B, T, Va + Vv + 1].
      keys: [B] or None.

    Raises:
      ValueError: another word for `primary`.
    """
    if self.primary not in PRIMARY:
      raise ValueError(f'primary={self.primary!r}: use {" or ".join(PRIMARY)}')
    sound, face, mask = parts_of(sequences, self.sound)
    primary, other = (face, sound) if self.primary == 'visual' else (sound, face)
    drop = dropping(self.dropout, keys)
    # Padding is behind the segments, so it never reaches one.
    x = cast(jax.Array, nn.RNN(nn.OptimizedLSTMCell(self.width), name='primary')(primary))
    y = nn.Dense(self.width, name='secondary')(other)
    for number in range(self.blocks):
      block = JointBlock(self.heads, glimpses=number < self.blocks - 1, name=f'block_{number}')
      x, y = block(x, y, mask, drop)
    read = [
      nn.Dense(2 * self.width, name=f'{name}_read')(glimpsed(half, mask, drop, f'{name}_readout', glimpses=1))
      for name, half in (('primary', x), ('secondary', y))
    ]
    features = nn.LayerNorm(name='joint')(read[0] + read[1])
    return nn.Dense(self.classes, name='head')(features), features

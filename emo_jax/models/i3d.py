"""A 3-D CNN for the face clips whose Kinetics-400 weights can be installed: I3D, RGB (pipeline step: visual net).

It stands in for the paper's C3D where that one's published weights are not at hand (Carreira and Zisserman 2017;
inputs_and_weights.md 2c). Batch normalisation is folded into kernels and biases when the weights are read
(packaged.py), so that no statistics of a batch are left and nothing depends on the number of devices.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from emo_jax.models.alexnet import classified
from emo_jax.models.conv3d import Conv3D
from emo_jax.models.pooling import Window, max_pool3d_same

UNITS = {'conv1': (64, 7, 2), 'conv2b': (64, 1, 1), 'conv2c': (192, 3, 1)}  # channels, kernel, stride
MIXED = {  # channels of branch0, branch1a, branch1b, branch2a, branch2b, branch3
  'mixed_3b': (64, 96, 128, 16, 32, 32),
  'mixed_3c': (128, 128, 192, 32, 96, 64),
  'mixed_4b': (192, 96, 208, 16, 48, 64),
  'mixed_4c': (160, 112, 224, 24, 64, 64),
  'mixed_4d': (128, 128, 256, 24, 64, 64),
  'mixed_4e': (112, 144, 288, 32, 64, 64),
  'mixed_4f': (256, 160, 320, 32, 128, 128),
  'mixed_5b': (256, 160, 320, 32, 128, 128),
  'mixed_5c': (384, 192, 384, 48, 128, 128),
}
POOLS: dict[str, tuple[Window, Window]] = {  # window and stride of the pooling after a layer
  'conv1': ((1, 3, 3), (1, 2, 2)),
  'conv2c': ((1, 3, 3), (1, 2, 2)),
  'mixed_3c': ((3, 3, 3), (2, 2, 2)),
  'mixed_4f': ((2, 2, 2), (2, 2, 2)),
}
LAYERS = (*UNITS, *MIXED, 'average')
FROZEN = {'all': 0, 'last': LAYERS.index('mixed_5b'), 'head': len(LAYERS)}  # layers in front of the trained part


class Mixed(nn.Module):
  """Four branches side by side, an Inception block: [B, T, h, w, C] -> [B, T, h, w, sum of the branches' channels].

  Attributes:
    channels: as MIXED has them.
  """

  channels: tuple[int, int, int, int, int, int]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    zero, one_a, one_b, two_a, two_b, three = self.channels
    pooled = max_pool3d_same(x, (3, 3, 3), (1, 1, 1))
    branches = [
      _unit(x, zero, 1, name='branch0'),
      _unit(_unit(x, one_a, 1, name='branch1a'), one_b, 3, name='branch1b'),
      _unit(_unit(x, two_a, 1, name='branch2a'), two_b, 3, name='branch2b'),
      _unit(pooled, three, 1, name='branch3'),
    ]
    return jnp.concatenate(branches, axis=-1)


class I3D(nn.Module):
  """Inception-3D on face clips.

  Attributes:
    classes: C.
    dropout: rate in front of fc8.
    trained: 'all'; 'last', mixed_5b, mixed_5c and fc8; or 'head', fc8 alone.
    dtype: of the convolutions' arithmetic; parameters, and what is returned, are float32.
  """

  classes: int
  dropout: float = 0.5
  trained: str = 'all'
  dtype: jax.typing.DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, keys: jax.Array | None = None, *, part: str = 'whole') -> Any:
    """Logits and features, or the way to them in two parts.

    Args:
      x: float [B, 16, h, w, 3], RGB, -1 to 1; 224 pixels is the published size, 32 a sensible least. For 'rest', what
        'trunk' returned.
      keys: [B] random keys for dropout in front of fc8, one a row; None to predict.
      part: 'whole'; 'trunk', up to where the trained part begins; or 'rest', that part.

    Returns:
      logits [B, C], and mixed_5c averaged over time and space [B, 1024]. For 'trunk' the activations [B, ...] alone.

    Raises:
      ValueError: an unknown word.
    """
    if self.trained not in FROZEN:
      raise ValueError(f'trained={self.trained!r}: use {" or ".join(FROZEN)}')
    frozen = FROZEN[self.trained]
    for layer in {'whole': LAYERS, 'trunk': LAYERS[:frozen], 'rest': LAYERS[frozen:]}[part]:
      x = _layer(x, layer, dtype=self.dtype)
    return x.astype(jnp.float32) if part == 'trunk' else classified(x, keys, classes=self.classes, rate=self.dropout)


def _layer(x: jax.Array, layer: str, *, dtype: jax.typing.DTypeLike) -> jax.Array:
  if layer == 'average':
    return jnp.mean(x, (1, 2, 3), dtype=jnp.float32)
  x = x.astype(dtype)
  x = Mixed(MIXED[layer], name=layer)(x) if layer in MIXED else _unit(x, *UNITS[layer], name=layer)
  return max_pool3d_same(x, *POOLS[layer]) if layer in POOLS else x


def _unit(x: jax.Array, channels: int, size: int, stride: int = 1, *, name: str) -> jax.Array:
  """A convolution of one size and stride in time and space, its bias and a ReLU; to be called in a compact module."""
  return nn.relu(Conv3D(channels, (size,) * 3, (stride,) * 3, name=name)(x))

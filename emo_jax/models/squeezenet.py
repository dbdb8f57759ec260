"""A small 2-D CNN for the sound images whose ImageNet weights can be installed: SqueezeNet 1.1 (step: audio net).

It stands in for the paper's AlexNet where that one's published weights are not at hand (Iandola et al. 2016;
inputs_and_weights.md 2a).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from emo_jax.models.alexnet import classified
from emo_jax.models.conv2d import Conv2D
from emo_jax.models.pooling import max_pool2d

FIRES = {  # channels squeezed to, and of each of the two expansions
  'fire2': (16, 64),
  'fire3': (16, 64),
  'fire4': (32, 128),
  'fire5': (32, 128),
  'fire6': (48, 192),
  'fire7': (48, 192),
  'fire8': (64, 256),
  'fire9': (64, 256),
}
POOLED = ('conv1', 'fire3', 'fire5')  # layers with a pooling after them
LAYERS = ('conv1', *FIRES, 'average')
FROZEN = {'all': 0, 'last': LAYERS.index('fire9'), 'head': len(LAYERS)}  # layers in front of the trained part
SMALLEST = 31  # pixels that leave something to pool three times


class Fire(nn.Module):
  """1x1 convolutions to few channels, then 1x1 and 3x3 ones side by side: [B, h, w, C] -> [B, h, w, 2 expand].

  Attributes:
    channels: squeezed, and of each expansion.
  """

  channels: tuple[int, int]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    squeezed, expanded = self.channels
    x = _convolved(x, squeezed, 1, name='squeeze')
    return jnp.concatenate(
      [_convolved(x, expanded, size, padding=size // 2, name=f'expand{size}') for size in (1, 3)], axis=-1
    )


class SqueezeNet(nn.Module):
  """SqueezeNet 1.1 on sound images.

  Poolings round down, as in the package that the weights come from. Caffe's original rounds up, which is the same at
  224 pixels but not at 227.

  Attributes:
    classes: C.
    dropout: rate in front of fc8.
    trained: 'all'; 'last', fire9 and fc8; or 'head', fc8 alone.
    dtype: of the convolutions' arithmetic; parameters, and what is returned, are float32.
  """

  classes: int
  dropout: float = 0.5
  trained: str = 'all'
  dtype: jax.typing.DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, keys: jax.Array | None = None, *, part: str = 'whole') -> Any:
    """Logits and features, or the way to them in two parts.

    The published network ends in a convolution to the classes and an average over space; fc8 behind the average is the
    same but for the ReLU between the two, which a new classifier does without.

    Args:
      x: float [B, size, size, 3], RGB; 227 pixels is the published size. For 'rest', what 'trunk' returned.
      keys: [B] random keys for dropout in front of fc8, one a row; None to predict.
      part: 'whole'; 'trunk', up to where the trained part begins; or 'rest', that part.

    Returns:
      logits [B, C], and fire9 averaged over space [B, 512]. For 'trunk' the activations [B, ...] alone.

    Raises:
      ValueError: an unknown word, or images too small.
    """
    if self.trained not in FROZEN:
      raise ValueError(f'trained={self.trained!r}: use {" or ".join(FROZEN)}')
    frozen = FROZEN[self.trained]
    for layer in {'whole': LAYERS, 'trunk': LAYERS[:frozen], 'rest': LAYERS[frozen:]}[part]:
      x = _layer(x, layer, dtype=self.dtype)
    return x.astype(jnp.float32) if part == 'trunk' else classified(x, keys, classes=self.classes, rate=self.dropout)


def _layer(x: jax.Array, layer: str, *, dtype: jax.typing.DTypeLike) -> jax.Array:
  if layer == 'average':
    return jnp.mean(x, (1, 2), dtype=jnp.float32)
  x = x.astype(dtype)
  if layer == 'conv1':
    if min(x.shape[1:3]) < SMALLEST:
      raise ValueError(
        f'{x.shape[1]} x {x.shape[2]} images are too small for SqueezeNet: at least {SMALLEST} pixels; '
        'raise config.audio.size'
      )
    x = _convolved(x, 64, 3, stride=2, name=layer)
  else:
    x = Fire(FIRES[layer], name=layer)(x)
  return max_pool2d(x, 3, 2) if layer in POOLED else x


def _convolved(x: jax.Array, channels: int, size: int, *, name: str, stride: int = 1, padding: int = 0) -> jax.Array:
  return nn.relu(Conv2D(channels, size, stride, padding, name=name)(x))

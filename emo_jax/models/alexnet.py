"""The 2-D CNN that learns from the sound images: AlexNet (pipeline step: audio net; method.md A3).

Three published forms: 'single', one tower as in Krizhevsky 2014 and torchvision (no local response normalisation, no
groups); 'caffe', the grouped original of 2012, which normalises and then pools; and 'caffenet', Caffe's variant of it,
which pools and then normalises.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from emo_jax.models.conv2d import Conv2D, local_response_norm
from emo_jax.models.dropout import dropout
from emo_jax.models.pooling import max_pool2d

# Channels at width 1, kernel, stride, padding, groups, pooled after; in the order of the layers.
SINGLE = (
  (64, 11, 4, 2, 1, True),
  (192, 5, 1, 2, 1, True),
  (384, 3, 1, 1, 1, False),
  (256, 3, 1, 1, 1, False),
  (256, 3, 1, 1, 1, True),
)
CAFFE = (
  (96, 11, 4, 0, 1, True),
  (256, 5, 1, 2, 2, True),
  (384, 3, 1, 1, 1, False),
  (384, 3, 1, 1, 2, False),
  (256, 3, 1, 1, 2, True),
)
FORMS = {'single': SINGLE, 'caffe': CAFFE, 'caffenet': CAFFE}
SMALLEST = {'single': 63, 'caffe': 67, 'caffenet': 67}  # pixels that leave something to pool three times
LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7')
FROZEN = {'all': 0, 'last': LAYERS.index('fc6'), 'head': len(LAYERS)}  # layers in front of the trained part


def scaled(channels: int, width: float) -> int:
  """Channels at a width, an even number, at least 2."""
  return max(2, 2 * round(channels * width / 2))


def normalised(x: jax.Array, norm: str) -> jax.Array:
  """Optional normalisation, which the paper's pre-trained networks do without: 'none' or 'group'.

  Groups of a row's own channels: no statistics of the batch, so nothing depends on the number of devices.

  Raises:
    ValueError: another word.
  """
  if norm == 'none':
    return x
  if norm == 'group':
    return nn.GroupNorm(num_groups=math.gcd(8, x.shape[-1] // 2), dtype=x.dtype)(x)
  raise ValueError(f'norm={norm!r}: use none or group')


class AlexNet(nn.Module):
  """AlexNet on sound images.

  Published weights fit 224 and 227 pixels for 'single' (torchvision's average over 6 x 6 is then of one each) and 227
  for the others (whose poolings round up in Caffe and down here: equal at 227).

  Attributes:
    classes: C.
    width: scales every channel count; 1 is the published network.
    form: 'single', 'caffe' or 'caffenet'.
    norm: 'none' or 'group' normalisation after each convolution.
    dropout: rate in fc6 and fc7.
    trained: 'all'; 'last', fc6 to fc8; or 'head', fc8 alone.
    dtype: of the arithmetic, but for fc8's; parameters are float32.
  """

  classes: int
  width: float = 1.0
  form: str = 'single'
  norm: str = 'none'
  dropout: float = 0.5
  trained: str = 'all'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, keys: jax.Array | None = None, *, part: str = 'whole') -> Any:
    """Logits and features, or a part of the way there.

    Args:
      images: float [B, size, size, 3]; 224 pixels for 'single', 227 for the others are the published sizes. For 'rest',
        what 'trunk' returned.
      keys: [B] random keys for dropout in the trained part, one a row; None to predict.
      part: 'whole'; 'trunk', up to where the trained part begins; or 'rest', that part.

    Returns:
      logits [B, C]; fc7 after ReLU [B, F], F = 4096 at width 1. For 'trunk' the activations [B, ...] alone.

    Raises:
      ValueError: an unknown word, or images too small for the form.
    """
    if self.form not in FORMS:
      raise ValueError(f'audio.form={self.form!r}: use {" or ".join(FORMS)}')
    if self.trained not in FROZEN:
      raise ValueError(f'trained={self.trained!r}: use {" or ".join(FROZEN)}')
    frozen, x = FROZEN[self.trained], images.astype(self.dtype)
    for layer in {'whole': LAYERS, 'trunk': LAYERS[:frozen], 'rest': LAYERS[frozen:]}[part]:
      if layer.startswith('fc'):
        x = dense(x, layer, keys if self.trained != 'head' else None, units=scaled(4096, self.width), rate=self.dropout)
      else:
        x = self._convolved(x, layer)
    return x.astype(jnp.float32) if part == 'trunk' else classified(x, keys, classes=self.classes, rate=self.dropout)

  def _convolved(self, x: jax.Array, layer: str) -> jax.Array:
    """A convolution and what follows it up to the next: ReLU, local response normalisation, pooling."""
    channels, kernel, stride, padding, groups, pooled = FORMS[self.form][LAYERS.index(layer)]
    if layer == 'conv1' and min(x.shape[1:3]) < SMALLEST[self.form]:
      raise ValueError(
        f'{x.shape[1]} x {x.shape[2]} images are too small for AlexNet ({self.form}): '
        f'at least {SMALLEST[self.form]} pixels; raise config.audio.size'
      )
    x = Conv2D(scaled(channels, self.width), kernel, stride, padding, groups, name=layer)(x)
    x = nn.relu(normalised(x, self.norm))
    local = layer in ('conv1', 'conv2')
    if self.form == 'caffe' and local:
      x = local_response_norm(x)
    if pooled:
      x = max_pool2d(x, 3, 2)
    if self.form == 'caffenet' and local:
      x = local_response_norm(x)
    return x


def dense(x: jax.Array, layer: str, keys: jax.Array | None, *, units: int, rate: float) -> jax.Array:
  """fc6 or fc7 with its ReLU, and dropout between the two; to be called within a compact module.

  Args:
    x: [B, ...]: the map that the last convolution gives, or fc6.
    layer: 'fc6' or 'fc7'.
    keys: [B] random keys or None.
    units: outputs.
    rate: of dropout.

  Returns:
    [B, units].
  """
  x = x.reshape(len(x), -1) if layer == 'fc6' else dropout(x, rate, keys, 0)
  return nn.relu(nn.Dense(units, kernel_init=nn.initializers.he_normal(), dtype=x.dtype, name=layer)(x))


def classified(
  features: jax.Array, keys: jax.Array | None, *, classes: int, rate: float
) -> tuple[jax.Array, jax.Array]:
  """The new classifier fc8, which starts small (method.md A3); to be called within a compact module.

  Args:
    features: [B, F], of which dropout stands in front of fc8 alone.
    keys: [B] random keys or None.
    classes: C.
    rate: of dropout.

  Returns:
    logits [B, C], features [B, F], float32.
  """
  features = features.astype(jnp.float32)
  x = dropout(features, rate, keys, 1)
  return nn.Dense(classes, kernel_init=nn.initializers.normal(0.005), name='fc8')(x), features

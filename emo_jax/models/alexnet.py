"""The 2-D CNN that learns from the sound images: AlexNet (pipeline step: audio net; method.md A3).

Two published forms: 'single', one tower as in Krizhevsky 2014 and torchvision (no local response normalisation, no
groups), and 'caffe', the grouped original of 2012 with local response normalisation.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from emo_jax.models.dropout import dropout

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
FORMS = {'single': SINGLE, 'caffe': CAFFE}
SMALLEST = {'single': 63, 'caffe': 67}  # pixels that leave something to pool three times


def scaled(channels: int, width: float) -> int:
  """Channels at a width, an even number, at least 2."""
  return max(2, 2 * round(channels * width / 2))


def local_response_norm(x: jax.Array, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> jax.Array:
  """Caffe's normalisation over channels, x / (1 + alpha / size * sum of squares of `size` neighbours) ** beta.

  Args:
    x: [..., channels].
  """
  window = (1,) * (x.ndim - 1) + (size,)
  around = [(0, 0)] * (x.ndim - 1) + [(size // 2, size // 2)]
  squares = jax.lax.reduce_window(jnp.square(x), 0.0, jax.lax.add, window, (1,) * x.ndim, around)
  return x / (1 + alpha / size * squares) ** beta


def normalised(x: jax.Array, norm: str) -> jax.Array:
  """Optional normalisation, which the paper's pre-trained networks do without: 'none' or 'group'.

  Groups of a row's own channels: no statistics of the batch, so nothing depends on the number of devices.

  Raises:
    ValueError: another word.
  """
  if norm == 'none':
    return x
  if norm == 'group':
    return nn.GroupNorm(num_groups=math.gcd(8, x.shape[-1] // 2))(x)
  raise ValueError(f'norm={norm!r}: use none or group')


class AlexNet(nn.Module):
  """AlexNet on sound images.

  Attributes:
    classes: C.
    width: scales every channel count; 1 is the published network.
    form: 'single' or 'caffe'.
    norm: 'none' or 'group' normalisation after each convolution.
    dropout: rate in fc6 and fc7.
  """

  classes: int
  width: float = 1.0
  form: str = 'single'
  norm: str = 'none'
  dropout: float = 0.5

  @nn.compact
  def __call__(self, images: jax.Array, keys: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Logits and features.

    Args:
      images: float [B, size, size, 3]; 224 pixels for 'single', 227 for 'caffe' are the published sizes.
      keys: [B] random keys for dropout, one a row; None to predict.

    Returns:
      logits [B, C]; fc7 after ReLU [B, F], F = 4096 at width 1.

    Raises:
      ValueError: an unknown form, or images too small for it.
    """
    if self.form not in FORMS:
      raise ValueError(f'audio.form={self.form!r}: use {" or ".join(FORMS)}')
    if min(images.shape[1:3]) < SMALLEST[self.form]:
      raise ValueError(
        f'{images.shape[1]} x {images.shape[2]} images are too small for AlexNet ({self.form}): '
        f'at least {SMALLEST[self.form]} pixels; raise config.audio.size'
      )
    x = images
    for layer, (channels, kernel, stride, padding, groups, pooled) in enumerate(FORMS[self.form], start=1):
      x = nn.Conv(
        scaled(channels, self.width),
        (kernel, kernel),
        stride,
        padding,
        feature_group_count=groups,
        kernel_init=nn.initializers.he_normal(),
        name=f'conv{layer}',
      )(x)
      x = nn.relu(normalised(x, self.norm))
      if self.form == 'caffe' and layer <= 2:
        x = local_response_norm(x)
      if pooled:
        x = nn.max_pool(x, (3, 3), (2, 2))
    return head(
      x.reshape(len(x), -1), keys, hidden=scaled(4096, self.width), classes=self.classes, dropout_rate=self.dropout
    )


def head(
  x: jax.Array, keys: jax.Array | None, *, hidden: int, classes: int, dropout_rate: float
) -> tuple[jax.Array, jax.Array]:
  """fc6, fc7 and the new fc8 that both networks end in; to be called within a compact module.

  Dropout stands after each ReLU; the features are taken before it, and fc8 starts small (method.md A3).

  Args:
    x: [B, inputs].
    keys: [B] random keys or None.

  Returns:
    logits [B, C], features [B, hidden].
  """
  features = x
  for layer, name in enumerate(('fc6', 'fc7')):
    features = nn.relu(nn.Dense(hidden, kernel_init=nn.initializers.he_normal(), name=name)(x))
    x = dropout(features, dropout_rate, keys, layer)
  logits = nn.Dense(classes, kernel_init=nn.initializers.normal(0.005), name='fc8')(x)
  return logits, features

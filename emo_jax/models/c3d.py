"""The 3-D CNN that learns from the face clips: C3D (pipeline step: visual net; method.md A3)."""

import flax.linen as nn
import jax

from emo_jax.models.alexnet import head, normalised, scaled
from emo_jax.models.conv3d import Conv3D, max_pool3d

# Channels at width 1 of the convolutions in front of each pooling; pool1 leaves time alone.
BLOCKS = ((64,), (128,), (256, 256), (512, 512), (512, 512))


class C3D(nn.Module):
  """C3D on face clips.

  Every pooling rounds up and pads to the right and bottom only, as Caffe does: at 112 pixels that is pool5's 7 -> 4,
  which the published weights need and most ports get wrong.

  Attributes:
    classes: C.
    width: scales every channel count; 1 is the published network.
    norm: 'none' or 'group' normalisation after each convolution.
    dropout: rate in fc6 and fc7.
  """

  classes: int
  width: float = 1.0
  norm: str = 'none'
  dropout: float = 0.5

  @nn.compact
  def __call__(self, faces: jax.Array, keys: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Logits and features.

    Args:
      faces: float [B, 16, size, size, 3]; 112 pixels is the published size.
      keys: [B] random keys for dropout, one a row; None to predict.

    Returns:
      logits [B, C]; fc7 after ReLU [B, F], F = 4096 at width 1.
    """
    x = faces
    for block, layers in enumerate(BLOCKS, start=1):
      for letter, channels in zip('ab', layers, strict=False):
        name = f'conv{block}{letter if len(layers) > 1 else ""}'
        x = nn.relu(normalised(Conv3D(scaled(channels, self.width), name=name)(x), self.norm))
      x = max_pool3d(x, (1, 2, 2) if block == 1 else (2, 2, 2))
    return head(
      x.reshape(len(x), -1), keys, hidden=scaled(4096, self.width), classes=self.classes, dropout_rate=self.dropout
    )

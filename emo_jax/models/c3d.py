"""The 3-D CNN that learns from the face clips: C3D (pipeline step: visual net; method.md A3)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from emo_jax.models.alexnet import classified, dense, normalised, scaled
from emo_jax.models.conv3d import Conv3D
from emo_jax.models.pooling import Window, max_pool3d

# Channels at width 1 of the convolutions, and the pooling after each; pool1 leaves time alone.
CONVOLUTIONS: dict[str, tuple[int, Window | None]] = {
  'conv1': (64, (1, 2, 2)),
  'conv2': (128, (2, 2, 2)),
  'conv3a': (256, None),
  'conv3b': (256, (2, 2, 2)),
  'conv4a': (512, None),
  'conv4b': (512, (2, 2, 2)),
  'conv5a': (512, None),
  'conv5b': (512, None),  # pool5 has a step of its own
}
LAYERS = (*CONVOLUTIONS, 'pool5', 'fc6', 'fc7')
FROZEN = {'all': 0, 'last': LAYERS.index('fc6'), 'head': len(LAYERS)}  # layers in front of the trained part


class C3D(nn.Module):
  """C3D on face clips.

  Every pooling rounds up and pads to the right and bottom only, as Caffe does: at 112 pixels that is pool5's 7 -> 4,
  which the published weights need and most ports get wrong.

  Attributes:
    classes: C.
    width: scales every channel count; 1 is the published network.
    norm: 'none' or 'group' normalisation after each convolution.
    dropout: rate in fc6 and fc7.
    pool5: 'caffe', or 'symmetric', which pads both sides (and rounds down elsewhere), for weights that were fine-tuned
      in one of those ports.
    grid: 4 takes pool5's maps, where they are larger, to 4 x 4, so that a published fc6 fits 224 and 227 pixels; 0
      leaves them.
    trained: 'all'; 'last', fc6 to fc8; or 'head', fc8 alone.
    dtype: of the arithmetic, but for fc8's; parameters are float32.
  """

  classes: int
  width: float = 1.0
  norm: str = 'none'
  dropout: float = 0.5
  pool5: str = 'caffe'
  grid: int = 0
  trained: str = 'all'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, faces: jax.Array, keys: jax.Array | None = None, *, part: str = 'whole') -> Any:
    """Logits and features, or a part of the way there.

    Args:
      faces: float [B, 16, size, size, 3]; 112 pixels is the published size. For 'rest', what 'trunk' returned.
      keys: [B] random keys for dropout in the trained part, one a row; None to predict.
      part: 'whole'; 'trunk', up to where the trained part begins; or 'rest', that part.

    Returns:
      logits [B, C]; fc7 after ReLU [B, F], F = 4096 at width 1. For 'trunk' the activations [B, ...] alone.

    Raises:
      ValueError: an unknown word, or faces of a size that does not come to the grid.
    """
    if self.trained not in FROZEN:
      raise ValueError(f'trained={self.trained!r}: use {" or ".join(FROZEN)}')
    frozen, x = FROZEN[self.trained], faces.astype(self.dtype)
    for layer in {'whole': LAYERS, 'trunk': LAYERS[:frozen], 'rest': LAYERS[frozen:]}[part]:
      if layer in CONVOLUTIONS:
        channels, window = CONVOLUTIONS[layer]
        x = nn.relu(normalised(Conv3D(scaled(channels, self.width), name=layer)(x), self.norm))
        x = _pooled(x, window, self.pool5) if window else x
      elif layer == 'pool5':
        x = _gridded(_pool5(x, self.pool5), self.grid)
      else:
        x = dense(x, layer, keys if self.trained != 'head' else None, units=scaled(4096, self.width), rate=self.dropout)
    return x.astype(jnp.float32) if part == 'trunk' else classified(x, keys, classes=self.classes, rate=self.dropout)


def _pooled(x: jax.Array, window: Window, how: str) -> jax.Array:
  """Rounds up as Caffe does, or with 'symmetric' down as its ports do: at 112 pixels nothing is left to round."""
  if how == 'symmetric':
    time, high, wide = (size - size % step for size, step in zip(x.shape[1:4], window, strict=True))
    x = x[:, :time, :high, :wide]
  return max_pool3d(x, window)


def _pool5(x: jax.Array, how: str) -> jax.Array:
  """The last pooling, of maps that are nowhere below 0: 7 x 7 -> 4 x 4 either way, but from other windows.

  Raises:
    ValueError: another word than 'caffe' ({0,1} {2,3} {4,5} {6}) or 'symmetric' ({0} {1,2} {3,4} {5,6}).
  """
  if how not in ('caffe', 'symmetric'):
    raise ValueError(f'visual.pool5={how!r}: use caffe or symmetric')
  if how == 'symmetric':
    x = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
  return _pooled(x, (2, 2, 2), how)


def _gridded(x: jax.Array, grid: int) -> jax.Array:
  """Maxima of [B, 1, h, w, C] over as many places as leave grid x grid; 0 leaves all.

  Raises:
    ValueError: no number of places does.
  """
  if not grid:
    return x
  high, wide = (-(-size // grid) for size in x.shape[2:4])
  pooled = max_pool3d(x, (1, high, wide))
  if pooled.shape[2:4] != (grid, grid):
    raise ValueError(
      f'visual.grid={grid}: pool5 gives {x.shape[2]} x {x.shape[3]} maps, which do not come to {grid} x {grid}; '
      'use config.visual.size=112, 224 or 227, or grid=0'
    )
  return pooled

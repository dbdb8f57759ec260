"""3-D convolution and pooling of the visual network (step: C3D); the one place where either is computed.

XLA's 3-D convolution is slow on CPU and its 2-D one is fast, so on CPU the three time taps are stacked along the
channels and one 2-D convolution does the rest. JAX's gradients of that are fast too, but for the
kernel of wide layers: see _wide_conv.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Window = tuple[int, int, int]
WIDE = 64  # input channels from which the kernel's gradient is faster as matrix products


def conv3d(x: jax.Array, kernel: jax.Array, *, stacked: bool | None = None) -> jax.Array:
  """Convolves with a 3x3x3 kernel at stride 1, zero padded to the same size (method.md: C3D).

  Args:
    x: [B, T, H, W, C].
    kernel: [3, 3, 3, C, O] of x's dtype; axes time, height, width, input, output.
    stacked: True for the 2-D form that is fast on CPU, False for XLA's own 3-D form; None chooses by the platform.

  Returns:
    [B, T, H, W, O].

  Raises:
    ValueError: x is not five-dimensional or the kernel does not fit it.
  """
  if x.ndim != 5 or kernel.ndim != 5 or kernel.shape[:4] != (3, 3, 3, x.shape[-1]):
    raise ValueError(
      f'conv3d needs x [B, T, H, W, C] and kernel [3, 3, 3, C, O], not {x.shape} and {kernel.shape}: '
      'add the missing batch axis, or make the kernel for this number of channels'
    )
  if stacked is None:
    stacked = jax.default_backend() == 'cpu'
  if stacked:
    return _wide_conv(x, kernel) if x.shape[-1] >= WIDE else _stacked_conv(x, kernel)
  return lax.conv_general_dilated(x, kernel, (1, 1, 1), 'SAME', dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'))


def _stacked_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
  batch, time, height, width, channels = x.shape
  padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
  taps = jnp.concatenate([padded[:, i : i + time] for i in range(3)], axis=-1)
  flat_kernel = jnp.moveaxis(kernel, 0, 2).reshape(3, 3, 3 * channels, -1)
  y = lax.conv_general_dilated(
    taps.reshape(batch * time, height, width, 3 * channels),
    flat_kernel,
    (1, 1),
    'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  return y.reshape(batch, time, height, width, -1)


# Measured on two cores, C3D at full width and 112 px, 2 clips: a step takes 1.14 to 1.35 times as long without.
# On narrow layers JAX's own gradient is as fast (16 and 32 input channels) or 3 times faster (3 and 8).
@jax.custom_vjp
def _wide_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return _stacked_conv(x, kernel)


def _wide_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _stacked_conv(x, kernel), (x, kernel)


def _wide_backward(saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
  x, kernel = saved
  _, time, height, width, channels = x.shape
  (dx,) = jax.vjp(lambda x: _stacked_conv(x, kernel), x)[1](dy)
  # One product (C x N)(N x 3O) a spatial tap: x shifted in space against dy shifted in time, the other way round.
  late = jnp.pad(dy, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
  dy_taps = jnp.concatenate([late[:, 2 - i : 2 - i + time] for i in range(3)], axis=-1).reshape(-1, 3 * dy.shape[-1])
  padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
  views = [padded[:, :, i : i + height, j : j + width].reshape(-1, channels) for i in range(3) for j in range(3)]
  products = jnp.stack([view.T @ dy_taps for view in views]).reshape(3, 3, channels, 3, -1)
  return dx, jnp.moveaxis(products, 3, 0)


_wide_conv.defvjp(_wide_forward, _wide_backward)


class Conv3D(nn.Module):
  """conv3d plus a bias: [B, T, H, W, C] -> [B, T, H, W, features].

  The parameters, 'kernel' [3, 3, 3, C, features] and 'bias' [features], are float32 and laid out as those of
  nn.Conv(features, (3, 3, 3)); they are computed with in x's dtype.
  """

  features: int
  kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kernel = self.param('kernel', self.kernel_init, (3, 3, 3, x.shape[-1], self.features))
    bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
    return conv3d(x, kernel.astype(x.dtype)) + bias.astype(x.dtype)


def max_pool3d(x: jax.Array, window: Window) -> jax.Array:
  """Takes the maximum over windows that do not overlap, rounding sizes up as Caffe does (method.md: C3D).

  A size that the window does not divide keeps a shorter last window: 7 in twos -> {0,1} {2,3} {4,5} {6}. Where values
  of a window tie, the gradient is shared out between them; its sum is kept.

  Args:
    x: [B, T, H, W, C], floating point.
    window: size and stride (time, height, width).

  Returns:
    [B, ceil(T / time), ceil(H / height), ceil(W / width), C].

  Raises:
    ValueError: x is not five-dimensional or the window not three sizes of 1 or more.
  """
  if x.ndim != 5 or len(window) != 3 or min(window) < 1:
    raise ValueError(f'max_pool3d needs x [B, T, H, W, C] and three window sizes >= 1, not {x.shape} and {window}')
  missing = [-size % step for size, step in zip(x.shape[1:4], window, strict=True)]
  if any(missing):
    x = jnp.pad(x, [(0, 0), *((0, n) for n in missing), (0, 0)], constant_values=-jnp.inf)
  # Pairwise maxima over a split axis: no select-and-scatter, XLA's gradient of a windowed maximum.
  for axis, step in reversed(list(enumerate(window, start=1))):
    split = x.reshape(*x.shape[:axis], x.shape[axis] // step, step, *x.shape[axis + 1 :])
    x = functools.reduce(jnp.maximum, (lax.index_in_dim(split, i, axis + 1, keepdims=False) for i in range(step)))
  return x

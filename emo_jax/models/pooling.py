"""Maximum pooling of both networks (steps: audio net, visual net): axis after axis, with a gradient of plain sums.

XLA's own gradient of a windowed maximum, select-and-scatter, takes eight times as long on CPU.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

Window = tuple[int, int, int]


def max_pool2d(x: jax.Array, window: int, stride: int) -> jax.Array:
  """Takes the maximum over square windows that lie within the image (AlexNet, SqueezeNet).

  Where values of a window tie, the gradient goes to one of them.

  Args:
    x: [B, H, W, C], floating point.
    window: size in height and width.
    stride: step in height and width.

  Returns:
    [B, (H - window) // stride + 1, (W - window) // stride + 1, C].

  Raises:
    ValueError: x is not four-dimensional or smaller than a window.
  """
  if x.ndim != 4 or min(x.shape[1:3]) < window:
    raise ValueError(f'max_pool2d needs x [B, H, W, C] with H, W >= {window}, not {x.shape}: larger images')
  return _pooled(x, (window,) * 2, (stride,) * 2, [(0, 0)] * 2)


def max_pool3d(x: jax.Array, window: Window) -> jax.Array:
  """Takes the maximum over windows that do not overlap, rounding sizes up as Caffe does (method.md: C3D).

  A size that the window does not divide keeps a shorter last window: 7 in twos -> {0,1} {2,3} {4,5} {6}. Where values
  of a window tie, the gradient goes to one of them, or is shared out between them.

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
  pads = [(0, -size % step) for size, step in zip(x.shape[1:4], window, strict=True)]
  return _pooled(x, window, window, pads) if jax.default_backend() == 'cpu' else _blocked(x, window, pads)


def max_pool3d_same(x: jax.Array, window: Window, strides: Window) -> jax.Array:
  """Takes the maximum over windows that may overlap, padded as XLA's and TensorFlow's 'SAME' (I3D).

  Where values of a window tie, the gradient goes to one of them.

  Args:
    x: [B, T, H, W, C], floating point.
    window: sizes in time, height and width.
    strides: steps in time, height and width.

  Returns:
    [B, ceil(T / strides[0]), ceil(H / strides[1]), ceil(W / strides[2]), C].

  Raises:
    ValueError: x is not five-dimensional, or a window or a stride is not three sizes of 1 or more.
  """
  if x.ndim != 5 or len(window) != 3 or len(strides) != 3 or min(*window, *strides) < 1:
    raise ValueError(
      f'max_pool3d_same needs x [B, T, H, W, C], three window sizes and three strides >= 1, '
      f'not {x.shape}, {window} and {strides}'
    )
  return _pooled(x, window, strides, lax.padtype_to_pads(x.shape[1:4], window, strides, 'SAME'))


def _pooled(x: jax.Array, window: Sequence[int], strides: Sequence[int], pads: Sequence[tuple[int, int]]) -> jax.Array:
  """Over x's first axes after the batch, the last of them first."""
  for axis in range(len(window), 0, -1):
    x = _max_along(x, axis, window[axis - 1], strides[axis - 1], pads[axis - 1])
  return x


def _blocked(x: jax.Array, window: Window, pads: Sequence[tuple[int, int]]) -> jax.Array:
  """Windows that do not overlap, as axes of their own: faster on GPUs (2 of the 31 ms of a C3D step)."""
  x = jnp.pad(x, [(0, 0), *pads, (0, 0)], constant_values=-jnp.inf)
  blocks = [size for n, step in zip(x.shape[1:4], window, strict=True) for size in (n // step, step)]
  return jnp.max(x.reshape(len(x), *blocks, x.shape[-1]), (2, 4, 6))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _max_along(x: jax.Array, axis: int, size: int, step: int, pad: tuple[int, int]) -> jax.Array:
  return functools.reduce(jnp.maximum, _taps(x, axis, size, step, pad))


def _taps(x: jax.Array, axis: int, size: int, step: int, pad: tuple[int, int]) -> list[jax.Array]:
  """What stands at each place of the windows."""
  if any(pad):
    x = jnp.pad(x, _widths(x, axis, *pad), constant_values=-jnp.inf)
  count = (x.shape[axis] - size) // step + 1
  return [lax.slice_in_dim(x, i, i + (count - 1) * step + 1, step, axis) for i in range(size)]


def _forward(
  x: jax.Array, axis: int, size: int, step: int, pad: tuple[int, int]
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  y = _max_along(x, axis, size, step, pad)
  return y, (x, y)


def _backward(
  axis: int, size: int, step: int, pad: tuple[int, int], saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array]:
  x, y = saved
  left, shares = dy, []  # `left` is what no tap has taken yet
  for tap in _taps(x, axis, size, step, pad):
    shares.append(jnp.where(tap == y, left, 0))
    left = jnp.where(tap == y, 0, left)
  # Tap i of window j lies at i + step * j: every step-th place is a sum of shifted shares, and they interleave.
  reach = -(-size // step) - 1
  places = [jnp.zeros((*dy.shape[:axis], dy.shape[axis] + reach, *dy.shape[axis + 1 :]), dy.dtype)] * step
  for i, share in enumerate(shares):
    places[i % step] += jnp.pad(share, _widths(dy, axis, i // step, reach - i // step))
  spread = jnp.stack(places, axis + 1)
  spread = spread.reshape(*dy.shape[:axis], -1, *dy.shape[axis + 1 :])
  beyond = max(0, pad[0] + x.shape[axis] - spread.shape[axis])
  spread = jnp.pad(spread, _widths(dy, axis, 0, beyond))
  return (lax.slice_in_dim(spread, pad[0], pad[0] + x.shape[axis], axis=axis),)


_max_along.defvjp(_forward, _backward)


def _widths(x: jax.Array, axis: int, before: int, after: int) -> list[tuple[int, int]]:
  return [(before, after) if i == axis else (0, 0) for i in range(x.ndim)]

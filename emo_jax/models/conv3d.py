"""3-D convolution of the visual networks (step: visual net; C3D, I3D); the one place where it is computed.

XLA's 3-D convolution is slow on CPU, so there forward pass, input gradient and kernel gradient each take the form
that was fastest for the most similar layer measured (conv_table.py, which benchmarks/conv3d.py writes). On
accelerators, and in other types than float32, it is XLA's own, but for few input channels on a GPU.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from emo_jax.models import conv_table, winograd
from emo_jax.models.pooling import Window

Convolve = Callable[[jax.Array, jax.Array, Window], jax.Array]
Gradient = Callable[[jax.Array, jax.Array, jax.Array, Window], jax.Array]  # of x, kernel, the output's gradient

# Channels below which XLA's 3-D convolution is slow on a GPU too: of a C3D step on an H100 (bfloat16, 30 clips, 31 ms)
# the first layer took 11 ms, and the whole step takes 27 ms with that layer as a 2-D convolution.
FEW = 8
TO_SAVE = {'winograd': 3.0}  # milliseconds: its hundred loops take 3 s to compile, which a thousand steps pay back


def conv3d(x: jax.Array, kernel: jax.Array, *, strides: Window = (1, 1, 1)) -> jax.Array:
  """Convolves in time and space, zero padded as XLA's and TensorFlow's 'SAME' (method.md: C3D).

  Args:
    x: [B, T, H, W, C].
    kernel: [kt, kh, kw, C, O] of x's dtype; axes time, height, width, input, output, the first three odd.
    strides: steps in time, height and width.

  Returns:
    [B, ceil(T / strides[0]), ceil(H / strides[1]), ceil(W / strides[2]), O].

  Raises:
    ValueError: x is not five-dimensional, the kernel does not fit it or has an even size.
  """
  if x.ndim != 5 or kernel.ndim != 5 or kernel.shape[3] != x.shape[-1] or not all(n % 2 for n in kernel.shape[:3]):
    raise ValueError(
      f'conv3d needs x [B, T, H, W, C] and kernel [kt, kh, kw, C, O] of odd sizes, not {x.shape} and {kernel.shape}: '
      'add the missing batch axis, or make the kernel for this number of channels'
    )
  if jax.default_backend() == 'gpu' and x.shape[-1] < FEW:
    return _stacked(x, kernel, strides)
  if jax.default_backend() != 'cpu' or x.dtype != jnp.float32:
    return _plain(x, kernel, strides)
  if kernel.shape[:3] == (1, 1, 1):
    return _product(x, kernel, strides)
  return _measured_best(x, kernel, strides)


def fastest(table: conv_table.Table, x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], strides: Window) -> str:
  """The fastest form of the most similar layer in a table: same kernel and strides, nearest in side and channels.

  The side is that of a cube of as many positions: their number tells less than the channels' does. 'stacked' where no
  layer of that kernel and those strides was measured.
  """
  positions, (channels, features) = math.prod(x_shape[:4]), kernel_shape[3:]

  def distance(layer: conv_table.Layer) -> float:
    side = (math.prod(layer.size) / positions) ** (1 / 3)
    ratios = side, layer.channels / channels, layer.features / features
    return sum(math.log(ratio) ** 2 for ratio in ratios)

  similar = [layer for layer in table if (layer.kernel, layer.strides) == (kernel_shape[:3], strides)]
  if not similar:
    return 'stacked'
  nearest = min(similar, key=distance)
  times, measured = table[nearest], math.prod(nearest.size) * nearest.channels * nearest.features
  work = positions * channels * features / measured
  return min(times, key=lambda form: work * times[form] + TO_SAVE.get(form, 0))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _measured_best(x: jax.Array, kernel: jax.Array, strides: Window) -> jax.Array:
  return CONVOLVE[fastest(conv_table.CONVOLVE, x.shape, kernel.shape, strides)](x, kernel, strides)


def _forward(x: jax.Array, kernel: jax.Array, strides: Window) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _measured_best(x, kernel, strides), (x, kernel)


def _backward(strides: Window, saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
  x, kernel = saved
  which = x.shape, kernel.shape, strides
  dx = INPUT_GRADIENT[fastest(conv_table.INPUT_GRADIENT, *which)](x, kernel, dy, strides)
  return dx, KERNEL_GRADIENT[fastest(conv_table.KERNEL_GRADIENT, *which)](x, kernel, dy, strides)


_measured_best.defvjp(_forward, _backward)


def _plain(x: jax.Array, kernel: jax.Array, strides: Window) -> jax.Array:
  return lax.conv_general_dilated(x, kernel, strides, 'SAME', dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'))


def _stacked(x: jax.Array, kernel: jax.Array, strides: Window) -> jax.Array:
  """One 2-D convolution over channels stacked from the time taps."""
  depth, *window, channels, features = kernel.shape
  stack = _stack(x, depth, strides[0])
  return _conv2d(stack, jnp.moveaxis(kernel, 0, 2).reshape(*window, depth * channels, features), strides)


def _summed(x: jax.Array, kernel: jax.Array, strides: Window) -> jax.Array:
  """A 2-D convolution a time tap."""
  taps = _shifted(x, kernel.shape[:1], strides[:1])
  return _sum(_conv2d(tap, weights, strides) for tap, weights in zip(taps, kernel, strict=True))


def _product(x: jax.Array, kernel: jax.Array, strides: Window) -> jax.Array:
  """One matrix product over channels stacked from all taps."""
  return jnp.concatenate(_shifted(x, kernel.shape[:3], strides), -1) @ kernel.reshape(-1, kernel.shape[-1])


def _stack(x: jax.Array, depth: int, stride: int) -> jax.Array:
  """[B, T, H, W, C] -> [B, T', H, W, depth * C]: what the time taps see, side by side."""
  below = (depth - 1) * x.shape[-1]
  # A sum of padded copies, not a concatenation: one fused loop, 2 to 3 times faster for few channels.
  return _sum(
    jnp.pad(tap, [(0, 0)] * 4 + [(i * x.shape[-1], below - i * x.shape[-1])])
    for i, tap in enumerate(_shifted(x, (depth,), (stride,)))
  )


def _sum(parts: Iterable[jax.Array]) -> jax.Array:
  return functools.reduce(jnp.add, parts)


def _conv2d(x: jax.Array, kernel: jax.Array, strides: Window) -> jax.Array:
  frames = x.reshape(-1, *x.shape[2:])
  y = lax.conv_general_dilated(frames, kernel, strides[1:], 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  return y.reshape(*x.shape[:2], *y.shape[1:])


def _shifted(x: jax.Array, window: tuple[int, ...], strides: tuple[int, ...]) -> list[jax.Array]:
  """What each tap of a window over x's first axes after the batch sees, in the order of the kernel's axes."""
  pads = lax.padtype_to_pads(x.shape[1 : 1 + len(window)], window, strides, 'SAME')
  views = [jnp.pad(x, [(0, 0), *pads, *[(0, 0)] * (x.ndim - 1 - len(window))])]
  for axis, (size, step) in enumerate(zip(window, strides, strict=True), start=1):
    last = views[0].shape[axis] - size + 1
    views = [lax.slice_in_dim(view, i, i + last, step, axis) for view in views for i in range(size)]
  return views


def _by_taps(x: jax.Array, kernel: jax.Array, dy: jax.Array, strides: Window) -> jax.Array:
  """One product (C x N)(N x kt O) a spatial tap: x shifted in space against dy shifted in time, the other way round.

  For stride 1 only.
  """
  depth, height, width, channels, features = kernel.shape
  dys = jnp.concatenate(_shifted(dy, (depth,), (1,))[::-1], -1).reshape(-1, depth * features)
  views = _shifted(x, (1, height, width), strides)
  products = jnp.stack([view.reshape(-1, channels).T @ dys for view in views])
  return jnp.moveaxis(products.reshape(height, width, channels, depth, features), 3, 0)


def _by_frames(x: jax.Array, kernel: jax.Array, dy: jax.Array, strides: Window) -> jax.Array:
  """One product (kh kw kt C x H W)(H W x O) a frame, after another: what it stacks stays in the cache."""
  depth, height, width, channels, features = kernel.shape

  def add(total: jax.Array, frame: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
    image, change = frame
    stack = jnp.concatenate(_shifted(image[None], (height, width), strides[1:]), -1)
    return total + stack.reshape(-1, len(total)).T @ change.reshape(-1, features), None

  stack = _stack(x, depth, strides[0])
  frames = stack.reshape(-1, *stack.shape[2:]), dy.reshape(-1, *dy.shape[2:])
  total, _ = lax.scan(add, jnp.zeros((height * width * depth * channels, features), x.dtype), frames)
  return jnp.moveaxis(total.reshape(height, width, depth, channels, features), 2, 0)


def _by_flipping(convolve: Convolve) -> Gradient:
  """The input's gradient at stride 1: a convolution too."""

  def gradient(x: jax.Array, kernel: jax.Array, dy: jax.Array, strides: Window) -> jax.Array:
    if strides != (1, 1, 1):
      return jax.linear_transpose(lambda x: convolve(x, kernel, strides), x)(dy)[0]
    return convolve(dy, jnp.flip(kernel, (0, 1, 2)).swapaxes(3, 4), strides)

  return gradient


def _by_transposing(convolve: Convolve) -> Gradient:
  return lambda x, kernel, dy, strides: jax.linear_transpose(lambda k: convolve(x, k, strides), kernel)(dy)[0]


CONVOLVE: dict[str, Convolve] = {'plain': _plain, 'stacked': _stacked, 'summed': _summed, 'product': _product}
INPUT_GRADIENT: dict[str, Gradient] = {name: _by_flipping(convolve) for name, convolve in CONVOLVE.items()}
KERNEL_GRADIENT: dict[str, Gradient] = {name: _by_transposing(convolve) for name, convolve in CONVOLVE.items()}
KERNEL_GRADIENT['frames'] = _by_frames
# These are for stride 1 only.
CONVOLVE['winograd'] = lambda x, kernel, strides: winograd.convolve(x, kernel)
INPUT_GRADIENT['winograd'] = lambda x, kernel, dy, strides: winograd.input_gradient(dy, kernel)
KERNEL_GRADIENT['winograd'] = lambda x, kernel, dy, strides: winograd.kernel_gradient(x, dy, kernel.shape)
KERNEL_GRADIENT['taps'] = _by_taps


def forms(of: Mapping[str, Any], kernel: Window, strides: Window) -> list[str]:
  """Names of those in a dictionary above that can do a kernel at these strides."""
  can = {'winograd': winograd.fits(kernel, strides), 'taps': strides == (1, 1, 1)}
  return [name for name in of if can.get(name, True)]


class Conv3D(nn.Module):
  """conv3d plus a bias: [B, T, H, W, C] -> [B, T', H', W', features].

  The parameters, 'kernel' [kt, kh, kw, C, features] and 'bias' [features], are float32 and laid out as those of
  nn.Conv(features, kernel, strides); they are computed with in x's dtype.
  """

  features: int
  kernel: Window = (3, 3, 3)
  strides: Window = (1, 1, 1)
  use_bias: bool = True
  kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kernel = self.param('kernel', self.kernel_init, (*self.kernel, x.shape[-1], self.features))
    y = conv3d(x, kernel.astype(x.dtype), strides=self.strides)
    if not self.use_bias:
      return y
    return y + self.param('bias', nn.initializers.zeros_init(), (self.features,)).astype(x.dtype)

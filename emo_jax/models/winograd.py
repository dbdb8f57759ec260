"""Convolution with 3-tap kernels by Winograd's minimal filtering (steps: audio net, visual net, on CPU).

F(2, 3) finds two neighbouring outputs of a 3-tap filter with 4 products in place of 6 (Winograd 1980; Lavin and Gray
2015, arXiv:1509.09308). Along time, height and width at once: 64 products for 8 outputs in place of 216. Each of the 64
is one matrix product over channels; the rest is sums. Float error is that of the plain convolution.
"""

import jax
import jax.numpy as jnp
from jax import lax

Shape = tuple[int, ...]


def fits(kernel_shape: Shape, strides: Shape) -> bool:
  """Whether every axis of the kernel has 3 taps or 1, at stride 1."""
  return set(kernel_shape[:3]) <= {1, 3} and set(strides) == {1}


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """The convolution at stride 1, zero padded to the same size.

  Args:
    x: [B, T, H, W, C].
    kernel: [kt, kh, kw, C, O], each of the first three 1 or 3.

  Returns:
    [B, T, H, W, O].
  """
  return _filtered(x, kernel, contracted=0)


def input_gradient(dy: jax.Array, kernel: jax.Array) -> jax.Array:
  """The gradient of sum(convolve(x, kernel) * dy) in x: the same with the kernel flipped and its channels swapped.

  Args:
    dy: [B, T, H, W, O].
    kernel: [kt, kh, kw, C, O].

  Returns:
    [B, T, H, W, C].
  """
  return _filtered(dy, jnp.flip(kernel, (0, 1, 2)), contracted=1)  # swapped in the products: a copy takes far longer


def kernel_gradient(x: jax.Array, dy: jax.Array, kernel_shape: Shape) -> jax.Array:
  """The gradient of sum(convolve(x, kernel) * dy) in the kernel.

  Args:
    x: [B, T, H, W, C].
    dy: [B, T, H, W, O].
    kernel_shape: [kt, kh, kw, C, O].
  """
  axes = _axes(kernel_shape)
  pieces, parts = _input_pieces(x, axes), [_pad(dy, axes, before=0, after=0)]
  for axis in axes:
    parts = [part for d in parts for part in _output_parts(d, axis)]
  products = [p.reshape(-1, x.shape[-1]).T @ d.reshape(-1, dy.shape[-1]) for p, d in zip(pieces, parts, strict=True)]
  for _ in axes:
    products = [_taps(*four) for four in _fours(products)]
  return products[0].reshape(kernel_shape)


def _filtered(x: jax.Array, kernel: jax.Array, *, contracted: int) -> jax.Array:
  """Filters with the kernel's input channels at axis `contracted` of its last two."""
  axes = _axes(kernel.shape)
  pieces, weights = _input_pieces(x, axes), [kernel]
  for axis in axes:
    weights = [part for w in weights for part in _weight_parts(w, axis - 1)]
  over = (((4,), (contracted,)), ((), ()))
  products = [lax.dot_general(p, w.reshape(kernel.shape[3:]), over) for p, w in zip(pieces, weights, strict=True)]
  for axis in reversed(axes):
    products = [_outputs(four, axis) for four in _fours(products)]
  return products[0][:, : x.shape[1], : x.shape[2], : x.shape[3]]


def _axes(kernel_shape: Shape) -> list[int]:
  return [axis for axis in (1, 2, 3) if kernel_shape[axis - 1] == 3]


def _fours(parts: list[jax.Array]) -> list[list[jax.Array]]:
  return [parts[i : i + 4] for i in range(0, len(parts), 4)]


def _pad(x: jax.Array, axes: list[int], *, before: int, after: int) -> jax.Array:
  """Zeros around `axes`, one more behind where the size is odd."""
  widths = [(before, after + x.shape[axis] % 2) if axis in axes else (0, 0) for axis in range(x.ndim)]
  return jnp.pad(x, widths)


def _pairs(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
  """What stands at even and at odd places of an axis."""
  split = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
  return lax.index_in_dim(split, 0, axis + 1, keepdims=False), lax.index_in_dim(split, 1, axis + 1, keepdims=False)


def _input_pieces(x: jax.Array, axes: list[int]) -> list[jax.Array]:
  """From windows (a, b, c, d) at every other place, per axis: a - c, b + c, c - b, b - d."""
  pieces = [_pad(x, axes, before=1, after=1)]
  for axis in axes:
    following = []
    for piece in pieces:
      even, odd = _pairs(piece, axis)
      size = even.shape[axis]
      (a, b), (c, d) = (
        [lax.slice_in_dim(half, start, size - 1 + start, axis=axis) for half in (even, odd)] for start in range(2)
      )
      following += [a - c, b + c, c - b, b - d]
    pieces = following
  return pieces


def _weight_parts(kernel: jax.Array, axis: int) -> list[jax.Array]:
  first, middle, last = (lax.slice_in_dim(kernel, i, i + 1, axis=axis) for i in range(3))
  outer, middle = (first + last) / 2, middle / 2
  return [first, outer + middle, outer - middle, last]


def _outputs(products: list[jax.Array], axis: int) -> jax.Array:
  """The two outputs of each window, side by side again."""
  p, q, r, s = products
  both = jnp.stack([p + q + r, q - r - s], axis + 1)
  return both.reshape(*both.shape[:axis], -1, *both.shape[axis + 2 :])


def _output_parts(dy: jax.Array, axis: int) -> list[jax.Array]:
  """The transpose of _outputs."""
  even, odd = _pairs(dy, axis)
  return [even, even + odd, even - odd, -odd]


def _taps(p: jax.Array, q: jax.Array, r: jax.Array, s: jax.Array) -> jax.Array:
  """The transpose of _weight_parts, with the taps as a new first axis."""
  outer = (q + r) / 2
  return jnp.stack([p + outer, (q - r) / 2, outer + s])

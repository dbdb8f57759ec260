"""2-D convolution and normalisation of the audio networks (step: audio net; AlexNet, SqueezeNet)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from emo_jax.models.conv3d import conv3d

NEIGHBOURS, ALPHA, BETA = 5, 1e-4, 0.75  # AlexNet's normalisation


def conv2d(x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int = 0, groups: int = 1) -> jax.Array:
  """Convolves in height and width; on CPU as fast as the formulation that conv3d chooses.

  Args:
    x: [B, H, W, C].
    kernel: [kh, kw, C / groups, O] of x's dtype.
    stride: steps in height and width.
    padding: zeros around each side of x.
    groups: parts of the channels, each with O / groups kernels of its own.

  Returns:
    [B, (H + 2 padding - kh) // stride + 1, (W + 2 padding - kw) // stride + 1, O].

  Raises:
    ValueError: x is not four-dimensional or the kernel does not fit it.
  """
  if x.ndim != 4 or kernel.ndim != 4 or kernel.shape[2] * groups != x.shape[-1] or kernel.shape[3] % groups:
    raise ValueError(
      f'conv2d in {groups} groups needs x [B, H, W, C] and kernel [kh, kw, C / groups, O], '
      f'not {x.shape} and {kernel.shape}: add the missing batch axis, or make the kernel for this number of channels'
    )
  if jax.default_backend() == 'cpu' and groups > 1:  # XLA's own groups take six times as long, their gradients twenty
    parts = zip(jnp.split(x, groups, -1), jnp.split(kernel, groups, -1), strict=True)
    return jnp.concatenate([conv2d(*part, stride=stride, padding=padding) for part in parts], -1)
  if stride == groups == 1 and kernel.shape[:2] == (2 * padding + 1,) * 2:
    return conv3d(x[:, None], kernel[None])[:, 0]
  convolve = functools.partial(
    lax.conv_general_dilated,
    window_strides=(stride, stride),
    padding=[(padding, padding)] * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )
  if jax.default_backend() == 'cpu' and len(x) > 1:  # in halves the kernel's gradient takes both cores, else one
    return jnp.concatenate([convolve(half, kernel) for half in jnp.array_split(x, 2)])
  return convolve(x, kernel)


class Conv2D(nn.Module):
  """conv2d plus a bias: [B, H, W, C] -> [B, H', W', features].

  The parameters, 'kernel' [kernel, kernel, C / groups, features] and 'bias' [features], are float32 and laid out as
  those of nn.Conv; they are computed with in x's dtype.
  """

  features: int
  kernel: int
  stride: int = 1
  padding: int = 0
  groups: int = 1
  kernel_init: nn.initializers.Initializer = nn.initializers.he_normal()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (self.kernel, self.kernel, x.shape[-1] // self.groups, self.features)
    kernel = self.param('kernel', self.kernel_init, shape)
    bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
    y = conv2d(x, kernel.astype(x.dtype), stride=self.stride, padding=self.padding, groups=self.groups)
    return y + bias.astype(x.dtype)


@jax.custom_vjp
def local_response_norm(x: jax.Array) -> jax.Array:
  """Caffe's normalisation over channels, x / (1 + alpha / n * sum of squares of n neighbours) ** beta.

  n = 5, alpha = 1e-4 and beta = 0.75, as in the published AlexNet (method.md: AlexNet).

  Args:
    x: [..., channels].
  """
  return x * _divisors(x)[1]


def _divisors(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """What stands under the power, to the power of -1 and of -0.75."""
  root = lax.rsqrt(1 + ALPHA / NEIGHBOURS * _among_neighbours(jnp.square(x)))
  return jnp.square(root), root * jnp.sqrt(root)


def _among_neighbours(x: jax.Array) -> jax.Array:
  """Sums over each channel and two on either side."""
  channels, reach = x.shape[-1], NEIGHBOURS // 2
  padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(reach, reach)])
  return sum((padded[..., i : i + channels] for i in range(NEIGHBOURS)), jnp.zeros((), x.dtype))


def _forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  return local_response_norm(x), x


def _backward(x: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
  inverse, scale = _divisors(x)
  return (dy * scale - 2 * ALPHA * BETA / NEIGHBOURS * x * _among_neighbours(dy * x * scale * inverse),)


local_response_norm.defvjp(_forward, _backward)

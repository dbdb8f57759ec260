"""Times our 3-D convolution against XLA's own and PyTorch's, forward and backward, alternating in one run.

  python benchmarks/conv3d.py [--full] [--batch N] [--repeats N]

Rows: the layers of C3D, then its whole convolutional part (convolutions, ReLUs, pools) as one training step. Default:
width 1/8 at 56 px, 30 clips of 16 frames; --full: width 1 at 112 px, 2 clips. Times are the smallest of the repeats; a
ratio above 1 means ours is faster. PyTorch is left out where it is not installed.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from emo_jax.models.conv3d import Window, conv3d, max_pool3d

Step = Callable[[], Any]
WIDTHS = (64, 128, 256, 256, 512, 512, 512, 512)
STAGES: tuple[tuple[int, Window], ...] = (
  (1, (1, 2, 2)),  # convolutions before the pool, its window
  (1, (2, 2, 2)),
  (2, (2, 2, 2)),
  (2, (2, 2, 2)),
  (2, (2, 2, 2)),
)


def layer_shapes(*, width_divisor: int, pixels: int) -> list[tuple[int, ...]]:
  """Lists (T, H, W, C, O) of the eight convolutions."""
  shapes: list[tuple[int, ...]] = []
  size: tuple[int, ...] = (16, pixels, pixels)
  channels = 3
  for count, window in STAGES:
    for _ in range(count):
      features = WIDTHS[len(shapes)] // width_divisor
      shapes.append((*size, channels, features))
      channels = features
    size = tuple(-(-length // step) for length, step in zip(size, window, strict=True))
  return shapes


def random_normal(*shape: int) -> np.ndarray:
  return np.random.default_rng(0).standard_normal(shape, np.float32)


def random_kernels(shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
  return [random_normal(3, 3, 3, c, o) * np.float32((2 / (27 * c)) ** 0.5) for *_, c, o in shapes]


def jax_layer(shape: tuple[int, ...], batch: int, *, plain: bool) -> Step:
  """A step of one layer: output and gradients; the first layer needs none of its input."""
  *size, channels, features = shape
  x, weight = jnp.asarray(random_normal(batch, *size, channels)), jnp.asarray(random_normal(batch, *size, features))
  kernel = jnp.asarray(random_kernels([shape])[0])

  def loss(kernel: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.vdot(conv3d(x, kernel, stacked=False if plain else None), weight)

  step = jax.jit(jax.value_and_grad(loss, argnums=0 if channels == 3 else (0, 1)))
  return lambda: jax.block_until_ready(step(kernel, x))


def jax_net(shapes: list[tuple[int, ...]], batch: int, *, plain: bool) -> Step:
  """A step of the whole convolutional part; plain: XLA's convolution and Flax's pool."""
  x = jnp.asarray(random_normal(batch, *shapes[0][:4]))
  kernels = [jnp.asarray(kernel) for kernel in random_kernels(shapes)]

  def pool(x: jax.Array, window: Window) -> jax.Array:
    if not plain:
      return max_pool3d(x, window)
    padding = [(0, -size % step) for size, step in zip(x.shape[1:4], window, strict=True)]
    return nn.max_pool(x, window, window, padding)

  def loss(kernels: list[jax.Array]) -> jax.Array:
    remaining, y = iter(kernels), x
    for count, window in STAGES:
      for _ in range(count):
        y = nn.relu(conv3d(y, next(remaining), stacked=False if plain else None))
      y = pool(y, window)
    return jnp.mean(y**2)

  step = jax.jit(jax.value_and_grad(loss))
  return lambda: jax.block_until_ready(step(kernels))


def torch_layer(shape: tuple[int, ...], batch: int) -> Step:
  """The peer's step of one layer."""
  import torch

  *size, channels, features = shape
  x = torch.randn(batch, channels, *size, requires_grad=channels != 3)
  weight = torch.randn(batch, features, *size)
  layer = torch.nn.Conv3d(channels, features, 3, padding=1, bias=False)
  inputs = [layer.weight] if channels == 3 else [layer.weight, x]
  return lambda: torch.autograd.grad(torch.sum(layer(x) * weight), inputs)


def torch_net(shapes: list[tuple[int, ...]], batch: int) -> Step:
  """The peer's step of the whole convolutional part."""
  import torch

  remaining, layers = iter(shapes), []
  for count, window in STAGES:
    for _ in range(count):
      *_, channels, features = next(remaining)
      layers += [torch.nn.Conv3d(channels, features, 3, padding=1, bias=False), torch.nn.ReLU()]
    layers.append(torch.nn.MaxPool3d(window, window, ceil_mode=True))
  net = torch.nn.Sequential(*layers)
  x = torch.randn(batch, shapes[0][3], *shapes[0][:3])
  return lambda: torch.autograd.grad(net(x).square().mean(), list(net.parameters()))


def smallest_times(steps: dict[str, Step], *, repeats: int) -> dict[str, float]:
  """Runs the steps in turn, once unmeasured to compile, and returns each one's smallest time in ms."""
  for step in steps.values():
    step()
  times: dict[str, list[float]] = {name: [] for name in steps}
  for _ in range(repeats):
    for name, step in steps.items():
      start = time.perf_counter()
      step()
      times[name].append(1e3 * (time.perf_counter() - start))
  return {name: min(values) for name, values in times.items()}


def print_row(title: str, times: dict[str, float]) -> None:
  ratios = ''.join(f'   {name}/ours {ms / times["ours"]:5.2f}' for name, ms in times.items() if name != 'ours')
  print(f'{title:24s}' + ''.join(f'  {name} {ms:9.1f} ms' for name, ms in times.items()) + ratios, flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--full', action='store_true', help='width 1 at 112 px in place of width 1/8 at 56 px')
  parser.add_argument('--batch', type=int, help='clips a step (default 30, with --full 2)')
  parser.add_argument('--repeats', type=int, default=3, help='measured runs of each step (default 3)')
  flags = parser.parse_args()
  batch = flags.batch or (2 if flags.full else 30)
  shapes = layer_shapes(width_divisor=1, pixels=112) if flags.full else layer_shapes(width_divisor=8, pixels=56)
  with_torch = importlib.util.find_spec('torch') is not None
  print(
    f'{jax.default_backend()}, {batch} clips a step' + ('' if with_torch else '; PyTorch is not installed: left out')
  )
  for shape in dict.fromkeys(shapes):
    steps = {'XLA': jax_layer(shape, batch, plain=True), 'ours': jax_layer(shape, batch, plain=False)}
    if with_torch:
      steps['PyTorch'] = torch_layer(shape, batch)
    *size, channels, features = shape
    print_row(f'{"x".join(map(str, size))} {channels}->{features}', smallest_times(steps, repeats=flags.repeats))
  steps = {'XLA': jax_net(shapes, batch, plain=True), 'ours': jax_net(shapes, batch, plain=False)}
  if with_torch:
    steps['PyTorch'] = torch_net(shapes, batch)
  times = smallest_times(steps, repeats=flags.repeats)
  print_row('whole net', times)
  print_row('whole net, per clip', {name: ms / batch for name, ms in times.items()})


if __name__ == '__main__':
  main()

"""Times every form of the convolution, layer by layer, and writes the table from which conv3d chooses.

  python -m benchmarks.conv3d [--write] [--only NETWORK] [--repeats N]

A row a layer: milliseconds of XLA's own 3-D convolution, of the chosen forms and of PyTorch, forward and forward with
both gradients (the first layer of a network needs none of its input). --write puts the times of all forms into
emo_jax/models/conv_table.py first (the smallest of the repeats), without it the table as it stands chooses. Printed are
medians of steps run in turn; a ratio above 1 means ours is faster. PyTorch is left out where it is not installed.
"""

import argparse
import importlib.util
import math
import os
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from emo_jax.memory import keep_freed_memory
from emo_jax.models import conv3d, conv_table
from emo_jax.models.conv_table import Layer

Step = Callable[[], Any]
CUBE, SQUARE, ONE = (3, 3, 3), (1, 3, 3), (1, 1, 1)
TABLES = ('CONVOLVE', 'INPUT_GRADIENT', 'KERNEL_GRADIENT')
HOPELESS = 2.5  # times the best form's time; not measured any further
C3D = (
  Layer(CUBE, ONE, (2, 16, 112, 112), 3, 64),
  Layer(CUBE, ONE, (2, 16, 56, 56), 64, 128),
  Layer(CUBE, ONE, (2, 8, 28, 28), 128, 256),
  Layer(CUBE, ONE, (2, 8, 28, 28), 256, 256),
  Layer(CUBE, ONE, (2, 4, 14, 14), 256, 512),
  Layer(CUBE, ONE, (2, 4, 14, 14), 512, 512),
  Layer(CUBE, ONE, (2, 2, 7, 7), 512, 512),
)
C3D_EIGHTH = (
  Layer(CUBE, ONE, (10, 16, 56, 56), 3, 8),
  Layer(CUBE, ONE, (10, 16, 28, 28), 8, 16),
  Layer(CUBE, ONE, (10, 8, 14, 14), 16, 32),
  Layer(CUBE, ONE, (10, 8, 14, 14), 32, 32),
  Layer(CUBE, ONE, (10, 4, 7, 7), 32, 64),
  Layer(CUBE, ONE, (10, 4, 7, 7), 64, 64),
  Layer(CUBE, ONE, (10, 2, 4, 4), 64, 64),
)
I3D = (
  Layer((7, 7, 7), (2, 2, 2), (2, 16, 224, 224), 3, 64),
  Layer(CUBE, ONE, (2, 8, 56, 56), 64, 192),
  Layer(CUBE, ONE, (2, 8, 28, 28), 16, 32),
  Layer(CUBE, ONE, (2, 8, 28, 28), 32, 96),
  Layer(CUBE, ONE, (2, 8, 28, 28), 96, 128),
  Layer(CUBE, ONE, (2, 4, 14, 14), 24, 64),
  Layer(CUBE, ONE, (2, 4, 14, 14), 112, 224),
  Layer(CUBE, ONE, (2, 4, 14, 14), 160, 320),
  Layer(CUBE, ONE, (2, 2, 7, 7), 48, 128),
  Layer(CUBE, ONE, (2, 2, 7, 7), 192, 384),
)
SOUND = (  # AlexNet's and SqueezeNet's
  Layer((1, 5, 5), ONE, (30, 1, 27, 27), 64, 192),
  Layer((1, 5, 5), ONE, (30, 1, 27, 27), 48, 128),
  Layer(SQUARE, ONE, (30, 1, 13, 13), 192, 384),
  Layer(SQUARE, ONE, (30, 1, 13, 13), 384, 256),
  Layer(SQUARE, ONE, (30, 1, 13, 13), 192, 128),
  Layer(SQUARE, ONE, (30, 1, 55, 55), 16, 64),
  Layer(SQUARE, ONE, (30, 1, 27, 27), 32, 128),
  Layer(SQUARE, ONE, (30, 1, 13, 13), 64, 256),
)
LAYERS = {'C3D': C3D, 'C3D 1/8': C3D_EIGHTH, 'I3D': I3D, 'sound': SOUND}


def milliseconds(steps: dict[str, Step], *, repeats: int, of: Callable[[list[float]], float]) -> dict[str, float]:
  """Runs the steps in turn, twice unmeasured (the first compiles); those without hope no more than that."""
  for step in steps.values():
    step()
  times: dict[str, list[float]] = {name: [] for name in steps}
  for turn in range(1 + repeats):
    limit = HOPELESS * min(map(min, times.values())) if turn else math.inf
    for name, step in steps.items():
      if turn < 2 or min(times[name]) <= limit:
        start = time.perf_counter()
        step()
        times[name].append(1e3 * (time.perf_counter() - start))
  return {name: of(values) for name, values in times.items()}


def normal(*shape: int) -> np.ndarray:
  return np.random.default_rng(0).standard_normal(shape, np.float32)


def output_size(layer: Layer) -> tuple[int, ...]:
  return tuple(-(-size // step) for size, step in zip(layer.size[1:], layer.strides, strict=True))


def arrays(layer: Layer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Input, kernel, and a gradient of the output."""
  x, kernel = normal(*layer.size, layer.channels), normal(*layer.kernel, layer.channels, layer.features)
  return x, kernel, normal(layer.size[0], *output_size(layer), layer.features)


def compiled(function: Callable[..., Any], *given: Any) -> Step:
  run = jax.jit(function)
  return lambda: jax.block_until_ready(run(*given))


def measure_forms(layer: Layer, repeats: int) -> None:
  """Puts a layer's times into the tables in memory."""
  strides, (x, kernel, dy) = layer.strides, map(jnp.asarray, arrays(layer))
  for name in TABLES:
    if name == 'INPUT_GRADIENT' and layer.channels == 3:
      continue
    functions: dict[str, Callable[..., jax.Array]] = getattr(conv3d, name)
    given = (x, kernel) if name == 'CONVOLVE' else (x, kernel, dy)
    steps = {
      form: compiled(lambda *given, run=functions[form]: run(*given, strides), *given)
      for form in conv3d.forms(functions, layer.kernel, strides)
    }
    getattr(conv_table, name)[layer] = milliseconds(steps, repeats=repeats, of=min)


def jax_steps(layer: Layer, convolve: Callable[..., jax.Array]) -> tuple[Step, Step]:
  """Forward; forward with the gradients."""
  x, kernel, dy = map(jnp.asarray, arrays(layer))

  def gradients(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> Any:
    y, pull_back = jax.vjp(lambda x, kernel: convolve(x, kernel, strides=layer.strides), x, kernel)
    dx, dk = pull_back(dy)
    return (y, dk) if layer.channels == 3 else (y, dk, dx)

  return compiled(lambda x, k: convolve(x, k, strides=layer.strides), x, kernel), compiled(gradients, x, kernel, dy)


def xla(x: jax.Array, kernel: jax.Array, *, strides: conv3d.Window) -> jax.Array:
  return lax.conv_general_dilated(x, kernel, strides, 'SAME', dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'))


def torch_steps(layer: Layer) -> tuple[Step, Step]:
  """The peer's, in its own layout."""
  import torch

  numbers, kernel, dy = arrays(layer)
  x = torch.from_numpy(np.moveaxis(numbers, 4, 1).copy()).requires_grad_(layer.channels != 3)
  weight = torch.from_numpy(kernel.transpose(4, 3, 0, 1, 2).copy()).requires_grad_()
  weighting = torch.from_numpy(np.moveaxis(dy, 4, 1).copy())
  padding = tuple(size // 2 for size in layer.kernel)

  def forward() -> Any:
    return torch.nn.functional.conv3d(x, weight, stride=layer.strides, padding=padding)

  def without_gradients() -> Any:
    with torch.no_grad():
      return forward()

  inputs = [weight] if layer.channels == 3 else [weight, x]
  return without_gradients, lambda: torch.autograd.grad(forward(), inputs, weighting)


def print_layer(layer: Layer, repeats: int) -> None:
  makers: dict[str, Callable[[], tuple[Step, Step]]] = {
    'XLA': lambda: jax_steps(layer, xla),
    'ours': lambda: jax_steps(layer, conv3d.conv3d),
  }
  if importlib.util.find_spec('torch'):
    makers['PyTorch'] = lambda: torch_steps(layer)
  steps = {name: make() for name, make in makers.items()}
  operations = 2e-6 * math.prod(layer.kernel) * layer.channels * layer.features * layer.size[0]
  operations *= math.prod(output_size(layer))
  print(f'{"x".join(map(str, layer.size)):16s}{"x".join(map(str, layer.kernel)):6s}', end='')
  print(f'{layer.channels:4d} ->{layer.features:4d}', end='')
  for part, passes in ((0, 1), (1, 2 if layer.channels == 3 else 3)):
    times = milliseconds({name: pair[part] for name, pair in steps.items()}, repeats=repeats, of=statistics.median)
    row = ''.join(f'{times[name]:9.1f}' for name in times)
    ratios = ''.join(f'{times[name] / times["ours"]:6.2f}' for name in times if name != 'ours')
    print(f'  |{row}{ratios}{passes * operations / times["ours"]:6.0f}', end='')
  print(flush=True)


HEADER = '''"""Milliseconds of the forms of a convolution on CPU; written by benchmarks/conv3d.py, read by conv3d.py.

{where}
"""

from typing import NamedTuple


class Layer(NamedTuple):
  """A layer that was measured; its time is that of all its clips."""

  kernel: tuple[int, int, int]
  strides: tuple[int, int, int]
  size: tuple[int, int, int, int]  # clips, frames, height, width
  channels: int
  features: int


Table = dict[Layer, dict[str, float]]
'''


def write_table(where: str) -> None:
  """The two best of each layer, best first."""
  text = HEADER.format(where=where)
  for name in TABLES:
    text += f'\n{name}: Table = {{\n'
    for layer, times in getattr(conv_table, name).items():
      best = sorted((ms, form) for form, ms in times.items())[:2]
      entries = ', '.join(f'{form!r}: {ms:.1f}' for ms, form in best)
      text += f'  Layer({", ".join(map(str, layer))}): {{{entries}}},\n'
    text += '}\n'
  pathlib.Path(conv_table.__file__).write_text(text, encoding='utf-8')


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--write', action='store_true', help='measure every form and write the table first')
  parser.add_argument('--only', default='', help=f'the layers of one network: {", ".join(LAYERS)}')
  parser.add_argument('--repeats', type=int, default=5, help='measured runs of each step (default 5)')
  flags = parser.parse_args()
  keep_freed_memory()
  chosen = {name: layers for name, layers in LAYERS.items() if flags.only in ('', name)}
  if flags.write:
    for layer in [layer for layers in chosen.values() for layer in layers]:
      measure_forms(layer, flags.repeats)
    write_table(f'jax {jax.__version__} on {os.cpu_count()} cores, float32.')
  print(
    f'{jax.default_backend()}, {os.cpu_count()} cores; a part: ms of XLA, ours, PyTorch; XLA / ours, PyTorch / ours;'
  )
  print(f'GFLOP/s of ours (as many as the plain convolution takes)\n{"":34s}  | forward{"":40s}  | and gradients')
  for name, layers in chosen.items():
    print(name)
    for layer in layers:
      print_layer(layer, flags.repeats)


if __name__ == '__main__':
  main()

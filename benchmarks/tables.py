"""Tables and JSON lines of what a race (race.py) measured."""

import json
import statistics
from typing import Any

from absl import flags

from benchmarks.race import Result

OUT = flags.DEFINE_string('out', None, 'File that each result is appended to as a JSON line.')

# FLOP/s of an H100 (SXM) or H200 by the data sheet, dense, without sparsity; float32 is TF32.
DATA_SHEET = {'bfloat16': 989e12, 'float32': 495e12}


def spread(values: list[float]) -> str:
  """Median and range."""
  return f'{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})'


def ratios(ours: Result, peer: Result) -> list[float]:
  """Ours over the peer's seconds, turn by turn: below 1 ours is faster."""
  return [mine / theirs for mine, theirs in zip(ours.seconds, peer.seconds, strict=True)]


def show(results: dict[str, Result], *, operations: float = 0.0, peak_rate: float = 0.0) -> None:
  """Prints a line a side.

  Args:
    operations: FLOPs of a step, for the share of the best measured matrix product.
    peak_rate: the data sheet's FLOP/s, where it is known.
  """
  rate = max((result.rate for result in results.values()), default=0.0)
  print(
    f'  {"":36s}{"ms a step":>26s}{"first s":>9s}{"peak MiB":>10s}{"ours / it":>22s}'
    + f'{"of product":>12s}' * bool(operations)
  )
  for name, result in results.items():
    layout = f', {result.facts["layout"]}' if 'layout' in result.facts else ''
    line = f'  {name + layout:36s}{spread([1e3 * one for one in result.seconds]):>26s}'
    line += f'{result.first:9.1f}{result.peak / 2**20:10.0f}'
    line += f'{spread(ratios(results["ours"], result)) if name != "ours" and "ours" in results else "":>22s}'
    reached = operations / statistics.median(result.seconds)
    line += f'{reached / rate:12.0%}' if operations and rate else ''
    print(line + (f'  {reached / peak_rate:.1%} of the data sheet' if peak_rate else ''), flush=True)


def write(benchmark: str, case: dict[str, Any], results: dict[str, Result], **more: Any) -> None:
  """Appends a JSON line a side to --out."""
  if OUT.value:
    with open(OUT.value, 'a', encoding='utf-8') as file:
      for name, result in results.items():
        line = {'benchmark': benchmark, **case, **more, 'side': name, **result._asdict()}
        file.write(json.dumps(line) + '\n')

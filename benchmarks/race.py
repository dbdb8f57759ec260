"""Races: the sides of a comparison, each in a process of its own, measured in turn (for the scripts beside this one).

A process holds one library alone, so its memory is that side's; while one side runs the others wait. Seconds are of
a step, waited for; where a step is short, of the mean of as many steps in a row as fill SHORTEST.
"""

import contextlib
import importlib
import importlib.metadata
import math
import multiprocessing
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from absl import flags

DEVICE = flags.DEFINE_enum('device', 'cpu', ['cpu', 'gpu'], 'Where all sides run.')
REPEATS = flags.DEFINE_integer('repeats', 5, 'Measured turns of each side.', lower_bound=1)
THREADS = flags.DEFINE_integer('threads', 2, 'Cores that all sides are bound to, on a CPU.', lower_bound=1)

SHORTEST = 0.2  # seconds of a measurement

Run = Callable[[int], Any]  # so many steps, one after the other; comes back when the last is done


class Memory(NamedTuple):
  """How a side's memory is measured: forget the peak so far; the peak since, in bytes."""

  forget: Callable[[], Any]
  peak: Callable[[], int]


def _peak_resident() -> int:
  status = pathlib.Path('/proc/self/status').read_text()
  return 1024 * int(status.partition('VmHWM:')[2].split()[0])


HOST = Memory(lambda: pathlib.Path('/proc/self/clear_refs').write_text('5'), _peak_resident)


def memory_of(library: str, device: str) -> Memory:
  """Of the process on a CPU; on a GPU what 'jax' or 'torch' has allocated there."""
  if device == 'cpu':
    return HOST
  if library == 'torch':
    import torch

    return Memory(torch.cuda.reset_peak_memory_stats, torch.cuda.max_memory_allocated)
  import jax

  gpu = jax.local_devices()[0]
  return Memory(lambda: None, lambda: int(gpu.memory_stats()['peak_bytes_in_use']))  # JAX cannot forget


class Runner(NamedTuple):
  """A side that is ready to run.

  Attributes:
    run: its steps.
    memory: of the process, or of the device.
    rate: measures the FLOP/s of the library's own matrix product.
    facts: what is to be known of it, for the sides that are made after it and for the table.
  """

  run: Run
  memory: Memory
  rate: Callable[[], float] | None = None
  facts: dict[str, Any] = {}  # noqa: RUF012


class Side(NamedTuple):
  """One side: made from the case and the facts of those before it, in a process that has imported what it needs."""

  make: Callable[[Any, dict[str, Any]], Runner]
  needs: tuple[str, ...]


class Result(NamedTuple):
  """A side's seconds a step, turn by turn; of its first step, compiled in it; bytes at its peak; FLOP/s; facts."""

  seconds: list[float]
  first: float
  peak: int
  rate: float
  facts: dict[str, Any]


def timed(run: Run, steps: int = 1) -> float:
  """Seconds a step."""
  start = time.perf_counter()
  run(steps)
  return (time.perf_counter() - start) / steps


def filling(run: Run, seconds: float = SHORTEST) -> int:
  """Steps that fill so many seconds, at most 100, once the first has run."""
  return min(max(math.ceil(seconds / timed(run)), 1), 100)


def product_rate(run: Run, size: int) -> float:
  """FLOP/s of products of two size x size matrices, the best of 5."""
  run(1)
  steps = filling(run)
  return 2 * size**3 / min(timed(run, steps) for _ in range(5))


class _Left(Exception):
  """A side cannot go on; the message says why."""


def _serve(side: Side, case: Any, line: Connection) -> None:
  """A side's process. Asked by the facts known so far, then by 'run' again and again, then by anything else."""
  try:
    for name in side.needs:
      importlib.import_module(name)
    runner = side.make(case, line.recv())
    first = timed(runner.run)
    steps = filling(runner.run)
    runner.memory.forget()
    line.send((first, runner.facts))
    while line.recv() == 'run':
      line.send(timed(runner.run, steps))
    peak = runner.memory.peak()  # before the rate, whose matrices are not the step's
    line.send((peak, runner.rate() if runner.rate else 0.0))
  except EOFError:  # nobody waits any more
    pass
  except Exception as error:  # its type may be one that the other end does not know
    line.send(_Left(f'{type(error).__name__}: {error}'))


class _Process:
  """A side in its process, and what came of it so far."""

  def __init__(self, side: Side, case: Any):
    context = multiprocessing.get_context('spawn')
    self._line, theirs = context.Pipe()
    self._process = context.Process(target=_serve, args=(side, case, theirs))
    self._process.start()
    theirs.close()
    self.seconds: list[float] = []

  def ask(self, what: Any) -> Any:
    with contextlib.suppress(OSError):  # it may have failed by now, and said so
      self._line.send(what)
    try:
      answer = self._line.recv()
    except (EOFError, OSError):
      self._process.join(10)
      raise _Left(f'its process ended with code {self._process.exitcode}') from None
    if isinstance(answer, _Left):
      raise answer
    return answer

  def end(self) -> None:
    self._line.close()
    self._process.join(10)  # one that waits ends by itself
    self._process.terminate()
    self._process.join()


@contextlib.contextmanager
def _processes(sides: dict[str, Side], case: Any) -> Iterator[dict[str, _Process]]:
  processes = {name: _Process(side, case) for name, side in sides.items()}
  try:
    yield processes
  finally:
    for process in processes.values():
      process.end()


def race(sides: dict[str, Side], case: Any, repeats: int) -> dict[str, Result]:
  """Makes the sides one after the other, then measures them in turn, every other turn in the opposite order.

  Returns:
    the results by name, without the sides that failed, whose reasons are printed.
  """
  results: dict[str, Result] = {}
  known: dict[str, Any] = {}
  with _processes(sides, case) as processes:

    def each(work: Callable[[str, _Process], None], order: int = 1) -> None:
      for name in list(processes)[::order]:
        try:
          work(name, processes[name])
        except _Left as reason:
          print(f'  {name} is left out: {str(reason).splitlines()[0][:200]}', flush=True)
          processes.pop(name).end()

    def prepare(name: str, process: _Process) -> None:
      first, facts = process.ask(dict(known))
      known.update(facts)
      results[name] = Result(process.seconds, first, 0, 0.0, facts)

    def finish(name: str, process: _Process) -> None:
      peak, rate = process.ask('finish')
      results[name] = results[name]._replace(peak=peak, rate=rate)

    each(prepare)
    for turn in range(repeats):
      each(lambda _, process: process.seconds.append(process.ask('run')), (-1) ** turn)
    each(finish)
    return {name: results[name] for name in processes}


def set_up() -> None:
  """Binds this process and its children to the device and the cores, before JAX is imported; prints the machine."""
  if DEVICE.value == 'cpu':
    cores = sorted(os.sched_getaffinity(0))[: THREADS.value]
    os.sched_setaffinity(0, cores)  # XLA's threads are as many as the cores that it may use
    os.environ |= {name: str(len(cores)) for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS')}
    os.environ['JAX_PLATFORMS'] = 'cpu'
  else:
    os.environ.setdefault('CUDA_VISIBLE_DEVICES', '0')
    os.environ |= {'JAX_PLATFORMS': 'cuda', 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
  os.environ |= {'JAX_ENABLE_COMPILATION_CACHE': 'false', 'TORCHINDUCTOR_FORCE_DISABLE_CACHES': '1'}
  where = f'{len(cores)} cores' if DEVICE.value == 'cpu' else 'GPU'
  versions = [f'{name} {_version(name)}' for name in ('jax', 'torch')]
  print(f'{where}, {", ".join(versions)}, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}', flush=True)


def _version(name: str) -> str:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return 'is not installed'

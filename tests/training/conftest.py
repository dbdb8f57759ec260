"""What the tests of training share: a Watch and what it wrote; programs on any number of devices."""

import concurrent.futures
import contextlib
import functools
import itertools
import json
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import pytest

from emo_jax.training import loop, parallel
from emo_jax.training.metrics import Metrics


@pytest.fixture
def watch(tmp_path: pathlib.Path) -> Iterator[Callable[..., loop.Watch]]:
  """Makes a Watch: watch(tick=None, log_every=2, save_every=1000)."""
  opened = []

  def make(
    tick: Callable[[int], None] = lambda steps: None, *, log_every: int = 2, save_every: int = 1000
  ) -> loop.Watch:
    metrics = Metrics(tmp_path)
    opened.append(metrics)
    return loop.Watch(metrics, lambda steps, rows: tick(steps), log_every=log_every, save_every=save_every)

  yield make
  for metrics in opened:
    metrics.close()


@pytest.fixture
def lines(tmp_path: pathlib.Path) -> Callable[[], list[dict]]:
  """The lines of metrics.jsonl so far."""
  return lambda: [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]


@pytest.fixture
def power_cut(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], contextlib.AbstractContextManager[None]]:
  """power_cut(step): a training run within it ends in an OSError when that step's batch goes to the devices."""

  @contextlib.contextmanager
  def cut(step: int) -> Iterator[None]:
    calls, shard = itertools.count(), parallel.shard

    def breaks(batch: dict) -> dict:
      if next(calls) == step:
        raise OSError('the power is gone')
      return shard(batch)

    with monkeypatch.context() as patched, pytest.raises(OSError, match='the power is gone'):
      patched.setattr(parallel, 'shard', breaks)
      yield

  return cut


@pytest.fixture
def no_silent_transfers() -> Callable[[], contextlib.AbstractContextManager[None]]:
  """Within no_silent_transfers(), nothing crosses between host and device unasked, in any thread.

  jax.transfer_guard is of one thread alone.
  """

  @contextlib.contextmanager
  def guarded() -> Iterator[None]:
    before = jax.config.jax_transfer_guard
    jax.config.update('jax_transfer_guard', 'disallow')
    try:
      yield
    finally:
      jax.config.update('jax_transfer_guard', before)

  return guarded


@pytest.fixture(scope='session')
def on_devices(
  tmp_path_factory: pytest.TempPathFactory, strict: list[str]
) -> Callable[..., dict[Any, dict[str, np.ndarray]]]:
  """on_devices(script, counts): the arrays that the script leaves in its argument, on each number of fake devices.

  A count is of one process's devices, or (processes, devices of each).
  """
  root = pathlib.Path(__file__).parents[2]

  def run(script: pathlib.Path, count: int | tuple[int, int], result: pathlib.Path) -> dict[str, np.ndarray]:
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get('PYTHONPATH')])])
    processes, devices = count if isinstance(count, tuple) else (1, count)
    flags = {'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}', 'JAX_PLATFORMS': 'cpu'}
    with socket.create_server(('127.0.0.1', 0)) as free:
      port = free.getsockname()[1]
    of_pod = lambda number: [f'127.0.0.1:{port}', str(processes), str(number)] if processes > 1 else []
    command = [sys.executable, *strict, str(script), str(result)]
    with concurrent.futures.ThreadPoolExecutor() as pool:
      start = functools.partial(subprocess.run, capture_output=True, text=True, timeout=300)
      environment = {**os.environ, **flags, 'PYTHONPATH': path}
      started = [pool.submit(start, command + of_pod(number), env=environment) for number in range(processes)]
    for done in (future.result() for future in started):
      assert done.returncode == 0, done.stderr
    with np.load(result) as arrays:
      return dict(arrays)

  def run_all(script: pathlib.Path, counts: Sequence[Any]) -> dict[Any, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp('devices')
    with concurrent.futures.ThreadPoolExecutor() as pool:
      results = [folder / f'{number}.npz' for number in range(len(counts))]
      found = pool.map(run, [script] * len(counts), counts, results)
      return dict(zip(counts, found, strict=True))

  return run_all

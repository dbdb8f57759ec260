"""What the tests of training share: a Watch and what it wrote; programs on any number of devices."""

import concurrent.futures
import contextlib
import itertools
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

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
    return loop.Watch(metrics, tick, log_every=log_every, save_every=save_every)

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
def on_devices(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[int, dict[str, np.ndarray]]]:
  """on_devices(script, counts): the arrays that the script leaves in its argument, on each number of fake devices."""
  root = pathlib.Path(__file__).parents[2]

  def run(script: pathlib.Path, count: int, result: pathlib.Path) -> dict[str, np.ndarray]:
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get('PYTHONPATH')])])
    flags = {'XLA_FLAGS': f'--xla_force_host_platform_device_count={count}', 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': path}
    command = [sys.executable, '-W', 'error', str(script), str(result)]
    done = subprocess.run(command, env={**os.environ, **flags}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with np.load(result) as arrays:
      return dict(arrays)

  def run_all(script: pathlib.Path, counts: Sequence[int]) -> dict[int, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp('devices')
    with concurrent.futures.ThreadPoolExecutor() as pool:
      found = pool.map(run, [script] * len(counts), counts, [folder / f'{count}.npz' for count in counts])
      return dict(zip(counts, found, strict=True))

  return run_all

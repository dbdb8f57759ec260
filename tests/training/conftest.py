"""What the tests of training share: a Watch that writes to a temporary folder, and what it wrote."""

import contextlib
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator

import jax
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

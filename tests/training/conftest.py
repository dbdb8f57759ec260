"""What the tests of training share: a Watch that writes to a temporary folder, and what it wrote."""

import json
import pathlib
from collections.abc import Callable, Iterator

import pytest

from emo_jax.training import loop
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

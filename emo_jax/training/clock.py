"""Where a training's time goes, and traces of some of its steps (all trainings)."""

import contextlib
import itertools
import pathlib
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax

FIRST, TRACED = 10, 10  # steps before those that are traced, and of those
PARTS = {  # of a training's time, and how they are told
  'first_step': 'first steps (compiling)',
  'steps': 'steps',
  'batches': 'waiting for batches',
  'metrics': 'metrics',
  'epochs': 'after epochs',
  'checkpoints': 'checkpoints',
  'other': 'other',
}
_Item = TypeVar('_Item')


class Clock:
  """Seconds of a training, part by part, as its host sees them.

  JAX hands a step to the devices and goes on, so the devices may be at work in every part. Parts: 'first_step' (traced
  and compiled, then handed over), 'steps' (handing over, and waiting for what was handed over), 'batches' (waiting for
  the next one), 'metrics' (fetching, looking at and writing them, once they are computed), 'epochs' (what is done after
  each), 'checkpoints' (restoring; fetching and saving the state), 'other' (opening and closing checkpoints, placing and
  fetching the state).
  """

  def __init__(self) -> None:
    self._start = time.perf_counter()
    self._spent = dict.fromkeys(PARTS, 0.0)

  @contextlib.contextmanager
  def __call__(self, part: str) -> Iterator[None]:
    """Within the context, time is spent on this part."""
    start = time.perf_counter()
    try:
      yield
    finally:
      self._spent[part] += time.perf_counter() - start

  def waiting(self, items: Iterable[_Item]) -> Iterator[_Item]:
    """The same items; how long they take to come is time spent on batches."""
    items, end = iter(items), object()
    while True:
      with self('batches'):
        item: Any = next(items, end)
      if item is end:
        return
      yield item

  def seconds(self) -> dict[str, float]:
    """'seconds' in all so far, and those of each part."""
    whole = time.perf_counter() - self._start
    return {'seconds': whole, **self._spent, 'other': whole - sum(self._spent.values())}


@contextlib.contextmanager
def clocked(tell: Callable[[dict[str, float]], Any]) -> Iterator[Clock]:
  """A clock; however the context is left, its seconds are told."""
  clock = Clock()
  try:
    yield clock
  finally:
    tell(clock.seconds())


def summary(stages: dict[str, float], trainings: list[dict[str, float]]) -> str:
  """Where an experiment's time went, in a line.

  Args:
    stages: seconds of each.
    trainings: Clock.seconds of each.
  """
  share = lambda part, of: f'{part / max(of, 1e-9):.0%}'
  whole = sum(stages.values())
  told = ', '.join(f'{name} {seconds:.1f} s ({share(seconds, whole)})' for name, seconds in stages.items())
  sums = {part: sum(each[part] for each in trainings) for part in trainings[0]} if trainings else {}
  spent = sums.pop('seconds', 0.0)
  parts = ', '.join(f'{PARTS[part]} {share(seconds, spent)}' for part, seconds in sums.items())
  return f'time: {whole:.1f} s: {told}' + (f'; trainings {spent:.1f} s: {parts}' if parts else '')


@contextlib.contextmanager
def traced(
  step: Callable[..., tuple[Any, Any]], name: str, *, steps: int, into: pathlib.Path | None
) -> Iterator[Callable[..., tuple[Any, Any]]]:
  """A step of which ten calls, after the tenth, leave a trace of JAX's profiler; of a short training the last one.

  A trace is <into>/<kind of training>/plugins/profile/<time>/<host>.trace.json.gz, to be opened at ui.perfetto.dev (or
  in Chrome at chrome://tracing); beside it lies <host>.xplane.pb, for TensorBoard with its profile plugin (`tensorboard
  --logdir <into>`) or XProf (`xprof <into>`): what runs on the devices, operation by operation, and what the host's
  threads do meanwhile.

  Args:
    step: of a training, its state first.
    name: of the training, as 'audio_net/fold_0'; the first of its kind, whatever the fold, is traced.
    steps: that will be taken.
    into: where traces go; None: the step itself comes back.
  """
  folder = into and into / re.sub(r'/fold_\d+', '', name).replace('/', '_')
  if folder is None or folder.exists() or not steps:
    yield step
    return
  first, calls, tracing = min(FIRST, steps - 1), itertools.count(), contextlib.ExitStack()

  def observed(state: Any, *of: Any) -> tuple[Any, Any]:
    number = next(calls)
    if number == first:
      jax.block_until_ready(state)  # what came before is not in the trace
      tracing.enter_context(jax.profiler.trace(folder))
    with jax.profiler.StepTraceAnnotation(name, step_num=number):
      result = step(state, *of)
    if number == min(first + TRACED, steps) - 1:
      jax.block_until_ready(result)
      tracing.close()
    return result

  with tracing:
    yield observed

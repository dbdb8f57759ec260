"""The training loop: every network, RBM and fine-tuning runs through it.

Order of an iteration, fixed: batch, step, (metrics every `log_every`, and before any of what follows: fetch, check,
write), (at the end of an epoch: `after_epoch`), (checkpoint every `save_every`, or where the program is asked to stop),
(stop). The next batches are made and placed on the devices meanwhile, in a thread. A run that was interrupted goes on
after its last checkpoint and ends in the same bytes.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from emo_jax import processes, stopping
from emo_jax.training import batches, checkpoint, clock, finiteness, parallel
from emo_jax.training.metrics import Metrics

Tree = Any


@dataclasses.dataclass(frozen=True)
class Watch:
  """How a training is watched and saved.

  Attributes:
    metrics: where its numbers go.
    tick: called with the number of steps done and the rows that they have seen, for a progress bar; with no rows for
      steps that an earlier run has done.
    log_every: steps between fetches of metrics from the device.
    save_every: steps between checkpoints.
    items: what the training's rows are, as finiteness.Items has it.
    workdir: where numbers that are not finite are told of; None: in messages alone.
    spent: called at the end of a training with its name and its seconds, as clock.Clock has them.
    traces: where traces of some steps go (clock.traced), if anywhere.
  """

  metrics: Metrics
  tick: Callable[[int, float], Any]
  log_every: int
  save_every: int
  items: finiteness.Items = finiteness.numbered
  workdir: pathlib.Path | None = None
  spent: Callable[[str, dict[str, float]], Any] = lambda name, seconds: None
  traces: pathlib.Path | None = None


def report(
  name: str,
  sums: list[Tree],
  watch: Watch,
  batch_at: Callable[[int], dict[str, np.ndarray]],
  skipped: list[int],
  *,
  first: int,
  steps: int,
) -> None:
  """Fetches the sums of some steps and writes the means, up to the first number that is not finite, which is refused.

  Args:
    name, watch, batch_at, steps: as `fit` has them.
    sums: of the steps from `first` on.
    skipped: the steps so far whose updates were left out, as finiteness.guarded does; those of these are added.

  Raises:
    FloatingPointError: a number is not finite and nothing has left its update out; or nothing else has been done in
      finiteness.IN_A_ROW steps, or in all of a shorter training.
  """
  for step, values in enumerate(jax.device_get(sums), start=first):
    means = finiteness.means(values)
    broken = finiteness.broken(means)
    if means.get('skipped'):
      skipped.append(step)
    if broken and (not means.get('skipped') or finiteness.too_many(skipped, steps)):
      watch.metrics.flush()
      rows = finiteness.rows_of(batch_at(step), watch.items)
      what, value = next(iter(broken.items()))
      finiteness.stop(name, what, value, rows, watch.workdir, step=step, skipped=len(skipped))
    watch.metrics.write(name, step, means)
  watch.metrics.flush()


def finite(state: Tree, name: str, done: int) -> Tree:
  """The state on the host. It is what a checkpoint or a result is made of, so nothing that `report` missed gets by.

  L-BFGS alone may hold an infinity, for a number that it has not computed yet.
  """
  state = jax.tree.map(np.asarray, jax.device_get(state))
  looked_at = {part: tree for part, tree in state.items() if part != 'opt'}
  if not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(looked_at)):
    raise FloatingPointError(
      f'{name}: parameters became NaN or infinite by step {done}; lower the learning rate of this part of the config'
    )
  return state


def fit(
  step: Callable[[Tree, Tree, jax.Array], tuple[Tree, Tree]],
  state: Tree,
  batch_at: Callable[[int], dict[str, np.ndarray]],
  key: jax.Array,
  *,
  steps: int,
  name: str,
  folder: pathlib.Path,
  watch: Watch,
  epoch_steps: int = 1,
  after_epoch: Callable[[int, Tree], Tree] | None = None,
) -> Tree:
  """Trains for `steps` steps and returns the final state as numpy arrays.

  Args:
    step: compiled (state, batch, key) -> (state, sums); sums hold 'count' and summed metrics.
    state: the initial state, a dict of trees of arrays with 'params' and 'step'; used unless a checkpoint is found.
    batch_at: step -> host arrays [G, ...]; pure, so that resuming needs no more than the step. It is called some steps
      ahead, in another thread; what it raises is raised when its step's turn comes.
    key: of this training's random stream; the step folds its number in.
    steps: to reach.
    name, folder: of the training, for metrics and messages; of its checkpoints.
    watch: metrics, progress and how often to save.
    epoch_steps, after_epoch: steps in an epoch, and (steps done, state) -> state, called after each. What it keeps
      belongs in the state, so that an interrupted training loses none of it.

  Raises:
    FloatingPointError: a metric or a parameter became NaN or infinite, as `report` has it.
  """
  timed = clock.clocked(lambda seconds: watch.spent(name, seconds))
  with timed as spend, stopping.deferred(), checkpoint.checkpoints(folder) as saved:
    with spend('checkpoints'):
      state = jax.device_get(saved.restore(state))  # of device arrays a copy: a step gives up what it is given
    first = int(state['step'])
    watch.tick(first, 0)
    state, key = parallel.replicate((state, key))
    sums: list[Tree] = []
    skipped: list[int] = []
    agreed = parallel.agreement()
    tracing = clock.traced(step, name, steps=steps - first, into=watch.traces)
    with tracing as step, batches.ahead(lambda n: parallel.shard(batch_at(n)), range(first, steps)) as placed:
      for done, batch in enumerate(spend.waiting(placed), start=first + 1):
        with spend('steps' if done > first + 1 else 'first_step'):
          state, summed = step(state, batch, key)
        sums.append(summed)
        stop = agreed(stopping.asked())
        saving = stop or (done % watch.save_every == 0 and done < steps)
        epoch_ends = after_epoch is not None and done % epoch_steps == 0
        if done % watch.log_every == 0 or epoch_ends or saving or done == steps:
          with spend('steps'):
            jax.block_until_ready(sums)
          with spend('metrics'):
            sums = jax.device_get(sums)
            report(name, sums, watch, batch_at, skipped, first=done - len(sums), steps=steps)
            watch.tick(len(sums), sum(float(of_step['count']) for of_step in sums))
          sums = []
        if after_epoch is not None and epoch_ends:
          with spend('epochs'):
            state = after_epoch(done, state)
        if saving:
          with spend('checkpoints'):
            saved.save(done, finite(state, name, done))
        if stop:
          saved.wait()
          processes.part()
          stopping.stop(f'{name} at step {done}')
    finiteness.tell(name, skipped, steps - first, watch.workdir)
    return finite(state, name, steps)

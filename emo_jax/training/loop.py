"""The training loop: every network, RBM and fine-tuning runs through it.

Order of an iteration, fixed: batch, step, (metrics every `log_every`: fetch, check, write), (at the end of an epoch:
`after_epoch`), (checkpoint every `save_every`). The next batches are made and placed on the devices meanwhile, in a
thread. A run that was interrupted goes on after its last checkpoint and ends in the same bytes.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from emo_jax.training import batches, checkpoint, parallel
from emo_jax.training.metrics import Metrics

Tree = Any


@dataclasses.dataclass(frozen=True)
class Watch:
  """How a training is watched and saved.

  Attributes:
    metrics: where its numbers go.
    tick: called with the number of steps done, for a progress bar.
    log_every: steps between fetches of metrics from the device.
    save_every: steps between checkpoints.
  """

  metrics: Metrics
  tick: Callable[[int], Any]
  log_every: int
  save_every: int


def report(name: str, first: int, sums: list[Tree], watch: Watch) -> None:
  """Fetches the sums of some steps, refuses numbers that are not finite, writes the means."""
  for step, values in enumerate(jax.device_get(sums), start=first):
    count = float(values['count'])
    means = {key: float(value) / max(count, 1.0) for key, value in values.items() if key != 'count'}
    broken = [key for key, value in means.items() if not np.isfinite(value)]
    if broken:
      watch.metrics.flush()
      raise FloatingPointError(
        f'{name}: {", ".join(broken)} became {means[broken[0]]} at step {step}; '
        'lower the learning rate of this part of the config, or look at its input'
      )
    watch.metrics.write(name, step, means)
  watch.metrics.flush()


def finite(state: Tree, name: str, done: int) -> Tree:
  """The state on the host. The loss is from before an update, so the update itself is looked at here."""
  state = jax.tree.map(np.asarray, jax.device_get(state))
  if not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state['params'])):
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
    FloatingPointError: a metric or a parameter became NaN or infinite.
  """
  with checkpoint.checkpoints(folder) as saved:
    state = jax.device_get(saved.restore(state))  # of device arrays a copy: a step gives up what it is given
    first = int(state['step'])
    watch.tick(first)
    state, key = parallel.replicate((state, key))
    sums: list[Tree] = []
    with batches.ahead(lambda number: parallel.shard(batch_at(number)), range(first, steps)) as placed:
      for done, batch in enumerate(placed, start=first + 1):
        state, summed = step(state, batch, key)
        sums.append(summed)
        if done % watch.log_every == 0 or done % watch.save_every == 0 or done == steps:
          report(name, done - len(sums), sums, watch)
          watch.tick(len(sums))
          sums = []
        if after_epoch is not None and done % epoch_steps == 0:
          state = after_epoch(done, state)
        if done % watch.save_every == 0 and done < steps:
          saved.save(done, finite(state, name, done))
    return finite(state, name, steps)

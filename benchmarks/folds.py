"""Times one update of the RBMs of several folds side by side against the same updates one by one.

  python -m benchmarks.folds [--device=cpu|gpu] [--folds=N] [--sizes=1024x512,...] [--repeats=N] [--threads=N]
    [--out=FILE]

Both run the steps that training runs, in processes of their own and in turn; batches start on the host. `ours / it` is
side by side over one by one, turn by turn: below 1, folds side by side are a gain. On a CPU only tiny ones gain.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags
from ml_collections import config_flags

from benchmarks import race, tables

CONFIG = config_flags.DEFINE_config_file('config', 'configs/default.py', 'How RBMs train, in its fusion.rbm.')
FOLDS = flags.DEFINE_integer('folds', 8, 'Folds side by side, K.', lower_bound=1)
SIZES = flags.DEFINE_list('sizes', ['1024x512', '4096x2048', '8192x4096'], 'Visible and hidden units.')


class Case(NamedTuple):
  """Sizes of the RBMs and their number; config.fusion.rbm; where, and on how many threads."""

  visible: int
  hidden: int
  folds: int
  config: Any
  device: str
  threads: int


def side(together: bool, case: Case, _: dict[str, Any]) -> race.Runner:
  """A step is one update of each fold, from batches on the host."""
  import jax

  from emo_jax.models import rbm
  from emo_jax.training import contrastive, parallel

  layer = contrastive.build_layer(case.hidden, rbm.Units('probability', 'bernoulli'), case.config)
  size = case.config.batch if together else parallel.rows_a_step(case.config.batch)
  random, rows = np.random.default_rng(0), np.arange(size, dtype=np.int32)
  placed: Callable[[], Iterator[Any]]
  data = random.random((case.folds, size, case.visible), np.float32)
  batch = lambda of: {'input': of, 'mask': np.ones(size, np.float32), 'row': rows, 'chain': rows}
  stacked = lambda trees: jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
  params = rbm.init(jax.random.key(0), case.visible, case.hidden, scale=0.01)
  state, key = contrastive.initial_state(params, config=case.config, epoch_steps=1), jax.random.key(1)
  if together:
    keys = jax.random.split(key, case.folds)
    state, key = parallel.place_folds(stacked([state] * case.folds)), parallel.place_folds(keys)
    step, placed = layer.folds_step, lambda: iter([parallel.place_folds(stacked([batch(of) for of in data]))])
  else:  # all update the same state: in training, too, the device holds one fold's at a time
    state, key = parallel.replicate((state, key))
    step, placed = layer.step, lambda: (parallel.shard(batch(of)) for of in data)

  def run(steps: int) -> None:
    nonlocal state
    for _ in range(steps):
      for given in placed():
        state, _ = step(state, given, key)
    jax.block_until_ready(state)

  return race.Runner(run, race.memory_of('jax', case.device))


def main(argv: list[str]) -> None:
  """Prints the table of each size."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  race.set_up()
  names = {'ours': True, 'one by one': False}
  sides = {name: race.Side(functools.partial(side, together), ('jax',)) for name, together in names.items()}
  for size in SIZES.value:
    visible, hidden = map(int, size.split('x'))
    case = Case(visible, hidden, FOLDS.value, CONFIG.value.fusion.rbm, race.DEVICE.value, race.THREADS.value)
    print(f'\n{FOLDS.value} folds, CD-1: {size}, batch {case.config.batch}; ours: side by side', flush=True)
    results = race.race(sides, case, race.REPEATS.value)
    tables.show(results)
    tables.write('folds', {**case._asdict(), 'config': {}}, results)


if __name__ == '__main__':
  app.run(main)

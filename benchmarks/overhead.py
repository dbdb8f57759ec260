"""Times what metrics and checkpoints cost a training at the defaults (log.every=10, save.every=200).

  python -m benchmarks.overhead [--device=cpu|gpu] [--trainings=audio,visual,rbm,finetune,large_rbm] [--steps=N]
    [--repeats=N] [--threads=N] [--out=FILE]

Whole trainings on random rows, through the functions that the pipeline calls: java_sed's two networks, the demo's first
RBM and its fine-tuning, and an RBM of 4096 and 2048 units. Each is trained with metrics and checkpoints, and with
neither (intervals that never end, metrics that go nowhere), in turn, every other turn in the opposite order. `watched /
bare` is seconds over seconds, turn by turn: 1.03 are 3 % more; then the same of all threads' CPU seconds, which other
work on the machine moves less. Beside them what the clock of the watched ones says (training/clock.py): the shares of
metrics, of checkpoints, and of opening and closing these. What a save leaves to threads is in the ratios alone. A
training of 201 steps saves itself once, and waits for that at its end; the final state, which both fetch, is no
checkpoint.
"""

import functools
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import app, flags, logging

from benchmarks import race, tables
from configs import default, demo, java_sed
from emo_jax import memory

TRAININGS = flags.DEFINE_list('trainings', ['audio', 'visual', 'rbm', 'finetune', 'large_rbm'], 'Which ones.')
STEPS = flags.DEFINE_integer('steps', 201, 'Of each training, at least.', lower_bound=1)

CLASSES = 6
NEVER = {'log_every': 1 << 30, 'save_every': 1 << 30}
SHARES = ('metrics', 'checkpoints', 'other')  # of the clock's parts, those that the bare training has less of
Train = Callable[[pathlib.Path, Any], Any]  # (its folder, watch) -> trains


def network(modality: str) -> Train:
  """One of java_sed's networks on 4 batches of random rows."""
  import jax

  from emo_jax.context import Experiment
  from emo_jax.steps import start
  from emo_jax.training import supervised

  config = java_sed.get_config()
  x = Experiment(config, pathlib.Path(), pathlib.Path(), [], [str(n) for n in range(CLASSES)], [])
  like, of = start.row_like(x, modality), config[modality]
  random, rows = np.random.default_rng(0), 4 * of.batch
  data = (60 * random.random((rows, *like.shape[1:]), np.float32)).astype(like.dtype)
  shapes = start.variables_like(x, modality)['statistics']
  standard = {name: np.full(shape.shape, name != 'mean', np.float32) for name, shape in shapes.items()}
  params = jax.device_get(jax.jit(lambda: start.random_params(x, modality))())
  fitting = functools.partial(
    supervised.train,
    start.modality_of(x, modality).whole,
    {'params': params, 'statistics': standard},
    data.__getitem__,
    np.arange(rows) % CLASSES,
    batch=of.batch,
    epochs=-(-STEPS.value // 4),
    optim_config=of.optim,
  )
  return lambda folder, watch: fitting(seed=0, names=(modality,), name=f'{modality}_net', folder=folder, watch=watch)


def rbm(visible: int, hidden: int) -> Train:
  """An RBM on 4 batches of random rows, with the monitors of every epoch."""
  from emo_jax.models import rbm as machine
  from emo_jax.training import contrastive

  config = default.get_config().fusion.rbm
  config.epochs = -(-STEPS.value // 4)
  layer = contrastive.build_layer(hidden, machine.Units('probability', 'bernoulli'), config)
  data = np.random.default_rng(0).random((4 * config.batch, visible), np.float32)
  of: dict[str, Any] = {'config': config, 'seed': 0, 'names': ('rbm',), 'name': 'rbm'}
  return lambda folder, watch: contrastive.train_rbm(data, data[:100], layer, folder=folder, watch=watch, **of)


def fine_tuning(visible: int, units: tuple[int, ...]) -> Train:
  """The demo's DBN with its classes, on as many random rows as a fold of the demo has segments."""
  import jax

  from emo_jax.models import dbn
  from emo_jax.models import rbm as machine
  from emo_jax.training import supervised

  tune, rows = demo.get_config().fusion.finetune, 384
  kinds = dbn.stack_units(len(units), visible='probability', top='bernoulli')
  sizes = zip((visible, *units), units, strict=False)
  stack = [machine.init(jax.random.key(n), *size, scale=0.01) for n, size in enumerate(sizes)]
  params = jax.device_get({'stack': stack, 'head': dbn.init_head(stack, classes=CLASSES)})
  classify = lambda variables, data, keys: dbn.classify(
    variables['params'], data, keys, kinds, dropout_rate=tune.dropout
  )
  built = supervised.build(classify, lambda data: data, tune.optim)
  data = np.random.default_rng(0).random((rows, visible), np.float32)
  fitting = functools.partial(
    supervised.train,
    built,
    {'params': params, 'statistics': {}},
    data.__getitem__,
    np.arange(rows) % CLASSES,
    batch=tune.batch,
    epochs=-(-STEPS.value * tune.batch // rows),
    optim_config=tune.optim,
  )
  return lambda folder, watch: fitting(seed=0, names=('tune',), name='finetune', folder=folder, watch=watch)


MAKE: dict[str, Callable[[], Train]] = {
  'audio': lambda: network('audio'),
  'visual': lambda: network('visual'),
  'rbm': lambda: rbm(1536, 256),
  'finetune': lambda: fine_tuning(1536, (256, 128)),
  'large_rbm': lambda: rbm(4096, 2048),
}


def measured(train: Train, *, watched: bool) -> dict[str, float]:
  """'wall' and 'cpu' seconds of a whole training (of all its threads, so less moved by what else the machine does), and
  the shares that its own clock tells of."""
  from emo_jax.training import loop
  from emo_jax.training.metrics import Metrics

  told: list[dict[str, float]] = []
  spent, config = lambda name, of_parts: told.append(of_parts), default.get_config()
  every = {'log_every': config.log.every, 'save_every': config.save.every} if watched else {**NEVER}
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    (stage := folder / 'stage').mkdir()
    metrics: Any = Metrics(folder) if watched else Metrics(None)
    watch = loop.Watch(metrics.beside(stage) if watched else metrics, lambda *done: None, **every, spent=spent)
    wall, cpu = time.perf_counter(), time.process_time()
    train(folder / 'checkpoints', watch)
    found = {'wall': time.perf_counter() - wall, 'cpu': time.process_time() - cpu}
    metrics.close()
  return {**found, **{part: told[0][part] / told[0]['seconds'] for part in SHARES}}


def compare(name: str) -> None:
  """Prints what one training costs more."""
  train = MAKE[name]()
  measured(train, watched=True)  # compiles
  found: dict[bool, list[dict[str, float]]] = {True: [], False: []}
  for turn in range(race.REPEATS.value):
    for watched in (True, False)[:: (-1) ** turn]:
      found[watched].append(measured(train, watched=watched))
  column = lambda watched, what: [each[what] for each in found[watched]]
  ratio = lambda what: tables.spread(
    [mine / bare for mine, bare in zip(column(True, what), column(False, what), strict=True)]
  )
  clock = ', '.join(f'{part} {statistics.median(column(True, part)):.1%}' for part in SHARES)
  print(
    f'  {name:10s}{tables.spread(column(False, "wall")):>24s}{ratio("wall"):>24s}{ratio("cpu"):>24s}  {clock}',
    flush=True,
  )
  results = {
    side: race.Result(column(watched, 'wall'), 0.0, 0, 0.0, {'turns': found[watched]})
    for side, watched in (('watched', True), ('bare', False))
  }
  tables.write('overhead', {'training': name, 'steps': STEPS.value}, results)


def main(argv: list[str]) -> None:
  """Prints a line a training."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  if unknown := set(TRAININGS.value) - set(MAKE):
    raise app.UsageError(f'--trainings={",".join(unknown)}: use some of {",".join(MAKE)}')
  race.set_up()
  memory.keep_freed_memory()
  logging.set_verbosity(logging.WARNING)  # Orbax tells of every checkpoint
  columns = f'{"bare: seconds":>24s}{"watched / bare":>24s}{"the same, CPU seconds":>24s}'
  print(f'  {STEPS.value} steps   {columns}  of the watched, by the clock')
  for name in TRAININGS.value:
    compare(name)


if __name__ == '__main__':
  app.run(main)

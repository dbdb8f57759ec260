"""Times an update of an RBM against scikit-learn's BernoulliRBM and PyTorch: same sizes, same batches, in turn.

  python -m benchmarks.rbm [--device=cpu|gpu] [--repeats=N] [--sizes=8192x4096,...] [--epochs=N] [--threads=N]
    [--out=FILE]

Batches of 100 rows start on the host. The table's columns are train_step.py's; on a GPU scikit-learn is left out. Then
all learn scikit-learn's digits, in the same batches at the same rate; the mean log pseudo-likelihood is estimated by
the same flips for all. Ours does what training does: momentum, weight decay and the parameters' average are part of its
update, the peers have none of them. All start from weights 0.01 * N(0, 1) in float32. CD-1 rebuilds the rows from
sampled hidden units, as probabilities; scikit-learn knows only persistent chains with sampled visible units, and
'ours, persistent' is the same. PyTorch is left out where it is not installed.
"""

import functools
import importlib.util
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from benchmarks import race, tables

CONFIG = config_flags.DEFINE_config_file('config', 'configs/default.py', 'How ours trains, in its fusion.rbm.')
SIZES = flags.DEFINE_list('sizes', ['8192x4096', '4096x2048', '2048x1024'], 'Visible and hidden units.')
EPOCHS = flags.DEFINE_integer('epochs', 7, 'Passes over the digits.', lower_bound=1)

BATCH = 100
DIGITS = (64, 64, 10)  # visible, hidden, rows a batch
RATE, SCALE = 0.1, 0.01


class Case(NamedTuple):
  """Sizes of an RBM; how ours trains, config.fusion.rbm; where, and on how many threads."""

  visible: int
  hidden: int
  batch: int
  config: Any
  device: str
  threads: int


class Learner(NamedTuple):
  """An RBM that learns.

  Attributes:
    update: from float32 rows [B, V] on the host; comes back when it is done.
    params: what it has learnt, numpy arrays as models/rbm.py names them.
  """

  update: Callable[[np.ndarray], Any]
  params: Callable[[], dict[str, np.ndarray]]


def ours(case: Case, *, persistent: bool = False, **of: Any) -> Learner:
  """Through the step that training runs; `of` changes config.fusion.rbm."""
  import jax

  from emo_jax.models import rbm
  from emo_jax.training import batches, contrastive, parallel

  config = ConfigDict(case.config)  # a copy
  config.update({'lr': RATE, 'batch': case.batch, 'persistent': persistent, **of})
  units = rbm.Units('bernoulli' if persistent else 'probability', 'bernoulli')
  layer, size = contrastive.build_layer(case.hidden, units, config), parallel.rows_a_step(case.batch)
  params = rbm.init(jax.random.key(0), case.visible, case.hidden, scale=SCALE)
  state = contrastive.initial_state(params, config=config, epoch_steps=1)
  state, key = parallel.replicate((state, jax.random.key(1)))

  def update(rows: np.ndarray) -> None:
    nonlocal state
    numbers, mask = batches.padded(np.arange(len(rows)), size)
    given = {'input': rows[numbers], 'mask': mask, 'row': numbers, 'chain': np.arange(size, dtype=np.int32)}
    state, _ = layer.step(state, parallel.shard(given), key)
    jax.block_until_ready(state)

  return Learner(update, lambda: jax.device_get(state['params']))


def scikit_learn(case: Case) -> Learner:
  """The peer's update in float32, as its `fit` runs it (its `partial_fit` turns all to float64)."""
  from sklearn.neural_network import BernoulliRBM

  model = BernoulliRBM(n_components=case.hidden, learning_rate=RATE, batch_size=case.batch, n_iter=0)
  model.fit(np.zeros((1, case.visible), np.float32))  # no more than the initial values
  random = np.random.RandomState(0)

  def params() -> dict[str, np.ndarray]:
    biases = {'visible_bias': model.intercept_visible_, 'hidden_bias': model.intercept_hidden_}
    return {'weights': model.components_.T, **biases}

  return Learner(lambda rows: model._fit(rows, random), params)


def pytorch(case: Case) -> Learner:
  """A plain CD-1, everything in place."""
  import torch

  torch.manual_seed(0)
  if case.device == 'cpu':
    torch.set_num_threads(case.threads)
  torch.backends.cuda.matmul.allow_tf32 = True
  torch.set_default_device('cuda' if case.device == 'gpu' else 'cpu')
  weights = SCALE * torch.randn(case.visible, case.hidden)
  up, down = torch.zeros(case.hidden), torch.zeros(case.visible)

  def update(rows: np.ndarray) -> None:
    data, rate = torch.from_numpy(rows).to(weights.device), RATE / len(rows)
    active = torch.sigmoid(torch.addmm(up, data, weights))
    rebuilt = torch.sigmoid(torch.addmm(down, torch.bernoulli(active), weights.T))
    after = torch.sigmoid(torch.addmm(up, rebuilt, weights))
    weights.addmm_(data.T, active, alpha=rate).addmm_(rebuilt.T, after, alpha=-rate)
    up.add_((active - after).sum(0), alpha=rate)
    down.add_((data - rebuilt).sum(0), alpha=rate)
    if case.device == 'gpu':
      torch.cuda.synchronize()

  named = {'weights': weights, 'visible_bias': down, 'hidden_bias': up}
  return Learner(update, lambda: {name: values.numpy(force=True) for name, values in named.items()})


def side(make: Callable[[Case], Learner], library: str, case: Case, _: dict[str, Any]) -> race.Runner:
  """A learner on a few batches, one after the other."""
  random, learner = np.random.default_rng(0), make(case)
  batches = itertools.cycle([random.random((case.batch, case.visible), np.float32) for _ in range(4)])
  run = lambda steps: [learner.update(next(batches)) for _ in range(steps)]
  return race.Runner(run, race.memory_of(library, case.device))


def print_times() -> None:
  """The table of each size."""
  makes = {'ours': (ours, 'jax'), 'PyTorch': (pytorch, 'torch')}
  if race.DEVICE.value == 'cpu':
    makes['scikit-learn'] = scikit_learn, 'sklearn'
  sides = {
    name: race.Side(functools.partial(side, make, library), (library,)) for name, (make, library) in makes.items()
  }
  for size in SIZES.value:
    visible, hidden = map(int, size.split('x'))
    case = Case(visible, hidden, BATCH, CONFIG.value.fusion.rbm, race.DEVICE.value, race.THREADS.value)
    print(f'\nCD-1: {size}, batch {BATCH}', flush=True)
    results = race.race(sides, case, race.REPEATS.value)
    tables.show(results)
    tables.write('cd-1', {**case._asdict(), 'config': {}}, results)


def print_likelihoods() -> None:
  """The check that all of them learn, and learn alike."""
  import jax
  import jax.numpy as jnp
  from sklearn.datasets import load_digits

  from emo_jax.models import rbm

  data, case = (load_digits().data / 16).astype(np.float32), Case(*DIGITS, CONFIG.value.fusion.rbm, 'cpu', 1)
  plain: dict[str, Any] = {'momentum': (0.0,), 'weight_decay': 0.0}
  learners = {'ours, CD-1': ours(case, **plain), 'ours, persistent': ours(case, persistent=True, **plain)}
  learners['scikit-learn'] = scikit_learn(case)
  if importlib.util.find_spec('torch'):
    learners['PyTorch'] = pytorch(case)
  for epoch, first in itertools.product(range(EPOCHS.value), range(0, len(data), case.batch)):
    rows = np.random.default_rng(epoch).permutation(len(data))[first : first + case.batch]
    for learner in learners.values():
      learner.update(data[rows])
  keys, units = jax.random.split(jax.random.key(2), len(data)), rbm.Units('bernoulli', 'bernoulli')
  print(f'\ndigits, {EPOCHS.value} epochs      mean log pseudo-likelihood')
  for name, learner in learners.items():
    params = jax.tree.map(jnp.asarray, learner.params())
    value = jnp.mean(rbm.pseudo_likelihood(params, jnp.asarray(data), keys, units))
    print(f'{name:24s}{float(value):10.2f}')


def main(argv: list[str]) -> None:
  """Prints the tables."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  race.set_up()
  print_times()
  print_likelihoods()


if __name__ == '__main__':
  app.run(main)

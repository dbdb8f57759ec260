"""Times an update of an RBM against scikit-learn's BernoulliRBM and PyTorch: same sizes, same batches, one run.

  python benchmarks/rbm.py [--updates=N] [--epochs=N]

Seconds are medians over updates, taken in turn, on batches of 100 rows on the host; a ratio above 1 means ours is
faster. Then all learn scikit-learn's digits, in the same batches at the same rate; the mean log pseudo-likelihood is
estimated by the same flips for all. Ours does what training does: momentum, weight decay and the parameters' average
are part of its update, the peers have none of them. All start from weights 0.01 * N(0, 1) in float32. CD-1 rebuilds the
rows from sampled hidden units, as probabilities; scikit-learn knows only persistent chains with sampled visible units,
and 'ours, persistent' is the same. PyTorch is left out where it is not installed.
"""

import importlib.util
import itertools
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict, config_flags
from sklearn.datasets import load_digits
from sklearn.neural_network import BernoulliRBM

from emo_jax.models import rbm
from emo_jax.training import batches, contrastive, parallel

CONFIG = config_flags.DEFINE_config_file('config', 'configs/default.py', 'How ours trains, in its fusion.rbm.')
UPDATES = flags.DEFINE_integer('updates', 5, 'Measured updates of each size.', lower_bound=1)
EPOCHS = flags.DEFINE_integer('epochs', 7, 'Passes over the digits.', lower_bound=1)

SIZES = ((8192, 4096), (4096, 2048), (2048, 1024))  # visible, hidden units
BATCH = 100
DIGITS = (64, 64, 10)  # visible, hidden, rows a batch
RATE, SCALE = 0.1, 0.01


class Learner(NamedTuple):
  """An RBM that learns.

  Attributes:
    update: from float32 rows [B, V] on the host; comes back when it is done.
    params: what it has learnt.
  """

  update: Callable[[np.ndarray], Any]
  params: Callable[[], rbm.Params]


def ours(visible: int, hidden: int, batch: int, *, persistent: bool = False, **of: Any) -> Learner:
  """Through the step that training runs; `of` changes config.fusion.rbm."""
  config = ConfigDict(CONFIG.value.fusion.rbm)  # a copy
  config.update({'lr': RATE, 'batch': batch, 'persistent': persistent, **of})
  units = rbm.Units('bernoulli' if persistent else 'probability', 'bernoulli')
  layer, size = contrastive.build_layer(hidden, units, config), parallel.rows_a_step(batch)
  params = rbm.init(jax.random.key(0), visible, hidden, scale=SCALE)
  state = contrastive.initial_state(params, config=config, epoch_steps=1)
  state, key = parallel.replicate((state, jax.random.key(1)))

  def update(rows: np.ndarray) -> None:
    nonlocal state
    numbers, mask = batches.padded(np.arange(len(rows)), size)
    given = {'input': rows[numbers], 'mask': mask, 'row': numbers, 'chain': np.arange(size, dtype=np.int32)}
    state, _ = layer.step(state, parallel.shard(given), key)
    jax.block_until_ready(state)

  return Learner(update, lambda: jax.device_get(state['params']))


def scikit_learn(visible: int, hidden: int, batch: int) -> Learner:
  """The peer's update in float32, as its `fit` runs it (its `partial_fit` turns all to float64)."""
  model = BernoulliRBM(n_components=hidden, learning_rate=RATE, batch_size=batch, n_iter=0)
  model.fit(np.zeros((1, visible), np.float32))  # no more than the initial values
  random = np.random.RandomState(0)

  def params() -> rbm.Params:
    biases = {'visible_bias': model.intercept_visible_, 'hidden_bias': model.intercept_hidden_}
    return {'weights': model.components_.T, **biases}

  return Learner(lambda rows: model._fit(rows, random), params)


def pytorch(visible: int, hidden: int, batch: int) -> Learner:
  """A plain CD-1, everything in place."""
  import torch

  torch.manual_seed(0)
  weights, up, down = SCALE * torch.randn(visible, hidden), torch.zeros(hidden), torch.zeros(visible)

  def update(rows: np.ndarray) -> None:
    data, rate = torch.from_numpy(rows), RATE / len(rows)
    active = torch.sigmoid(torch.addmm(up, data, weights))
    rebuilt = torch.sigmoid(torch.addmm(down, torch.bernoulli(active), weights.T))
    after = torch.sigmoid(torch.addmm(up, rebuilt, weights))
    weights.addmm_(data.T, active, alpha=rate).addmm_(rebuilt.T, after, alpha=-rate)
    up.add_((active - after).sum(0), alpha=rate)
    down.add_((data - rebuilt).sum(0), alpha=rate)

  return Learner(update, lambda: {'weights': weights.numpy(), 'visible_bias': down.numpy(), 'hidden_bias': up.numpy()})


def peers() -> dict[str, Callable[..., Learner]]:
  known = {'scikit-learn': scikit_learn, 'PyTorch': pytorch}
  return {name: make for name, make in known.items() if name != 'PyTorch' or importlib.util.find_spec('torch')}


def median_seconds(learners: dict[str, Learner], data: list[np.ndarray]) -> dict[str, float]:
  """Updates in turn, once unmeasured to compile."""
  times: dict[str, list[float]] = {name: [] for name in learners}
  for turn, rows in enumerate([data[0], *data]):
    for name, learner in learners.items():
      start = time.perf_counter()
      learner.update(rows)
      if turn:
        times[name].append(time.perf_counter() - start)
  return {name: statistics.median(values) for name, values in times.items()}


def print_times() -> None:
  makes = {'ours': ours, **peers()}
  print(f'{"seconds an update":20s}' + ''.join(f'{name:>14s}' for name in makes) + '   peer / ours')
  random = np.random.default_rng(0)
  for visible, hidden in SIZES:
    data = [random.uniform(size=(BATCH, visible)).astype(np.float32) for _ in range(UPDATES.value)]
    seconds = median_seconds({name: make(visible, hidden, BATCH) for name, make in makes.items()}, data)
    ratios = ''.join(f'   {name} {seconds[name] / seconds["ours"]:.2f}' for name in seconds if name != 'ours')
    title = f'{visible} x {hidden}'
    print(f'{title:20s}' + ''.join(f'{value:14.3f}' for value in seconds.values()) + ratios, flush=True)


def print_likelihoods() -> None:
  """The check that all of them learn, and learn alike."""
  data, size = (load_digits().data / 16).astype(np.float32), DIGITS[-1]
  plain: dict[str, Any] = {'momentum': (0.0,), 'weight_decay': 0.0}
  learners = {'ours, CD-1': ours(*DIGITS, **plain), 'ours, persistent': ours(*DIGITS, persistent=True, **plain)}
  learners |= {name: make(*DIGITS) for name, make in peers().items()}
  for epoch, first in itertools.product(range(EPOCHS.value), range(0, len(data), size)):
    rows = np.random.default_rng(epoch).permutation(len(data))[first : first + size]
    for learner in learners.values():
      learner.update(data[rows])
  keys, units = jax.random.split(jax.random.key(2), len(data)), rbm.Units('bernoulli', 'bernoulli')
  print(f'\ndigits, {EPOCHS.value} epochs      mean log pseudo-likelihood')
  for name, learner in learners.items():
    value = jnp.mean(rbm.pseudo_likelihood(learner.params(), jnp.asarray(data), keys, units))
    print(f'{name:24s}{float(value):10.2f}')


def main(argv: list[str]) -> None:
  """Prints both tables."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  missing = '' if 'PyTorch' in peers() else '; PyTorch is not installed: left out'
  print(f'{jax.default_backend()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}{missing}')
  print_times()
  print_likelihoods()


if __name__ == '__main__':
  app.run(main)

"""Run by test_side_by_side.py in a process of its own: what a number of devices gives, into an .npz.

python side_by_side_script.py RESULT.npz
"""

import re
import sys

import jax
import numpy as np

from configs import default
from emo_jax.models import rbm
from emo_jax.training import contrastive, loop, parallel, side_by_side


class Nothing:
  """Stands for Metrics."""

  def write(self, *of: object) -> None:
    pass

  def flush(self) -> None:
    pass


def main() -> None:
  config, found = default.get_config().fusion.rbm, {}
  config.update({'batch': 6, 'epochs': 3, 'average_epochs': 1, 'init_scale': 0.1, 'persistent': True})
  layer, texts = contrastive.build_layer(10, rbm.Units('bernoulli', 'bernoulli'), config), []
  watch = loop.Watch(Nothing(), lambda *done: None, log_every=4, save_every=1000)

  def step(*of: object) -> tuple:
    if not texts:
      texts.append(layer.folds_step.lower(*of).compile().as_text())
    new, sums = layer.folds_step(*of)
    found['used'], found['chains'] = len(new['chains'].sharding.device_set), np.asarray(new['chains'])
    return new, sums

  data = np.random.default_rng(0).uniform(size=(13, 20)).astype(np.float32)
  folds = [side_by_side.Fold(data[k:], data[:k], k % 2, f'fold_{k}', watch) for k in range(6)]  # 3 or 2 steps an epoch
  stacks = side_by_side.train_stacks(folds, [layer._replace(folds_step=step)], config=config)
  found |= {name: np.stack([stack[0][name] for stack in stacks]) for name in stacks[0][0]}
  spread = [len(parallel.place_folds(np.zeros((folds, 2))).sharding.device_set) for folds in (1, 4, 5, 6, 8)]
  exchanges = re.findall(r'all-reduce|all-gather|all-to-all|collective-permute', texts[0])
  np.savez(sys.argv[1], devices=jax.device_count(), spread=spread, exchanges=len(exchanges), **found)


if __name__ == '__main__':
  main()

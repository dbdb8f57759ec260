"""Run by test_watching.py: a training that never ends, and tells of every step that it begins on its standard output.

python watched_script.py WORKDIR LOG_EVERY
"""

import os
import pathlib
import sys

import jax
import numpy as np

from emo_jax.training import loop
from emo_jax.training.metrics import Metrics


def main() -> None:
  folder, log_every = pathlib.Path(sys.argv[1]), int(sys.argv[2])

  def step(state: dict, batch: dict, key: jax.Array) -> tuple[dict, dict]:
    os.write(1, b'.')  # what is written is not lost with the process
    return {**state, 'step': state['step'] + 1}, {'count': np.float32(2.0), 'loss': np.float32(3.0)}

  (stage := folder / 'stage').mkdir()
  watch = loop.Watch(Metrics(folder).beside(stage), lambda *done: None, log_every=log_every, save_every=1 << 30)
  state = {'params': np.zeros(3, np.float32), 'step': np.asarray(0, np.int32)}
  of = {'steps': 1 << 30, 'name': 'toy', 'folder': folder / 'checkpoints', 'watch': watch}
  loop.fit(step, state, lambda number: {}, jax.random.key(0), **of)


if __name__ == '__main__':
  main()

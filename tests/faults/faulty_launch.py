"""Run by tests: launch.py with something that is wrong. python faulty_launch.py FAULT, and then as launch.py has it.

FAULT is nan (in a batch of the sound's second network a row is no number) or memory=N (a process may address
no more than N MiB).
"""

import pathlib
import resource
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import app

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import launch
from emo_jax import command_line, stopping
from emo_jax.training import loop


def break_a_batch() -> None:
  """Training audio_net/fold_1 reads NaN at step 2."""
  fit = loop.fit

  def broken(step: Any, state: Any, batch_at: Callable, *of: Any, **named: Any) -> Any:
    def at(number: int) -> dict[str, np.ndarray]:
      batch = batch_at(number)
      if (named['name'], number) == ('audio_net/fold_1', 2):
        batch['input'] = np.array(batch['input'])
        batch['input'][-1] = np.nan
      return batch

    return fit(step, state, at, *of, **named)

  loop.fit = broken


def main() -> None:
  fault, value = [*sys.argv.pop(1).split('='), ''][:2]
  if fault == 'nan':
    break_a_batch()
  else:
    resource.setrlimit(resource.RLIMIT_AS, (int(value) * 2**20,) * 2)
  stopping.watch()
  app.run(launch.main, flags_parser=command_line.parser('launch.py', status=2))


if __name__ == '__main__':
  main()

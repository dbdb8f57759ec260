"""What is written down while training: one JSON line a step, the same numbers as TensorBoard events, a progress bar."""

import json
import pathlib
import sys
from typing import Any

import tqdm


class Metrics:
  """Writes metrics.jsonl and TensorBoard events in the work directory.

  Args:
    workdir: of the experiment.
  """

  def __init__(self, workdir: pathlib.Path):
    import tensorboardX

    self._lines = (workdir / 'metrics.jsonl').open('a', encoding='utf-8')
    self._events = tensorboardX.SummaryWriter(str(workdir / 'events'), flush_secs=30)

  def write(self, name: str, step: int, values: dict[str, float]) -> None:
    """One line: which training (`name`, as 'audio_net/fold_0'), its step, the step's means."""
    self._lines.write(json.dumps({'train': name, 'step': step, **values}) + '\n')
    for key, value in values.items():
      self._events.add_scalar(f'{name}/{key}', value, step)

  def flush(self) -> None:
    """After this, a crash loses no line of metrics.jsonl (TensorBoard's events are flushed every 30 seconds)."""
    self._lines.flush()

  def close(self) -> None:
    """Ends both files."""
    self._lines.close()
    self._events.close()


def progress(stage: str, total: int, unit: str) -> Any:
  """A progress bar with the time left, one a stage; a line now and then where the output is no terminal."""
  pace = 0.5 if sys.stderr.isatty() else 15.0
  return tqdm.tqdm(total=total, desc=f'{stage:>10}', unit=unit, smoothing=0.05, mininterval=pace, dynamic_ncols=True)

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
    self._lines.write(_line(name, step, values))
    for key, value in values.items():
      self._events.add_scalar(f'{name}/{key}', value, step)

  def flush(self) -> None:
    """After this, a crash loses no line of metrics.jsonl (TensorBoard's events are flushed every 30 seconds)."""
    self._lines.flush()

  def beside(self, folder: pathlib.Path) -> '_Beside':
    """The same, written to metrics.jsonl in `folder` as well: a stage's numbers stay with its result."""
    return _Beside(self, folder / 'metrics.jsonl')

  def close(self) -> None:
    """Ends both files."""
    self._lines.close()
    self._events.close()


class _Beside:
  """Metrics that also keep a stage's own lines."""

  def __init__(self, metrics: Metrics, path: pathlib.Path):
    self._metrics, self._path, self._lines = metrics, path, list[str]()

  def write(self, name: str, step: int, values: dict[str, float]) -> None:
    self._metrics.write(name, step, values)
    self._lines.append(_line(name, step, values))

  def flush(self) -> None:
    self._metrics.flush()
    with self._path.open('a', encoding='utf-8') as file:
      file.writelines(self._lines)
    self._lines.clear()


def _line(name: str, step: int, values: dict[str, float]) -> str:
  return json.dumps({'train': name, 'step': step, **values}) + '\n'


def progress(stage: str, total: int, unit: str) -> Any:
  """A progress bar with the time left, one a stage; a line now and then where the output is no terminal."""
  pace = 0.5 if sys.stderr.isatty() else 15.0
  return tqdm.tqdm(total=total, desc=f'{stage:>10}', unit=unit, smoothing=0.05, mininterval=pace, dynamic_ncols=True)

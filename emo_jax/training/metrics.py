"""What is written down while training: one JSON line a step, the same numbers as TensorBoard events, a line a stage."""

import collections
import json
import math
import os
import pathlib
import socket
import struct
import sys
import time
from typing import Any, BinaryIO, TextIO

import tqdm

from emo_jax import files, processes

NOWHERE = pathlib.Path(os.devnull)
LINE = '{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]'
ON_SCREEN, IN_FILE = 0.5, 15.0  # seconds from one state of a stage's line to the next
TICKS = 30  # that its pace is of


class Metrics:
  """Writes metrics.jsonl and TensorBoard events in the work directory.

  Both are kept in memory until `flush`, and after it not even SIGKILL loses them. TensorBoard's own way, a queue and a
  thread, loses what is in the queue, and takes longer. Where several processes lead teams, those but process 0 write
  metrics.<process>.jsonl.

  Args:
    workdir: of the experiment; None: writes nothing, as processes that lead nobody do.
  """

  def __init__(self, workdir: pathlib.Path | None):
    self._silent = workdir is None
    name = f'metrics.{processes.number()}.jsonl' if processes.number() else 'metrics.jsonl'
    self._lines = files.add_to(workdir / name if workdir else NOWHERE)
    self._events = _event_file(workdir / 'events') if workdir else NOWHERE.open('ab')

  def write(self, name: str, step: int, values: dict[str, float]) -> None:
    """One line: which training (`name`, as 'audio_net/fold_0'), its step, the step's means."""
    from tensorboardX.proto.summary_pb2 import Summary

    if not self._silent:
      self._lines.write(_line(name, step, values))
      scalars = [Summary.Value(tag=f'{name}/{key}', simple_value=value) for key, value in values.items()]
      self._events.write(_record(step=step, summary=Summary(value=scalars)))

  def flush(self) -> None:
    """After this, the end of the process loses nothing of both (what an end of power loses, the system decides)."""
    self._lines.flush()
    self._events.flush()

  def beside(self, folder: pathlib.Path) -> '_Beside':
    """The same, written to metrics.jsonl in `folder` as well: a stage's numbers stay with its result."""
    return _Beside(self, folder / 'metrics.jsonl' if processes.lead() else NOWHERE)

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
    with files.add_to(self._path) as file:
      file.writelines(self._lines)
    self._lines.clear()


def _line(name: str, step: int, values: dict[str, float]) -> str:
  """JSON has no NaN and no infinity: null stands for both."""
  finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
  return json.dumps({'train': name, 'step': step, **finite}, allow_nan=False) + '\n'


def _event_file(folder: pathlib.Path) -> BinaryIO:
  """A new file of TensorBoard events; no two processes have the same one."""
  folder.mkdir(exist_ok=True)
  file = (folder / f'events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}').open('ab')
  file.write(_record(file_version='brain.Event:2'))
  return file


def _record(**of_event: Any) -> bytes:
  """An event as TensorBoard's files hold it (TFRecord): its length and its bytes, each with its checksum."""
  from tensorboardX.proto.event_pb2 import Event
  from tensorboardX.record_writer import masked_crc32c

  event = Event(wall_time=time.time(), **of_event).SerializeToString()
  length, checked = struct.pack('<Q', len(event)), lambda part: part + struct.pack('<I', masked_crc32c(part))
  return checked(length) + checked(event)


class Bar(tqdm.tqdm):
  """One line a stage: how far it is, time left, steps and examples a second, memory in use.

  The pace of what is ticked is that of the last ticks, without the first one, which had to wait for compilation.
  """

  def __init__(self, **of: Any):
    self._before, self._each, self._memory = 0, 0.0, ''  # steps done before; examples a step
    self._done: collections.deque[tuple[float, int]] = collections.deque(maxlen=TICKS)  # when, how many steps
    super().__init__(**of)

  def tick(self, steps: int, examples: float) -> None:
    """Counts steps that have seen so many examples; without any they were done before, and tell nothing of the pace."""
    if examples:
      self._each, self._memory = examples / steps, memory_in_use()
      self._done.append((time.monotonic(), steps))
    else:
      self._before += steps
    self.update(steps)

  @property
  def format_dict(self) -> dict[str, Any]:
    """What the line is made of (tqdm's way to change it)."""
    found = {**super().format_dict, 'initial': self._before}
    if len(self._done) > 1:
      found['rate'] = sum(steps for _, steps in self._done) - self._done[0][1]
      found['rate'] /= max(self._done[-1][0] - self._done[0][0], 1e-9)
    elif self._before:
      found['rate'] = None  # tqdm's own is that of all
    rate = found['rate'] or (found['n'] - self._before) / (found['elapsed'] or 1.0)
    pace = f'{rate * self._each:.3g} examples/s' if found['unit'] == 'step' and self._each else ''
    return {**found, 'postfix': ', '.join(filter(None, (pace, self._memory)))}


class _Lines:
  """Stands for the screen where the output is none: every state of a bar is a line of its own."""

  def __init__(self, file: TextIO):
    self._file, self._last = file, ''

  def write(self, text: str) -> None:
    line = text.replace('\x1b[A', '').strip()
    if line and line != self._last:
      self._file.write(line + '\n')
      self._last = line

  def flush(self) -> None:
    self._file.flush()


def progress(stage: str, total: int, unit: str) -> Bar:
  """The line of a stage, by the lead alone; now and then a new one where the output is no terminal."""
  of: dict[str, Any] = {'dynamic_ncols': True, 'mininterval': ON_SCREEN}
  if not sys.stderr.isatty():
    of = {'file': _Lines(sys.stderr), 'bar_format': LINE, 'mininterval': IN_FILE, 'maxinterval': IN_FILE}
  of |= {'disable': not processes.lead(), 'smoothing': 0.05, 'miniters': 1}
  return Bar(total=total, desc=f'{stage:>10}', unit=unit, **of)


def memory_in_use() -> str:
  """Of the fullest device of this process; where devices do not tell, as CPUs, the process's; '' where none tells."""
  import jax

  used = [stats['bytes_in_use'] for device in jax.local_devices() if (stats := device.memory_stats())]
  if not used and (pages := pathlib.Path('/proc/self/statm')).exists():
    used = [int(pages.read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')]
  return f'{max(used) / 2**20:.0f} MiB' if used else ''

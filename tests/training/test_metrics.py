"""Tests of what is written down while training: lines, TensorBoard events, a stage's line on a screen and in a file."""

import io
import json
import math
import pathlib
import re
from typing import Any

import pytest

from emo_jax import processes
from emo_jax.training import metrics
from emo_jax.training.metrics import Metrics, progress
from tests import event_files


class Screen(io.StringIO):
  """Stands for stderr, a terminal or none."""

  def __init__(self, *, terminal: bool):
    super().__init__()
    self.isatty = lambda: terminal


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
  """The time, in a list of one: tests move it by hand."""
  now = [1000.0]
  monkeypatch.setattr('tqdm.std.time', lambda: now[0])
  monkeypatch.setattr('time.monotonic', lambda: now[0])
  monkeypatch.setattr('tqdm.std.tqdm.monitor_interval', 0)
  return now


@pytest.fixture
def lead(monkeypatch: pytest.MonkeyPatch) -> Any:
  """lead(False): this process leads nobody from now on."""
  return lambda whether: monkeypatch.setattr(processes, 'lead', lambda: whether)


def test_each_step_is_a_json_line_and_a_later_run_appends(tmp_path: pathlib.Path) -> None:
  for step in (0, 1):
    found = Metrics(tmp_path)
    found.write('audio_net/fold_0', step, {'loss': 1.5 - step, 'accuracy': 0.25})
    found.flush()
    assert len((tmp_path / 'metrics.jsonl').read_text().splitlines()) == step + 1  # there before it is closed
    found.close()
  assert [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()] == [
    {'train': 'audio_net/fold_0', 'step': 0, 'loss': 1.5, 'accuracy': 0.25},
    {'train': 'audio_net/fold_0', 'step': 1, 'loss': 0.5, 'accuracy': 0.25},
  ]
  # Both runs began in the same second, and neither has lost the other's.
  assert event_files.crc32c(b'123456789') == 0xE3069283  # the check value that is published for it


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null(tmp_path: pathlib.Path, value: float) -> None:
  found = Metrics(tmp_path)
  found.write('audio_net/fold_0', 0, {'loss': value})
  found.close()

  def refuse(word: str) -> None:
    raise ValueError(f'{word} is no JSON')

  line = json.loads((tmp_path / 'metrics.jsonl').read_text(), parse_constant=refuse)
  assert line == {'train': 'audio_net/fold_0', 'step': 0, 'loss': None}


def test_tensorboard_events_are_there_as_soon_as_they_are_flushed(tmp_path: pathlib.Path) -> None:
  found = Metrics(tmp_path)
  for step in range(3):
    found.write('fusion/fold_3/rbm0', step, {'reconstruction_error': 0.5 * step, 'other': 1.0})
  found.flush()
  assert event_files.scalars(tmp_path / 'events') == {
    'fusion/fold_3/rbm0/reconstruction_error': [(0, 0.0), (1, 0.5), (2, 1.0)],
    'fusion/fold_3/rbm0/other': [(0, 1.0), (1, 1.0), (2, 1.0)],
  }
  found.close()


def test_a_stage_keeps_its_own_lines_once_they_are_flushed(tmp_path: pathlib.Path) -> None:
  found = Metrics(tmp_path)
  for name in ('first', 'second'):
    folder = tmp_path / name
    folder.mkdir()
    own = found.beside(folder)
    for step in range(2):
      own.write(f'audio_net/{name}', step, {'loss': 0.5})
      assert len((folder / 'metrics.jsonl').read_text().splitlines() if step else []) == step
      own.flush()
  found.close()
  whole = (tmp_path / 'metrics.jsonl').read_text()
  assert len(whole.splitlines()) == 4
  assert whole == ''.join((tmp_path / name / 'metrics.jsonl').read_text() for name in ('first', 'second'))


def test_a_process_that_leads_nobody_writes_nothing(
  tmp_path: pathlib.Path, lead: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
  lead(False)
  monkeypatch.chdir(tmp_path)
  found = Metrics(None)
  for one in (found, found.beside(tmp_path)):
    one.write('audio_net/fold_0', 0, {'loss': 0.5})
    one.flush()
  found.close()
  assert not list(tmp_path.iterdir())


def test_the_lead_of_another_team_has_files_of_its_own(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  for number in (0, 2):
    monkeypatch.setattr(processes, 'number', lambda: number)  # noqa: B023
    found = Metrics(tmp_path)
    found.write(f'audio_net/fold_{number}', 0, {'loss': 0.5})
    found.close()
  for number, name in ((0, 'metrics.jsonl'), (2, 'metrics.2.jsonl')):
    assert json.loads((tmp_path / name).read_text())['train'] == f'audio_net/fold_{number}'


def run_a_stage(clock: list[float]) -> None:
  """10 steps of an earlier run, then 9 ticks of 10 steps and 300 rows: the first after a minute, others after 2 s."""
  with progress('audio_net', 100, 'step') as bar:
    bar.tick(10, 0)
    for seconds in [60.0] + 8 * [2.0]:
      clock[0] += seconds
      bar.tick(10, 300.0)
    assert (bar.n, bar.total, bar.unit) == (100, 100, 'step')


def test_a_terminal_has_one_line_of_pace_memory_and_time_left(
  clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(metrics, 'memory_in_use', lambda: '812 MiB')
  monkeypatch.setattr('sys.stderr', screen := Screen(terminal=True))
  run_a_stage(clock)
  shown = screen.getvalue()
  assert shown.count('\n') == 1 and shown.endswith('\n')
  states = [state.strip() for state in shown.split('\r')]
  half = next(state for state in states if '50/100' in state)
  # The first tick, in which all was compiled, and what an earlier run did, make the pace no slower and no faster.
  assert re.search(r'50%.*50/100 \[01:06<00:10, +5\.00step/s, 150 examples/s, 812 MiB\]', half)
  assert '100/100 [01:16<00:00,  5.00step/s, 150 examples/s, 812 MiB]' in states[-1]


def test_a_file_has_whole_lines_now_and_then(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(metrics, 'memory_in_use', lambda: '812 MiB')
  monkeypatch.setattr('sys.stderr', screen := Screen(terminal=False))
  with progress('outer', 3, 'fold'):  # one within another moves the cursor on a screen
    run_a_stage(clock)
  lines = screen.getvalue().splitlines()
  assert '\r' not in screen.getvalue() and '\x1b' not in screen.getvalue() and all(lines)
  # Of the states at 0 s, 60 s and then every 2 s: 15 s lie between two lines, and the last one is shown.
  own = [line for line in lines if line.startswith('audio_net')]
  assert [re.findall(r'(\d+)/100', line)[0] for line in own] == ['0', '20', '100']
  assert own[-1] == 'audio_net: 100% 100/100 [01:16<00:00,  5.00step/s, 150 examples/s, 812 MiB]'


def test_only_the_lead_shows_how_far_a_stage_is(clock: list[float], lead: Any, monkeypatch: pytest.MonkeyPatch) -> None:
  lead(False)
  monkeypatch.setattr('sys.stderr', screen := Screen(terminal=True))
  with progress('audio_net', 20, 'step') as bar:
    bar.tick(10, 0)
    bar.tick(10, 300.0)
    bar.update(3)
  assert screen.getvalue() == ''


def test_memory_is_the_fullest_devices_or_else_the_processs(monkeypatch: pytest.MonkeyPatch) -> None:
  told = re.fullmatch(r'(\d+) MiB', metrics.memory_in_use())
  status = pathlib.Path('/proc/self/status').read_text()
  assert told and abs(int(told[1]) - int(re.findall(r'VmRSS:\s+(\d+)', status)[0]) / 1024) < 64
  device = lambda used: type('Device', (), {'memory_stats': lambda self: {'bytes_in_use': used * 2**20}})()
  monkeypatch.setattr('jax.local_devices', lambda: [device(3), device(700), device(20)])
  assert metrics.memory_in_use() == '700 MiB'

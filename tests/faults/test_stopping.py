"""launch.py asked to stop, by a scheduler (SIGTERM) or at a terminal (Ctrl-C): it says so, and goes on where it was."""

import json
import os
import pathlib
import re
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

TERM, INT = signal.SIGTERM, signal.SIGINT
STATUS = {TERM: 143, INT: 130}  # 128 and the signal, as shells and schedulers have it
AGAIN = 'the same command goes on'
Run = Callable[..., subprocess.CompletedProcess[str]]
When = Callable[[], bool]


def in_session(run: subprocess.Popen[str]) -> list[psutil.Process]:
  """What lives of a run and of all that it has started."""
  found = []
  for process in psutil.process_iter():
    try:
      if os.getsid(process.pid) == run.pid and process.status() != psutil.STATUS_ZOMBIE:
        found.append(process)
    except (ProcessLookupError, psutil.NoSuchProcess):  # it ended meanwhile
      pass
  return found


def told_to(number: signal.Signals, when: When, command: list[str], environment: dict[str, str]) -> str:
  """Runs a command, sends it a signal as soon as `when` holds, and looks at its end; what it has said on stderr.

  As a terminal does, SIGINT goes to all processes of its group.
  """
  options: dict[str, Any] = {'env': environment, 'text': True, 'start_new_session': True}
  with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options) as run:
    while run.poll() is None and not when():
      time.sleep(0.002)
    assert run.poll() is None, f'it had ended: {run.communicate()[1]}'
    (os.killpg if number == INT else os.kill)(run.pid, number)
    _, said = run.communicate(timeout=120)
  assert run.returncode == STATUS[number], said
  assert said.splitlines()[-1].startswith(f'stopped by {number.name}: '), said
  assert 'Traceback' not in said and 'Exception' not in said, said
  until(lambda: not in_session(run))
  return said


def until(condition: When) -> None:
  end = time.monotonic() + 10
  while not condition():
    assert time.monotonic() < end, 'in vain'
    time.sleep(0.05)


def trained(workdir: pathlib.Path, name: str, step: int) -> When:
  """Whether a training has done a step."""
  metrics, line = workdir / 'metrics.jsonl', f'{{"train": "{name}", "step": {step},'
  return lambda: metrics.exists() and line in metrics.read_text()


def there(folder: pathlib.Path, pattern: str, count: int = 1) -> When:
  """Whether so many files are there."""
  return lambda: len(list(folder.glob(pattern))) >= count


def steps(workdir: pathlib.Path) -> list[tuple[str, int]]:
  """Of each line of metrics.jsonl, what was trained and the step."""
  lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  return [(line['train'], line['step']) for line in lines]


def events(workdir: pathlib.Path) -> list[tuple[str, int]]:
  """Of each number in the TensorBoard files, its tag and step; what is cut off is refused."""
  from tensorboardX.proto import event_pb2
  from tensorboardX.record_writer import masked_crc32c

  found = []
  for path in sorted((workdir / 'events').iterdir()):
    content = path.read_bytes()
    while content:
      size = int.from_bytes(content[:8], 'little')
      event = content[12 : 12 + size]
      assert int.from_bytes(content[12 + size : 16 + size], 'little') == masked_crc32c(event), path
      read = event_pb2.Event.FromString(event)
      found += [(value.tag, read.step) for value in read.summary.value]
      content = content[16 + size :]
  return found


def test_it_is_stopped_twice_and_nothing_of_it_shows(unbroken, clips, command, launch, environment, tmp_path):
  workdir = tmp_path / 'w'
  of_run = command(workdir, f'data.root={clips}', 'save.every=200')
  begun = there(workdir, 'stages/audio_net/*.partial/scratch/checkpoints')
  said = told_to(TERM, begun, of_run, environment)
  step = int(re.search(rf'stopped by SIGTERM: saved audio_net/fold_0 at step (\d); {AGAIN} from there$', said)[1])
  assert steps(workdir) == [('audio_net/fold_0', number) for number in range(step)]
  before = steps(workdir)
  begun = there(workdir, 'stages/fusion/*.partial/scratch/rbm1')
  said = told_to(INT, begun, of_run, environment)
  assert re.search(rf'stopped by SIGINT: saved fusion/fold_0/rbm1 at step \d; {AGAIN} from there$', said)
  assert steps(workdir)[: len(before) + 1] == [*before, ('audio_net/fold_0', step)]
  done = subprocess.run(of_run, capture_output=True, text=True, check=False, timeout=600, env=environment)
  assert done.returncode == 0, done.stderr
  assert (workdir / 'predictions.csv').read_bytes() == (unbroken / 'predictions.csv').read_bytes()
  assert sorted(steps(workdir)) == sorted(steps(unbroken))  # none is lost, none done twice
  assert sorted(events(workdir)) == sorted(events(unbroken))


def moments(workdir: pathlib.Path) -> dict[str, When]:
  """What a run may be in the middle of, in this order."""
  stages, net = workdir / 'stages', '*.partial/scratch/checkpoints'
  return {
    'start': there(workdir, 'provenance.jsonl'),
    'prepare': there(stages, 'store/*/*.npz', 3),
    'audio_net compiles': there(stages, f'audio_net/{net}'),
    'audio_net': trained(workdir, 'audio_net/fold_1', 0),
    'visual_net': trained(workdir, 'visual_net/fold_0', 0),
    'features': there(stages, 'features/*.partial'),
    'RBM': trained(workdir, 'fusion/fold_0/rbm1', 0),
    'fine-tuning': trained(workdir, 'fusion/fold_1/finetune', 0),
    'decide': there(stages, 'decide/*/*.partial'),
    'report': there(workdir, 'report.json'),
    'page': there(workdir, 'report'),
  }


@pytest.mark.kill
@pytest.mark.parametrize('number', STATUS, ids=[number.name for number in STATUS])
def test_in_every_stage(unbroken, clips, command, environment, tmp_path, number):
  workdir = tmp_path / 'w'
  of_run = command(workdir, f'data.root={clips}', 'page=True', 'save.every=200')
  for name, when in moments(workdir).items():
    compiling = {'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'compiled')} if 'compiles' in name else {}
    told_to(number, when, of_run, {**environment, **compiling})
  done = subprocess.run(of_run, capture_output=True, text=True, check=False, timeout=600, env=environment)
  assert done.returncode == 0, done.stderr
  assert 'damaged' not in done.stderr
  assert (workdir / 'predictions.csv').read_bytes() == (unbroken / 'predictions.csv').read_bytes()
  assert sorted(steps(workdir)) == sorted(steps(unbroken))
  assert sorted(events(workdir)) == sorted(events(unbroken))
  assert (workdir / 'report' / 'index.html').exists()


@pytest.mark.kill
def test_in_fine_tuning_without_labels(clips, command, launch, environment, tmp_path):
  overrides = (f'data.root={clips}', f'cache={tmp_path / "stages"}', 'fusion.finetune.kind=autoencoder')
  workdir, other = tmp_path / 'w', tmp_path / 'other'
  begun = there(tmp_path, 'stages/fusion/*.partial/scratch/finetune')
  said = told_to(TERM, begun, command(workdir, *overrides), environment)
  assert 'saved fusion/fold_0/finetune at step' in said
  for folder in (workdir, other):
    done = launch(folder, *overrides)
    assert done.returncode == 0, done.stderr
    for stage in ('fusion', 'decide'):  # the other one makes its own
      (tmp_path / 'stages' / stage).rename(folder / stage)
  assert (workdir / 'predictions.csv').read_bytes() == (other / 'predictions.csv').read_bytes()


@pytest.mark.kill
@pytest.mark.parametrize('backend', ['threading', 'loky', 'dask'])
def test_while_workers_decode(unbroken, clips, command, launch, environment, tmp_path, backend):
  settings = (f'data.root={clips}', f'executor.backend={backend}', 'executor.workers=2')
  for number, count in ((TERM, 1), (INT, 5)):
    told_to(number, there(tmp_path, 'w/stages/store/*/*.npz', count), command(tmp_path / 'w', *settings), environment)
  if backend != 'threading':  # Ctrl-C while they start, too
    begun = there(tmp_path, 'v/stages/prepare/*.partial')
    told_to(INT, begun, command(tmp_path / 'v', *settings), environment)
  done = launch(tmp_path / 'w', *settings)
  assert done.returncode == 0 and 'damaged' not in done.stderr, done.stderr
  assert (tmp_path / 'w' / 'predictions.csv').read_bytes() == (unbroken / 'predictions.csv').read_bytes()


@pytest.fixture(scope='module')
def sweeping(clips: pathlib.Path, command: Callable[..., list[str]]) -> Callable[..., list[str]]:
  """(workdir, 'a.b=value', ...) -> the command line of a sweep of which all cells but one variant's can be done."""

  def build(workdir: pathlib.Path, *overrides: str) -> list[str]:
    built = command(workdir, f'data.root={clips}', 'page=False', 'sweep.normalise=("none",)', *overrides)
    return [part.replace('tests/tiny.py', 'tests/tiny_sweep.py') for part in built]

  return build


def results(workdir: pathlib.Path) -> dict[str, bytes]:
  """Each cell's predictions."""
  return {str(path.relative_to(workdir)): path.read_bytes() for path in workdir.glob('cells/*/*/predictions.csv')}


@pytest.mark.kill
def test_in_a_sweep(sweeping, environment, tmp_path):
  run = lambda command: subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
  whole = run(sweeping(tmp_path / 'whole'))
  assert whole.returncode == 1 and len(results(tmp_path / 'whole')) == 3, whole.stderr
  for backend in ('threading', 'loky', 'dask'):
    workdir = tmp_path / backend
    command = sweeping(workdir, f'executor.backend={backend}', 'executor.workers=2')
    told_to(TERM, there(workdir, 'stages/visual_net/*.partial/scratch/checkpoints'), command, environment)
    told_to(INT, there(workdir, 'stages/fusion/*.partial/scratch/rbm1'), command, environment)
    noted = [json.loads(line) for line in (workdir / 'provenance.jsonl').read_text().splitlines()]
    assert not [line for line in noted if line['event'] == 'cell' and line['failed'] and 'broken/' not in line['cell']]
    done = run(command)
    assert done.returncode == 1, done.stderr
    assert set(re.findall(r'^(\w+)/.*: failed: (\w+)', done.stdout, re.MULTILINE)) == {('broken', 'FloatingPointError')}
    assert results(workdir) == results(tmp_path / 'whole'), backend

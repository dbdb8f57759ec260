"""What is left of a killed training's numbers, and what a run of launch.py shows and writes down of itself."""

import gzip
import json
import pathlib
import re
import subprocess
import sys

import pytest

from tests import event_files

REPO = pathlib.Path(__file__).parents[2]
LOG_EVERY = 50


def test_a_kill_loses_at_most_one_logging_interval_of_all_files(
  tmp_path: pathlib.Path, environment: dict[str, str]
) -> None:
  command = [sys.executable, str(pathlib.Path(__file__).with_name('watched_script.py')), str(tmp_path), str(LOG_EVERY)]
  with subprocess.Popen(command, stdout=subprocess.PIPE, env={**environment, 'PYTHONPATH': str(REPO)}) as run:
    assert run.stdout
    begun = len(run.stdout.read(1017))  # so many steps have begun by now
    run.kill()
    begun += len(run.stdout.read())
  assert run.returncode == -9
  for path in (tmp_path / 'metrics.jsonl', tmp_path / 'stage' / 'metrics.jsonl'):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{'train': 'toy', 'step': step, 'loss': 1.5} for step in range(len(lines))]
    assert begun - LOG_EVERY <= len(lines) <= begun
  found = event_files.scalars(tmp_path / 'events')['toy/loss']
  assert found == [(step, 1.5) for step in range(len(found))]
  assert begun - LOG_EVERY <= len(found) <= begun


@pytest.fixture(scope='module')
def profiled(unbroken, clips, command, environment, tmp_path_factory) -> tuple[pathlib.Path, list[str]]:
  """The work directory of a run of the sound's networks alone, with traces; and the lines that it has shown."""
  workdir = tmp_path_factory.mktemp('profiled')
  overrides = [f'data.root={clips}', f'cache={unbroken}/stages', 'until=audio_net', 'nets_seed=1', 'audio.epochs=16']
  command = [*command(workdir, *overrides), '--profile']
  done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=environment)
  assert done.returncode == 0, done.stderr
  return workdir, done.stderr.splitlines()


def test_steps_11_to_20_of_the_first_fold_are_traced(profiled) -> None:
  workdir, _ = profiled
  assert [path.name for path in (workdir / 'profile').iterdir()] == ['audio_net']
  (trace,) = (workdir / 'profile').rglob('*.trace.json.gz')
  events = json.loads(gzip.decompress(trace.read_bytes()))['traceEvents']
  steps = {event['args']['step_num'] for event in events if event.get('name') == 'audio_net/fold_0'}
  assert steps == {str(number) for number in range(10, 20)}
  assert any('conv' in event.get('name', '') for event in events)  # what ran on the device
  assert list((workdir / 'profile').rglob('*.xplane.pb'))


def test_a_run_says_and_notes_where_its_time_went(profiled) -> None:
  workdir, lines = profiled
  shown = [line for line in lines if line.startswith('audio_net: 100%')]
  assert re.search(r'\d+/\d+ \[\d\d:\d\d<00:00, .*step/s, .* examples/s, \d+ MiB\]', shown[-1])
  assert re.match(
    r'time: \d+\.\d s: prepare .*, audio_net .*; trainings .* s: first steps \(compiling\) \d+%, ', lines[-1]
  )
  notes = [json.loads(line) for line in (workdir / 'provenance.jsonl').read_text().splitlines()]
  trainings = [note for note in notes if note['event'] == 'training']
  assert [note['train'] for note in trainings] == [f'audio_net/fold_{number}' for number in range(3)]
  for note in trainings:
    parts = ('first_step', 'steps', 'batches', 'metrics', 'epochs', 'checkpoints', 'other')
    assert sum(note[part] for part in parts) == pytest.approx(note['seconds'], abs=1e-3)
    assert note['epochs'] == 0 < min(note[part] for part in ('steps', 'batches', 'metrics', 'checkpoints'))
  first, *others = trainings
  assert first['first_step'] > max(note['first_step'] for note in others)  # compiled once for all folds
  (stage,) = (note for note in notes if note.get('stage') == 'audio_net')
  assert sum(note['seconds'] for note in trainings) < stage['seconds']

"""launch.py killed (SIGKILL) again and again, at random moments of every stage: what it comes to in the end is what an
unbroken run comes to, byte for byte, and nothing is left lying about."""

import contextlib
import functools
import os
import pathlib
import random
import subprocess
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from emo_jax import files

NETS = ('prepare', 'audio_net', 'visual_net', 'features')
KINDS = {  # -> overrides, and stages in their order; 'page' is what comes after the report
  'dbn': ((), (*NETS, 'fusion', 'decide', 'report')),
  'attention': (
    ('fusion.kind=attention', 'fusion.head.epochs=3', 'data.held=1', 'audio.select=held', 'fusion.head.select=held')
    + ('svm.candidates=(0.1,1)', 'page=True'),
    (*NETS, 'fusion', 'decide', 'report', 'page'),
  ),
  'frozen': (
    ('audio.trained=last', 'visual.trained=last', 'fusion.finetune.kind=autoencoder', 'fusion.finetune.epochs=4')
    + ('audio.mask_time=0', 'audio.mask_mel=0', 'audio.shift_mel=0', 'visual.flip=False', 'visual.shift=0')
    + ('audio.level=0.0', 'visual.brightness=0.0'),
    (*NETS, 'fusion', 'decide', 'report'),
  ),
  'handcrafted': (
    ('methods=("audio","visual","concat","hybrid","handcrafted","score")', 'data.held=1', 'parallel.folds=2')
    + ('fusion.finetune.select=held', 'visual.select=held', 'executor.workers=2'),
    (*NETS, 'handcrafted', 'fusion', 'decide', 'report'),
  ),
}
RUNS = [('dbn', 0), ('dbn', 1), ('dbn', 2), ('attention', 3), ('attention', 4), ('attention', 5), ('frozen', 6)]
RUNS += [('frozen', 9), ('handcrafted', 8), ('handcrafted', 23)]
STAGES_A_RUN = 5  # of which the runs of a kind hit all, by these seeds
MARK = 'EMO_JAX_KILLED_RUN'  # in the environment of a run and of all that it starts


@pytest.fixture(scope='module')
def settings(clips: pathlib.Path, unbroken: pathlib.Path) -> Callable[[str], list[str]]:
  """The overrides of a kind of run; the frozen networks start from those of the unbroken run."""
  stages = unbroken / 'stages'

  def build(kind: str) -> list[str]:
    own = [f'{half}.init={next((stages / f"{half}_net").glob("*/"))}' for half in ('audio', 'visual')]
    return [f'data.root={clips}', *KINDS[kind][0], *(own if kind == 'frozen' else ())]

  return build


@pytest.fixture(scope='module')
def reference(unbroken: pathlib.Path, settings, launch, tmp_path_factory) -> Callable[[str], pathlib.Path]:
  """The work directory of an unbroken run of a kind."""

  @functools.cache
  def of(kind: str) -> pathlib.Path:
    if kind == 'dbn':
      return unbroken
    workdir = tmp_path_factory.mktemp(kind)
    done = launch(workdir, *settings(kind))
    assert done.returncode == 0, done.stderr
    return workdir

  return of


def where(workdir: pathlib.Path, stages: tuple[str, ...], number: int) -> str:
  """The stage that the process `number` of those that this run took is in; 'start' before them all."""
  events = [event['event'] for event in files.entries(workdir / 'provenance.jsonl')]
  if events.count('start') <= number:
    return 'start'
  since = events[len(events) - events[::-1].index('start') :]
  return (*stages, 'end')[since.count('stage')]


def unfinished(workdir: pathlib.Path) -> list[str]:
  """What a killed run has left that a finished one has not."""
  lying = [
    path for path in workdir.rglob('*') if 'partial' in path.name or 'tmp' in path.name or 'scratch' in path.name
  ]
  return sorted(str(path.relative_to(workdir)) for path in lying)


def alive(mark: str) -> list[psutil.Process]:
  """What runs with this mark in its environment."""
  found = []
  for process in psutil.process_iter():
    try:
      if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
        found.append(process)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
      continue
  return found


def numbers(workdir: pathlib.Path) -> dict[tuple[str, str, int], dict[str, Any]]:
  """File, training, step -> values, of every metrics.jsonl; of a step twice the last, as report/curves.py has it."""
  return {
    (str(path.relative_to(workdir)), entry['train'], entry['step']): entry
    for path in workdir.rglob('metrics.jsonl')
    for entry in files.entries(path)
  }


def names(workdir: pathlib.Path) -> set[str]:
  """Every file and folder, but for those that are named at random: Orbax's data, TensorBoard's events."""
  paths = (path for path in workdir.rglob('*') if path.parent.name not in ('d', 'events'))
  return {str(path.relative_to(workdir)) for path in paths}


def check_equal(workdir: pathlib.Path, reference: pathlib.Path) -> None:
  """All that a run leaves is as in the reference."""
  held = ['held.csv'] if (reference / 'held.csv').exists() else []
  for name in ('predictions.csv', *held, 'report.json', 'stages.json', 'split.json', 'stages/looks.jsonl'):
    assert (workdir / name).read_bytes() == (reference / name).read_bytes(), name
  assert names(workdir) == names(reference)
  assert numbers(workdir) == numbers(reference)
  made = [(entry['stage'], entry['digest']) for entry in files.entries(workdir / 'stages' / 'executions.jsonl')]
  assert len(set(made)) == len(made)  # nothing was made twice


def sizes(workdir: pathlib.Path) -> dict[str, int]:
  """Of every file, while a run is at work on them."""
  found = {}
  for folder, _, names_there in os.walk(workdir):
    for path in (os.path.join(folder, name) for name in names_there):
      with contextlib.suppress(FileNotFoundError):
        found[path] = os.stat(path).st_size
  return found


def wait_within(
  process: subprocess.Popen[bytes],
  workdir: pathlib.Path,
  at: Callable[[], str],
  stages: tuple[str, ...],
  moments: random.Random,
) -> None:
  """Until a random moment of the first of these stages, or until that is over.

  A moment is a number of changes that are seen below the work directory, and some milliseconds: seconds alone would
  hang on who else uses the machine.
  """
  changes, seen = moments.randint(1, 8), None
  while process.poll() is None and changes and at() not in (*stages[1:], 'end'):
    if at() == stages[0]:
      now = sizes(workdir)
      changes, seen = changes - (now != seen), now
    time.sleep(0.001)
  time.sleep(moments.uniform(0, 0.05))


@pytest.mark.kill
@pytest.mark.parametrize(('kind', 'seed'), RUNS)
def test_killed_at_random_moments_of_every_stage_it_ends_in_the_same_bytes(
  kind, seed, reference, settings, command, environment, tmp_path
):
  whole, stages, moments, workdir = reference(kind), KINDS[kind][1], random.Random(seed), tmp_path / 'w'
  marked, run, hit = {**environment, MARK: str(tmp_path)}, command(workdir, *settings(kind)), []
  with open(tmp_path / 'log', 'w') as log:
    start = functools.partial(subprocess.Popen, run, stdout=log, stderr=log, env=marked)
    for number, place in enumerate(sorted(moments.sample(range(len(stages)), STAGES_A_RUN))):
      process = start()
      wait_within(process, workdir, functools.partial(where, workdir, stages, number), stages[place:], moments)
      if process.poll() is None:
        process.kill()
        hit.append(where(workdir, stages, number))
        print(f'{kind} {seed}: killed in {hit[-1]}: {", ".join(unfinished(workdir)) or "nothing unfinished"}')
      assert process.wait() in (0, -9), (tmp_path / 'log').read_text()
      assert not psutil.wait_procs(alive(str(tmp_path)), timeout=10)[1]
    assert start().wait() == 0, (tmp_path / 'log').read_text()
  assert len(hit) >= STAGES_A_RUN - 1  # the last stage may have been over before its moment had come
  check_equal(workdir, whole)

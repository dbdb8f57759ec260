"""A sweep on the tiny demo, through launch.py: shared, broken off, resumed, spread over processes."""

import collections
import json
import pathlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from emo_jax import contenders, sweep
from tests import tiny

SHARED = ('prepare', 'store', 'audio_net', 'visual_net', 'features')
NOT_FINITE = 'fusion/fold_0/rbm0: parameters became inf at step 0'
BROKEN = [f'broken/{protocol}_nets0_seed{seed}' for protocol in ('inductive', 'transductive') for seed in (0, 1)]
DONE = [
  *(f'dbn/{protocol}_nets0_seed{seed}' for protocol in ('inductive', 'transductive') for seed in (0, 1)),
  *(f'nets/{protocol}_nets0_seed0' for protocol in ('inductive', 'transductive')),
]


@pytest.fixture(scope='module')
def sweeping(command: Callable[..., list[str]], clips: pathlib.Path) -> Callable[..., list[str]]:
  """(workdir, flag or 'a.b=value', ...) -> the command line of the tiny sweep."""

  def build(workdir: pathlib.Path, *overrides: str) -> list[str]:
    built = command(workdir, f'data.root={clips}', 'svm.c=0.5', *overrides)
    return [part.replace('tests/tiny.py', 'tests/tiny_sweep.py') for part in built]

  return build


@pytest.fixture(scope='module')
def run(environment: dict[str, str]) -> Callable[[list[str]], subprocess.CompletedProcess[str]]:
  return lambda command: subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)


def files(folder: pathlib.Path) -> dict[str, int]:
  return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob('*'))}


@pytest.fixture(scope='module')
def told(tmp_path_factory, sweeping, run):
  """Its clips prepared, then the dry run: the folder, what was printed, what had been there."""
  workdir = tmp_path_factory.mktemp('sweep')
  prepared = run(sweeping(workdir, 'until=prepare'))
  assert prepared.returncode == 0, prepared.stderr
  before = files(workdir)
  dry = run([*sweeping(workdir), '--dry_run'])
  assert dry.returncode == 0, dry.stderr
  return workdir, dry.stdout, before, files(workdir)


@pytest.fixture(scope='module')
def finished(told, sweeping, run):
  """The sweep, unbroken."""
  workdir = told[0]
  return workdir, run(sweeping(workdir))


def executions(cache: pathlib.Path) -> collections.Counter[str]:
  lines = [json.loads(line) for line in (cache / 'executions.jsonl').read_text().splitlines()]
  assert len({(line['stage'], line['digest']) for line in lines}) == len(lines)  # none was made twice
  return collections.Counter(line['stage'].split('/')[0] for line in lines)


def test_a_dry_run_tells_of_the_grid_and_writes_nothing(told):
  _, printed, before, after = told
  assert before == after
  assert printed.startswith('10 cells\n')
  assert re.search(r'dbn +transductive, network seeds 0, fusion seeds 0 1: hybrid', printed)
  assert re.search(r'nets +inductive, network seeds 0, fusion seeds 0: audio, visual, concat, mean', printed)
  assert re.search(r'^prepare +0 +1 +0$', printed, re.MULTILINE)
  assert 'never made in this cache' in printed


def test_stages_that_cells_share_are_made_once_and_as_many_as_the_dry_run_said(told, finished):
  made = executions(finished[0] / 'stages')
  folds = 3
  fusion, decide = 2 * folds, 2 * (4 + 2) * folds  # 2 seeds; 2 protocols, 4 contenders, and one with 2 seeds
  nets = {stage: folds for stage in ('audio_net', 'visual_net', 'features')}
  assert made == {'prepare': 1, **nets, 'fusion': fusion, 'decide': decide}
  broken = {'fusion': 2 * folds, 'decide': 2 * 2 * folds}  # were to be made as well
  told_of = dict(re.findall(r'^(\w+) +(\d+) +\d+ +[\d?]+$', told[1], re.MULTILINE))
  assert told_of == {name: str(made[name] + broken.get(name, 0)) for name in made} | {'prepare': '0'}


def test_a_variant_that_fails_is_named_and_the_others_go_on(finished):
  workdir, done = finished
  assert done.returncode == 1
  for name in BROKEN:
    assert re.search(rf'^{name}: failed: {NOT_FINITE}', done.stdout, re.MULTILINE)
    assert re.search(rf'^failed: {name}: {NOT_FINITE}', done.stderr, re.MULTILINE)
    assert re.search(rf'^failed: {NOT_FINITE}', (workdir / 'cells' / name / 'log.txt').read_text(), re.MULTILINE)
  for name in DONE:
    assert re.search(rf'^{name}: \d+\.\d s$', done.stdout, re.MULTILINE)
  assert 'Traceback' not in done.stdout + done.stderr


def test_the_page_and_the_comparison_hold_all_that_is_done(finished):
  report = finished[0] / 'report'
  comparison = json.loads((report / 'comparison.json').read_text())
  for protocol in ('inductive', 'transductive'):
    found = comparison['protocols'][protocol]
    assert {row['name'] for row in found['rows']} == {'audio', 'visual', 'concat', 'mean', 'dbn'}
    assert [contrast['row'] for contrast in found['contrasts']] == ['dbn'] * 3
    (dbn,) = (row for row in found['rows'] if row['name'] == 'dbn')
    assert dbn['runs'] == [[0, 0], [0, 1]]
    cells = [finished[0] / 'cells' / name for name in DONE if name.startswith(f'dbn/{protocol}')]
    accuracies = [json.loads((cell / 'report.json').read_text())['methods']['hybrid']['accuracy'] for cell in cells]
    assert dbn['accuracy_runs'] == pytest.approx(accuracies)
  page = (report / 'index.html').read_text()
  assert BROKEN[0] in page and 'tiny_sweep.py' in page and 'http://' not in page.replace('http://www.w3.org', '')


def test_overrides_of_the_command_line_reach_every_cell(finished):
  for name in (*DONE, *BROKEN):
    assert json.loads((finished[0] / 'cells' / name / 'config.json').read_text())['svm']['c'] == 0.5


def same_numbers(workdir: pathlib.Path, finished: pathlib.Path) -> None:
  for name in DONE:
    for file in ('predictions.csv', 'held.csv'):
      assert (workdir / 'cells' / name / file).read_bytes() == (finished / 'cells' / name / file).read_bytes(), name
  one, other = (json.loads((w / 'report' / 'comparison.json').read_text()) for w in (workdir, finished))
  assert one['protocols'] == other['protocols']


def with_networks(finished: pathlib.Path, workdir: pathlib.Path) -> None:
  """A work directory whose cache has what comes before fusion."""
  for stage in SHARED:
    shutil.copytree(finished / 'stages' / stage, workdir / 'stages' / stage)


@pytest.mark.kill
def test_killed_and_resumed_in_processes_it_gives_the_same_numbers(finished, sweeping, environment, run, tmp_path):
  with_networks(finished[0], tmp_path / 'w')
  command = sweeping(tmp_path / 'w', 'executor.backend=loky', 'executor.workers=2')
  with open(tmp_path / 'log', 'w') as log:
    broken_off = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    done = lambda: {path.parent for path in (tmp_path / 'w').glob('cells/*/*/done')}
    while broken_off.poll() is None and len(done()) < 2:
      time.sleep(0.01)
    broken_off.send_signal(signal.SIGKILL)
    assert broken_off.wait() == -signal.SIGKILL, (tmp_path / 'log').read_text()
  before = done()
  assert 2 <= len(before) < len(DONE)
  resumed = run(command)
  assert resumed.returncode == 1, resumed.stderr
  skipped = int(re.search(r'^(\d+) of 10 cells are done already$', resumed.stdout, re.MULTILINE)[1])
  assert len(before) <= skipped < len(DONE)  # a worker may have ended its cell after its parent was killed
  for cell in before:
    assert f'{cell.parent.name}/{cell.name}: ' not in resumed.stdout
  same_numbers(tmp_path / 'w', finished[0])
  assert set(executions(tmp_path / 'w' / 'stages')) == {'fusion', 'decide'}


@pytest.mark.slow
def test_on_dask_it_gives_the_same_numbers(finished, sweeping, run, tmp_path):
  pytest.importorskip('distributed')
  with_networks(finished[0], tmp_path)
  done = run(sweeping(tmp_path, 'executor.backend=dask', 'executor.workers=2'))
  assert done.returncode == 1, done.stderr
  assert all(f'{name}: failed: {NOT_FINITE}' in done.stdout for name in BROKEN)
  same_numbers(tmp_path, finished[0])


def test_a_dry_run_tells_of_a_single_experiment_as_well(clips, tmp_path, capsys):
  config = tiny.get_config()
  config.data.root = str(clips)
  assert sweep.run(config, str(tmp_path / 'w'), dry_run=True) == 0
  printed = capsys.readouterr().out
  assert printed.startswith('1 cell\n  experiment  inductive, network seeds 0, fusion seeds 0: audio, visual,')
  assert 'the clips are not prepared' in printed
  assert not list(tmp_path.iterdir())


def test_a_dry_run_makes_nothing_for_any_contender(told, clips, tmp_path, capsys):
  config = tiny.get_config()
  config.data.root, config.cache = str(clips), str(told[0] / 'stages')
  config.methods = tuple(contenders.CONTENDERS)
  before = files(told[0])
  assert sweep.run(config, str(tmp_path / 'w'), dry_run=True) == 0
  assert re.search(r'^handcrafted +1 +0 +\?$', capsys.readouterr().out, re.MULTILINE)
  assert files(told[0]) == before and not list(tmp_path.iterdir())

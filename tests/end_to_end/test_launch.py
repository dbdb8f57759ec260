"""launch.py on the tiny demo, from media files to the report."""

import csv
import json
import pathlib
import shutil

import numpy as np
import pytest

METHODS = ['audio', 'visual', 'concat', 'hybrid']
STAGES = ['prepare', 'audio_net', 'visual_net', 'features', 'fusion', 'decide']


@pytest.fixture(scope='module')
def finished(tmp_path_factory, unbroken, clips, launch):
  """An unbroken run, and its page."""
  workdir = shutil.copytree(unbroken, tmp_path_factory.mktemp('finished') / 'w')
  done = launch(workdir, f'data.root={clips}', 'page=True')
  assert done.returncode == 0, done.stderr
  return workdir, done.stdout


def _files(folder: pathlib.Path) -> dict[str, int]:
  return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob('*')) if path.is_file()}


def test_a_run_leaves_all_that_the_contract_names(finished):
  workdir, printed = finished
  report = json.loads((workdir / 'report.json').read_text())
  assert report['classes'] == ['anger', 'contentment', 'happiness', 'sadness']
  assert (report['clips'], report['speakers'], report['protocol'], report['leaks_allowed']) == (
    12,
    3,
    'inductive',
    False,
  )
  assert list(report['methods']) == METHODS
  for name, method in report['methods'].items():
    assert name in printed
    confusion = method['confusion']
    assert sum(map(sum, confusion)) == 12
    assert [sum(row) for row in confusion] == [3, 3, 3, 3]  # rows are the truth
    assert method['accuracy'] == sum(confusion[i][i] for i in range(4)) / 12
    assert [fold['test_speakers'] for fold in method['per_fold']] == [['s01'], ['s02'], ['s03']]
    assert sum(fold['clips'] * fold['accuracy'] for fold in method['per_fold']) == pytest.approx(
      12 * method['accuracy']
    )
    assert (workdir / f'confusion_{name}.png').stat().st_size > 1000
  split = json.loads((workdir / 'split.json').read_text())
  assert split['digest'] == report['split_digest']
  for name in ('config.json', 'provenance.jsonl', 'metrics.jsonl', 'rejected.csv', 'report.md', 'faces.png'):
    assert (workdir / name).stat().st_size > 0
  assert list((workdir / 'events').iterdir())
  page = (workdir / 'report' / 'index.html').read_text()
  for words in ('hybrid is ', 'against concat', 'data:image/png', 'audio_net', 'Does fusion forget the speaker?'):
    assert words in page
  trained = {json.loads(line)['train'] for line in (workdir / 'metrics.jsonl').read_text().splitlines()}
  rbms = [f'/rbm{layer}{part}' for layer in range(2) for part in ('', '/monitor')]
  assert trained == {
    f'{stage}/fold_{fold}{part}'
    for fold in range(3)
    for stage, parts in (('audio_net', ['']), ('visual_net', ['']), ('fusion', [*rbms, '/finetune']))
    for part in parts
  }


def test_predictions_agree_with_the_report(finished):
  workdir, _ = finished
  report = json.loads((workdir / 'report.json').read_text())
  with open(workdir / 'predictions.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert len({row['clip'] for row in rows}) == len(rows) == 12
  for method in METHODS:
    right = 0
    for row in rows:
      scores = {emotion: float(row[f'{method}:{emotion}']) for emotion in report['classes']}
      assert row[method] == max(scores, key=scores.get)
      right += row[method] == row['truth']
    assert right / 12 == report['methods'][method]['accuracy']


def test_the_same_command_again_computes_nothing(finished, clips, launch):
  workdir, _ = finished
  before, predictions = _files(workdir / 'stages'), (workdir / 'predictions.csv').read_bytes()
  lines, pages = (workdir / 'metrics.jsonl').read_text(), _files(workdir / 'report')
  done = launch(workdir, f'data.root={clips}', 'page=True')
  assert done.returncode == 0, done.stderr
  assert _files(workdir / 'stages') == before
  assert (workdir / 'metrics.jsonl').read_text() == lines
  assert (workdir / 'predictions.csv').read_bytes() == predictions
  assert _files(workdir / 'report') == pages


def test_another_seed_shares_the_networks_in_a_cache(finished, clips, launch, tmp_path):
  workdir, _ = finished
  cache = workdir / 'stages'
  count = lambda stage: sum(1 for _ in (cache / stage).rglob('key.json'))
  before = {stage: count(stage) for stage in STAGES}
  done = launch(tmp_path, f'data.root={clips}', 'seed=1', 'nets_seed=0', f'cache={cache}')
  assert done.returncode == 0, done.stderr
  made = {stage: count(stage) - before[stage] for stage in STAGES}
  assert made == {'prepare': 0, 'audio_net': 0, 'visual_net': 0, 'features': 0, 'fusion': 3, 'decide': 3}
  assert json.loads((tmp_path / 'report.json').read_text())['configurations_judged_on_test'] == 1  # seeds apart


def test_pooling_penalty_and_protocol_are_values_of_the_config(finished, clips, launch, tmp_path):
  for name in ('prepare', 'store'):  # a cache of its own otherwise: it counts looks
    shutil.copytree(finished[0] / 'stages' / name, tmp_path / 'stages' / name)
  settings = ('pool=pyramid', 'normalise=speaker', 'data.held=1', 'svm.candidates=(0.01,0.1,1)')
  done = launch(tmp_path, f'data.root={clips}', *settings)
  assert done.returncode == 0, done.stderr
  assert 'transductive' in done.stdout.splitlines()[0] and 'must not be ranked together' in done.stdout
  report = json.loads((tmp_path / 'report.json').read_text())
  assert report['protocol'] == 'transductive' and report['svm_candidates'] == [0.01, 0.1, 1]
  with open(tmp_path / 'predictions.csv', newline='') as file:
    assert {row['protocol'] for row in csv.DictReader(file)} == {'transductive'}
  for method in METHODS:
    for fold in report['methods'][method]['per_fold']:
      assert fold['c'] in (0.01, 0.1, 1)
    for path in (tmp_path / 'stages' / 'decide' / method).glob(f'*/{method}_svm.npz'):
      with np.load(path, allow_pickle=False) as machine:
        assert len(machine['low']) == 7 * {'audio': 128, 'visual': 64, 'concat': 192, 'hybrid': 8}[method]


def test_another_config_in_the_same_workdir_is_refused(finished, clips, launch):
  workdir, _ = finished
  done = launch(workdir, f'data.root={clips}', 'svm.c=2.0')
  assert done.returncode == 1
  assert 'svm.c (1.0 there, 2.0 now)' in done.stderr
  assert 'Traceback' not in done.stderr


@pytest.mark.parametrize(
  ('override', 'message'),
  [
    ('until=nowhere', 'use prepare or audio_net or'),
    ('data.judge=held', 'set config.data.held=1'),
    ('data.rule=groups:9', 'only 3 speakers'),
    ('data.corpus=nobodys', 'use rml or enterface05 or'),
    ('audio.norm=batch', 'use none or group'),
    ('audio.size=32', 'at least 63 pixels'),
    ('pool=median', "config.pool='median'"),
    ('normalise=clip', 'use none or speaker'),
    ('svm.c=0.0', 'a penalty is a number above 0'),
    ('data.held=1 svm.candidates=(0.1,-1)', '-1 in c or candidates'),
    ('data.held=0 svm.candidates=(0.1,1)', 'config.svm.candidates: a fold holds nobody; set config.data.held=1'),
    ('data.held=1 data.judge=held svm.candidates=(0.1,1)', 'the very clips that are then scored'),
    ('data.held=5', 'use 0 or 1'),
    ('visual.scaling=fix', 'use fixed, segment, clip or published'),
    ('fusion.finetune.optim.schedule=linear', 'use constant or cosine'),
    ('fusion.units=()', 'at least one layer'),
    ('save.every=0', 'at least 1'),
    ('audio.mask_time=65', 'use 0 to 64'),
  ],
)
def test_an_impossible_config_is_refused_in_a_sentence(clips, launch, tmp_path, override, message):
  root = [] if override.startswith('data.corpus') else [f'data.root={clips}']
  done = launch(tmp_path, *root, *override.split())
  assert done.returncode == 1
  assert message in done.stderr
  assert 'Traceback' not in done.stderr
  assert not list(tmp_path.iterdir())  # nor does a refused config claim the work directory

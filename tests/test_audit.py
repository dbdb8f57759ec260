"""The audit, as a user runs it: a planted leak of each kind is found with exit status 1, and only that one."""

import csv
import itertools
import json
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from scipy.io import wavfile

from emo_jax import audit, fitted
from emo_jax.context import Experiment, Unusable
from emo_jax.corpora import lists
from emo_jax.evaluation import svm
from emo_jax.finished import open_experiment, reopen
from emo_jax.frontend import media
from emo_jax.models import dbn
from emo_jax.steps import decide, networks, start
from emo_jax.training import checkpoint
from tests.tiny import get_config

REPO = pathlib.Path(__file__).parents[1]
SPLIT = {'speakers', 'same bytes', 'same sound', 'sentences', 'balance'}
FITTED = {f'{modality} {what}' for modality in ('audio', 'visual') for what in ('net', 'statistics', 'scaler')}
FITTED |= {'fusion scaler', 'concat scaler', 'hybrid scaler'}
FITTED |= {f'{method} svm' for method in ('audio', 'visual', 'concat', 'hybrid')}
CREMAD = r'(?P<speaker>\d{4})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})'


@pytest.fixture(scope='module')
def python(environment: dict[str, str], strict: list[str]) -> Callable[..., subprocess.CompletedProcess[str]]:
  """Runs Python in the repository's root."""

  def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *strict, *arguments]
    return subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False, timeout=600)

  return run


@pytest.fixture(scope='module')
def finished(tmp_path_factory: pytest.TempPathFactory, unbroken: pathlib.Path) -> pathlib.Path:
  """The work directory of a tiny experiment."""
  return shutil.copytree(unbroken, tmp_path_factory.mktemp('finished') / 'w')


def verdicts(printed: str) -> dict[str, str]:
  """check -> verdict."""
  return {m[2]: m[1] for m in re.finditer(r'^(OK|WARNED|LEAK|SKIPPED) +([a-z ]+):', printed, re.MULTILINE)}


def leaking(done: subprocess.CompletedProcess[str]) -> set[str]:
  """The checks that found a leak; the exit status and the last line say the same."""
  assert done.returncode in (0, 1), done.stderr
  found = {check for check, verdict in verdicts(done.stdout).items() if verdict == 'LEAK'}
  last = done.stdout.splitlines()[-1]
  assert done.returncode == bool(found)
  checks = '1 check' if len(found) == 1 else f'{len(found)} checks'
  assert last.startswith(f'{checks} found a LEAK') if found else last == 'No leak.'
  return found


def test_the_projects_own_split_passes(clips: pathlib.Path, python: Any) -> None:
  done = python('-m', 'emo_jax.audit', '--config=tests/tiny.py', f'--config.data.root={clips}')
  assert leaking(done) == set()
  assert done.stdout.startswith('Audit of demo, rule loso: 12 clips, 3 speakers, 3 folds\n')
  assert verdicts(done.stdout) == {**dict.fromkeys(SPLIT, 'OK'), 'sentences': 'WARNED'}


def test_a_finished_experiment_passes(finished: pathlib.Path, python: Any) -> None:
  done = python('-m', 'emo_jax.audit', f'--workdir={finished}')
  assert leaking(done) == set()
  assert verdicts(done.stdout) == {**dict.fromkeys(SPLIT | FITTED, 'OK'), 'sentences': 'WARNED'}


def _plant(x: Experiment) -> None:
  """Statistics, scalers and an SVM fitted to the test clips as well, in the first fold; a net trained on another's."""
  fold, everybody = x.folds[0], ('train', 'held', 'test')
  for modality in ('audio', 'visual'):
    folder, rows = x.made[f'{modality}_net'][0] / 'network', x.rows(fold, (modality,), *everybody)
    tree = checkpoint.load(folder, start.variables_like(x, modality))
    tree['statistics'] = start.statistics(x, modality, start.reader(x, modality, x.segments.take(rows)), len(rows))
    checkpoint.save(folder, tree)
  for number, other in enumerate(x.folds):  # the ends of all features together: only some test clips reach beyond
    rows = x.rows(other, ('audio', 'visual'), *everybody)
    features = [networks.load_features(x, number, rows, modality) for modality in ('audio', 'visual')]
    scaler: Any = dbn.fit_scaler(features, kind=x.config.fusion.scaling)
    np.savez(x.made['fusion'][number] / 'scaler.npz', **scaler)
  path = x.made['decide/audio'][0] / 'audio_svm.npz'
  pooled, _ = decide.method_features(x, 0, 'audio')
  machine: Any = {**np.load(path), 'low': pooled.min(0), 'spread': np.ptp(pooled, axis=0)}
  np.savez(path, **machine)
  path = x.made['decide/hybrid'][0] / 'hybrid_svm.npz'  # its scaler is as it should be
  pooled, of = decide.method_features(x, 0, 'hybrid')
  everything = svm.fit(pooled, np.array([x.classes.index(x.clips[clip].emotion) for clip in of]), c=1.0, classes=4)
  np.savez(path, **{**np.load(path), 'coefficients': everything['coefficients']})
  path = x.made['visual_net'][0] / 'key.json'
  key, of_other = (json.loads((folder / 'key.json').read_text()) for folder in x.made['visual_net'][:2])
  path.write_text(json.dumps({**key, 'clips': of_other['clips']}))


def test_what_was_fitted_to_test_clips_is_found(finished: pathlib.Path, python: Any, tmp_path: pathlib.Path) -> None:
  workdir = shutil.copytree(finished, tmp_path / 'w')
  x = open_experiment(None, str(workdir))
  reopen(x)
  _plant(x)
  done = python('-m', 'emo_jax.audit', f'--workdir={workdir}')
  wanted = {'audio statistics', 'visual statistics', 'visual net', 'fusion scaler', 'audio scaler', 'hybrid svm'}
  assert leaking(done) == wanted
  told = done.stdout.splitlines()
  for check in leaking(done) - {'fusion scaler'}:  # in the first fold, and there alone
    at = next(number for number, line in enumerate(told) if line.startswith(f'LEAK    {check}:'))
    examples = list(itertools.takewhile(lambda line: line.startswith('  '), told[at + 1 :]))
    assert examples and all('fold 0' in line for line in examples), check
  assert 's01/anger_01 (test) as train, fold 0' in done.stdout


def test_a_speaker_moved_in_the_recorded_split_is_found(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
  """What counts is the split that was recorded: on another one, the same networks have been trained on test clips."""
  workdir = shutil.copytree(finished, tmp_path / 'w')
  x = open_experiment(None, str(workdir))
  assert [fold.test for fold in x.folds] == [('s01',), ('s02',), ('s03',)]
  reopen(x)
  x.folds = [x.folds[1], *x.folds[1:]]
  assert {finding.check for finding in fitted.findings(x) if finding.verdict == 'LEAK'} >= {'audio net', 'visual net'}


def test_an_experiment_runs_again_on_its_recorded_split(
  finished: pathlib.Path, clips: pathlib.Path, python: Any, tmp_path: pathlib.Path
) -> None:
  wanted = ['data.rule=file', f'data.split={finished}/split.json', f'data.root={clips}', f'cache={finished}/stages']
  made = lambda: sorted(str(path) for path in finished.glob('stages/*/*') if path.parent.name != 'store')
  before = made()
  done = python('launch.py', '--config=tests/tiny.py', f'--workdir={tmp_path}', *(f'--config.{w}' for w in wanted))
  assert done.returncode == 0, done.stderr
  assert made() == before  # nothing is computed again
  for name in ('split.json', 'stages.json', 'predictions.csv'):
    assert (tmp_path / name).read_bytes() == (finished / name).read_bytes(), name
  digest = json.loads((tmp_path / 'split.json').read_text())['digest']
  assert json.loads((tmp_path / 'report.json').read_text())['split_digest'] == digest


def _write(path: pathlib.Path, rows: Iterable[Iterable[str]]) -> str:
  with open(path, 'w', newline='') as file:
    csv.writer(file).writerows(rows)
  return str(path)


def _planted(kind: str, clips: pathlib.Path, folder: pathlib.Path) -> list[str]:
  """Rows of a test list: speaker s02's films, and one that should not be there."""
  film, other = clips / 's01' / 'anger_01.mp4', clips / 's01' / 'sadness_01.mp4'
  rows = [[str(path), 's02', path.stem.split('_')[0], '1'] for path in sorted((clips / 's02').glob('*.mp4'))]
  if kind == 'bytes':
    rows.append([shutil.copy(film, folder / 'another.mp4'), 's02', 'anger', '1'])
  elif kind == 'sound':
    wave = np.concatenate([*media.sound(str(film))])
    wavfile.write(folder / 'another.wav', 44100, (wave * 2**14).astype(np.int16))
    rows.append([str(folder / 'another.wav'), 's02', 'anger', '1'])
  elif kind == 'name':
    rows.append([str(film), 's02', 'anger', '1'])
  elif kind == 'speaker':
    rows.append([str(other), 's01', 'sadness', '1'])
  return rows


@pytest.mark.parametrize(
  ('kind', 'found'),
  [
    ('nothing', set()),
    ('speaker', {'speakers'}),
    ('bytes', {'same bytes', 'same sound'}),
    ('sound', {'same sound'}),
    ('name', {'same name', 'same bytes', 'same sound'}),
  ],
)
def test_a_leak_between_lists_is_found(
  clips: pathlib.Path, python: Any, tmp_path: pathlib.Path, kind: str, found: set[str]
) -> None:
  header = ['path', 'speaker', 'emotion', 'sentence']
  films = [path for path in sorted((clips / 's01').glob('*.mp4')) if path.stem != 'sadness_01']
  train = _write(tmp_path / 'train.csv', [header, *([str(p), 's01', p.stem.split('_')[0], '1'] for p in films)])
  test = _write(tmp_path / 'test.csv', [header, *_planted(kind, clips, tmp_path)])
  held = _write(tmp_path / 'held.csv', [header, [str(clips / 's03' / 'anger_01.mp4'), 's03', 'anger', '1']])
  done = python('-m', 'emo_jax.audit', f'--train={train}', f'--test={test}', f'--held={held}')
  assert leaking(done) == found
  if kind in ('bytes', 'sound', 'name'):
    assert re.search(rf'anger_01\.mp4 \(train\) and .*{"anger_01" if kind == "name" else "another"}', done.stdout)
  if kind == 'speaker':
    assert 'speaker s01' in done.stdout


def test_published_lists_without_a_header_or_media_are_audited(python: Any, tmp_path: pathlib.Path) -> None:
  train = _write(tmp_path / 'train.csv', [['1001_DFA_ANG_XX', 'ANG'], ['1002_IEO_HAP_LO', 'HAP']])
  test = _write(tmp_path / 'test.csv', [['1003_DFA_ANG_XX', 'ANG'], ['1002_DFA_HAP_XX', 'HAP']])
  done = python('-m', 'emo_jax.audit', f'--train={train}', f'--test={test}', f'--name={CREMAD}')
  assert leaking(done) == {'speakers'}
  assert 'speaker 1002: 1002_IEO_HAP_LO (train) and 1002_DFA_HAP_XX (test), fold 0' in done.stdout
  found = verdicts(done.stdout)
  assert (found['same bytes'], found['same sound'], found['sentences']) == ('SKIPPED', 'SKIPPED', 'WARNED')
  assert '2 of 2 test clips say a sentence of the training clips' in done.stdout


@pytest.mark.parametrize('rule', ['fixed', 'groups'])
def test_a_leaking_config_is_found_before_anything_is_prepared(
  clips: pathlib.Path, python: Any, tmp_path: pathlib.Path, rule: str
) -> None:
  rows = []
  for number, path in enumerate(sorted(clips.glob('*/*.mp4'))):
    side = 'test' if number == 0 or path.parent.name == 's03' else 'train'  # s01 is on both
    rows.append([str(path), path.parent.name, path.stem.split('_')[0], side, side])
  table = _write(tmp_path / 'clips.csv', [['path', 'speaker', 'emotion', 'split', 'group'], *rows])
  wanted = ['data.corpus=manifest', f'data.root={table}', f'data.rule={rule}', 'data.held=0']
  done = python('-m', 'emo_jax.audit', '--config=tests/tiny.py', *(f'--config.{w}' for w in wanted))
  assert leaking(done) == {'speakers'}
  assert 's01' in done.stdout and 's02:' not in done.stdout


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([], 'say what to audit'),
    (['--train={list}'], 'say what to audit'),
    (['--train={list}', '--test={list}', '--config=tests/tiny.py'], 'say what to audit'),
    (['--config=configs/nowhere.py'], 'configs/nowhere.py'),
    (['--config=tests/tiny.py', '--config.data.nix=1'], 'nix'),
    (['--config=tests/tiny.py', '--config.data.root={clips}', '--config.data.rule=groups:9'], 'only 3 speakers'),
    (['--config={broken}'], "name 'nix' is not defined"),
    (['--train={list}', '--test=/nowhere.csv'], 'No such file'),
    (['--train={list}', '--test={list}', '--root=/nowhere'], '--root=/nowhere: no such folder'),
    (['--train={list}', '--test={list}', '--root={clips}'], 'no file of the 2 clips can be read, the first {clips}/a'),
    (['--workdir={clips}'], 'is no work directory of this experiment'),
  ],
)
def test_bad_input_ends_with_status_2_and_a_sentence(
  clips: pathlib.Path, python: Any, tmp_path: pathlib.Path, arguments: list[str], message: str
) -> None:
  names = {'list': _write(tmp_path / 'list.csv', [['path', 'speaker'], ['a', 's']]), 'clips': clips}
  names['broken'] = tmp_path / 'broken.py'
  names['broken'].write_text('def get_config():\n  return nix\n')
  done = python('-m', 'emo_jax.audit', *(part.format(**names) for part in arguments))
  assert done.returncode == 2
  assert 'audit: ' in done.stderr and message.format(**names) in done.stderr and 'Traceback' not in done.stderr
  assert not done.stdout


def test_a_fault_of_the_audits_own_is_no_leak(
  monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
  def fail(argv: list[str]) -> int:
    raise RuntimeError('unforeseen')

  monkeypatch.setattr(audit, '_main', fail)
  assert audit.main([]) == 3
  assert 'RuntimeError: unforeseen' in capsys.readouterr().err


@pytest.fixture
def changed(finished: pathlib.Path, tmp_path: pathlib.Path) -> Callable[..., str]:
  """Copies the finished work directory with other fields of its config."""

  def copy(**fields: Any) -> str:
    workdir = shutil.copytree(finished, tmp_path / 'w')
    config = json.loads((workdir / 'config.json').read_text())
    config['cache'] = fields.pop('cache', None)
    config['data'] |= fields
    (workdir / 'config.json').write_text(json.dumps(config))
    return str(workdir)

  return copy


def test_the_recorded_split_stands_for_the_file_that_was_asked_for(changed: Callable[..., str]) -> None:
  x = open_experiment(None, changed(rule='file', split='/gone/split.json'))
  assert [fold.test for fold in x.folds] == [('s01',), ('s02',), ('s03',)]
  assert (x.config.data.split, x.split['rule']) == ('/gone/split.json', 'loso')


@pytest.mark.parametrize('root', ['far/clips', '{empty}/clips'])
def test_films_are_not_made_to_be_audited(changed: Callable[..., str], tmp_path: pathlib.Path, root: str) -> None:
  root = root.format(empty=tmp_path)
  with pytest.raises(Unusable, match=f'{root} holds 0 of the 12 films of the demo corpus') as raised:
    audit.audit_experiment(None, changed(root=root))
  assert ('is relative to the folder of that run' in str(raised.value)) == (root == 'far/clips')
  assert not pathlib.Path(root).exists()


def test_a_relative_cache_is_named(changed: Callable[..., str]) -> None:
  x = open_experiment(None, changed(cache='far/stages'))
  with pytest.raises(Unusable, match=r'/far/stages/.* is gone; config\.cache=far/stages is relative'):
    reopen(x)


@pytest.mark.parametrize(
  ('file', 'text', 'message'),
  [
    ('config.json', '[]', 'no work directory of this experiment: config.json holds no object'),
    ('config.json', '{}', 'made by another version of this project'),
    ('config.json', '{"data": {"allow_leaks": false, "rule": "loso"}}', 'made by another version of this project'),
    ('stages.json', '{"prepare": []}', 'stages.json has 0 folders of prepare'),
    ('stages.json', '{}', "holds no finished experiment (KeyError: 'prepare')"),
    ('stages.json', '[]', 'holds no finished experiment (AttributeError'),
    ('stages.json', '{"prepare": ["p"], "fusion": ["a", "b"]}', ': run the experiment again, to its end'),
  ],
)
def test_a_damaged_or_old_work_directory_is_refused(
  finished: pathlib.Path, tmp_path: pathlib.Path, file: str, text: str, message: str
) -> None:
  workdir = shutil.copytree(finished, tmp_path / 'w')
  (workdir / file).write_text(text)
  with pytest.raises(Unusable, match=re.escape(message)):
    audit.audit_experiment(None, str(workdir))


def test_a_stage_that_was_deleted_has_to_be_made_again(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
  workdir = shutil.copytree(finished, tmp_path / 'w')
  x = open_experiment(None, str(workdir))
  reopen(x)
  stages = json.loads((workdir / 'stages.json').read_text())
  (workdir / 'stages.json').write_text(json.dumps({**stages, 'fusion': stages['fusion'][:2]}))
  with pytest.raises(Unusable, match=r'stages\.json has 2 folders of fusion'):
    reopen(x)
  (workdir / 'stages.json').write_text(json.dumps(stages))
  gone = x.made['visual_net'][1]
  shutil.rmtree(gone)
  with pytest.raises(Unusable, match=f'{gone} is gone.*: run the experiment again'):
    reopen(x)


def test_an_unfinished_or_foreign_work_directory_is_refused(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
  workdir = shutil.copytree(finished, tmp_path / 'w')
  x = open_experiment(None, str(workdir))
  (workdir / 'stages.json').unlink()
  with pytest.raises(Unusable, match=r'no finished experiment .*stages\.json.*run the experiment again, to its end'):
    reopen(x)
  config = get_config()
  config.data.root = x.config.data.root
  config.svm.c = 3.0
  with pytest.raises(Unusable, match=r'different: svm\.c'):
    open_experiment(config, str(workdir))
  split = json.loads((workdir / 'split.json').read_text())
  (workdir / 'split.json').write_text(json.dumps({**split, 'rule': 'fixed'}))
  with pytest.raises(Unusable, match='not as it was written'):
    open_experiment(None, str(workdir))


@pytest.mark.parametrize(
  ('text', 'name', 'message'),
  [
    ('', None, 'lists no clip'),
    ('path,speaker\n', None, 'lists no clip'),
    ('path,speaker\n,\n', '(?P<speaker>.)', 'lists no clip'),
    ('a.mp4,s1\n', None, "its first line, 'a.mp4,s1', names no column path; for a bare list say by --name=REGEX"),
    (
      'path,emotion\na.mp4,joy\n',
      None,
      "1 of 1 rows lack columns path and speaker, the first {'emotion': 'joy', 'path'",
    ),
    ('path,speaker\na.mp4,s1\nb.mp4\n', None, "1 of 2 rows lack columns path and speaker, the first {'path': 'b.mp4'}"),
    ('speaker,path\ns1\ns2,.\n', None, "1 of 2 rows lack columns path and speaker, the first {'speaker': 's1'"),
    ('path,speaker\na.mp4, \n', None, '1 of 1 rows lack columns path and speaker'),
    ('a.mp4\n', '(?P<speaker>', 'no regular expression'),
    ('a.wav\n', r'(?P<speaker>\d+)', "finds a group \"speaker\", the first {'path': 'a.wav'}"),
    ('1.mp4\n', r'(?P<who>\d+)', 'finds a group "speaker"'),
  ],
)
def test_a_list_that_does_not_say_who_speaks_is_refused(
  tmp_path: pathlib.Path, text: str, name: str | None, message: str
) -> None:
  (tmp_path / 'list.csv').write_text(text)
  with pytest.raises(Unusable, match=re.escape(message)):
    lists.read(str(tmp_path / 'list.csv'), 'train', name=name, root=None)


JSONL = '{"key": "1_x", "wav": "a/1_joy.wav", "label": "joy"}\n\n{"KEY": "2_y", "speaker": 2, "emotion": null}\n'


@pytest.mark.parametrize(
  ('ending', 'text', 'name', 'found'),
  [
    ('csv', 'path,speaker,emotion\n a.wav , s1 ,joy \n', None, [('a.wav ', 's1', 'joy')]),
    ('csv', 'Emotion;Path ;SPEAKER\njoy;"a, b, c.wav";s1\n', None, [('a, b, c.wav', 's1', 'joy')]),
    ('tsv', 'path\tspeaker\na, b.wav\ts1\n', None, [('a, b.wav', 's1', '')]),
    ('txt', '"1,_,_.wav"\tjoy\n\n2_b.wav\tfear\n', r'(?P<speaker>\d)', [('1,_,_.wav', '1', ''), ('2_b.wav', '2', '')]),
    ('csv', 'path,label\n1_x.wav,joy\n', r'(?P<speaker>\d)_(?P<emotion>.)', [('1_x.wav', '1', 'joy')]),
    (
      'csv',
      'path,speaker\n1_x.wav,ann\nb.wav,bob\n',
      r'(?P<speaker>\d)_(?P<emotion>.)',
      [('1_x.wav', 'ann', 'x'), ('b.wav', 'bob', '')],
    ),
    ('jsonl', JSONL, r'(?P<speaker>\d)_', [('a/1_joy.wav', '1', 'joy'), ('2_y', '2', '')]),
  ],
)
def test_lists_are_read_as_they_are_published(
  tmp_path: pathlib.Path, ending: str, text: str, name: str | None, found: list[tuple[str, str, str]]
) -> None:
  path = tmp_path / f'list.{ending}'
  path.write_text(text)
  clips = lists.read(str(path), 'train', name=name, root=None)
  assert [(clip.id, clip.speaker, clip.emotion) for clip in clips] == found


@pytest.mark.parametrize(
  ('text', 'message'), [('{"path": ', 'cannot be read as a list: Expecting'), ('["a"]', 'a line is no object')]
)
def test_a_jsonl_list_of_something_else_is_refused(tmp_path: pathlib.Path, text: str, message: str) -> None:
  (tmp_path / 'list.jsonl').write_text(text)
  with pytest.raises(Unusable, match=message):
    lists.read(str(tmp_path / 'list.jsonl'), 'train', name=None, root=None)


def test_a_speaker_with_a_space_behind_is_the_same_speaker(tmp_path: pathlib.Path) -> None:
  paths = {
    side: _write(tmp_path / side, [['path', 'speaker'], [side, name]])
    for side, name in (('train', 's1'), ('test', 's1 '))
  }
  _, found = audit.audit_lists(paths, name=None, root=None)
  assert {finding.check for finding in found if finding.verdict == 'LEAK'} == {'speakers'}


def test_no_leak_is_not_said_of_what_was_not_compared(tmp_path: pathlib.Path) -> None:
  paths = {side: _write(tmp_path / side, [['path', 'speaker'], [f'{side}.wav', side]]) for side in ('train', 'test')}
  printed = audit.told(*audit.audit_lists(paths, name=None, root=None))
  assert printed.splitlines()[-1] == 'No leak found; not checked: same bytes, same sound (no media found)'
  for side in paths:
    (tmp_path / f'{side}.wav').write_text(f'no sound of {side}')
  printed = audit.told(*audit.audit_lists(paths, name=None, root=str(tmp_path)))
  assert printed.splitlines()[-1] == 'No leak found; not checked: same sound'


def test_a_config_whose_media_are_all_missing_is_refused(tmp_path: pathlib.Path) -> None:
  rows = [[f'{who}.mp4', who, emotion] for who, emotion in zip('abcd', ('joy', 'fear') * 2, strict=True)]
  config = get_config()
  config.data.corpus = 'manifest'
  config.data.root = _write(tmp_path / 'clips.csv', [['path', 'speaker', 'emotion'], *rows])
  with pytest.raises(Unusable, match=rf'{config.data.root}: no file of the 4 clips can be read, the first .*/a\.mp4'):
    audit.audit_experiment(config, None)


def test_media_are_found_where_lists_leave_folders_or_endings_out(tmp_path: pathlib.Path) -> None:
  for name in ('AudioWAV/1001_A.wav', 'Film/1001_A.flv', 'x/s1/an1.avi', 'x/s2/an1.avi', 'here.wav', 'notes.txt'):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  wanted = {
    '1001_A': 'AudioWAV/1001_A.wav',
    '1001_A.flv': 'Film/1001_A.flv',
    's2/an1': 'x/s2/an1.avi',
    's1/an1.avi': 'x/s1/an1.avi',
    'here.wav': 'here.wav',
    '1001': '1001',  # there is none
    's3/an1': 's3/an1',
    'notes': 'notes',
    '..': '..',
  }
  _write(tmp_path / 'list.csv', [['path', 'speaker'], *([name, 's'] for name in wanted)])
  found = lists.read(str(tmp_path / 'list.csv'), 'train', name=None, root=str(tmp_path))
  assert [str(clip.sound.relative_to(tmp_path)) for clip in found] == list(wanted.values())
  own = lists.read(str(tmp_path / 'list.csv'), 'train', name=None, root=None)
  assert [str(clip.sound.relative_to(tmp_path)) for clip in own] == list(wanted)  # beside the list, as it says
  bare = _write(tmp_path / 'x' / 'bare.csv', [['1001_A']])
  (found,) = lists.read(bare, 'test', name='(?P<speaker>.)', root=str(tmp_path / 'Film'))
  assert found.sound == tmp_path / 'Film' / '1001_A.flv' and (found.speaker, found.split) == ('1', 'test')


def test_neither_missing_nor_empty_files_are_the_same_recording(tmp_path: pathlib.Path) -> None:
  rows = [['path', 'speaker'], *([f'{folder}/{name}.mp4', folder] for folder in 'ab' for name in ('empty', 'gone'))]
  for folder in 'ab':
    (tmp_path / folder).mkdir()
    (tmp_path / folder / 'empty.mp4').touch()
  found = lists.read(_write(tmp_path / 'list.csv', rows), 'train', name=None, root=None)
  assert audit.read_media(found) == ([set()] * 4, [None] * 4)
  (tmp_path / 'list.jsonl').write_text(json.dumps({'path': 'a\0b.mp4', 'speaker': 's'}))
  for root in (None, str(tmp_path)):
    found = lists.read(str(tmp_path / 'list.jsonl'), 'train', name=None, root=root)
    assert audit.read_media(found) == ([set()], [None])


def test_transductive_results_are_warned_of(clips: pathlib.Path) -> None:
  config = get_config()
  config.data.root, config.normalise = str(clips), 'speaker'
  _, found = audit.audit_experiment(config, None)
  (warned,) = (finding for finding in found if finding.check == 'protocol')
  assert warned.verdict == 'WARNED' and 'transductive' in warned.said

"""Predicting as a user runs it: what is printed, what is written, and what becomes of clips that cannot be used."""

import contextlib
import csv
import json
import logging
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import imageio.v3 as iio
import jax
import numpy as np
import pytest

import emo_jax
from emo_jax import inference, own_clip, predict
from emo_jax.frontend import decoder, media
from tests.report.results import CLASSES, result

REPO = pathlib.Path(__file__).parents[1]
Path = pathlib.Path
Predict = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope='module')
def user(environment: dict[str, str], strict: list[str]) -> Predict:
  """Runs the program; the path of the repository stands in for its being installed."""
  env = {**environment, 'PYTHONPATH': str(REPO)}

  def run(*arguments: Any, cwd: Path = REPO) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *strict, '-m', 'emo_jax.predict', *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=600)

  return run


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
  """File name -> the result, or what is raised, in place of opening and judging; the rest is real."""
  known: dict[str, Any] = {}

  @contextlib.contextmanager
  def opened(model: Any, path: Path, sound: Any = None, **_: Any) -> Iterator[Any]:
    if isinstance(known[path.name], BaseException):
      raise known[path.name]
    yield path

  monkeypatch.setattr(Model, 'opened', opened, raising=False)
  monkeypatch.setattr(inference, 'judge', lambda model, clip: {**known[clip.name], 'file': clip.name})
  return known


class Model:
  classes = CLASSES


def rows(path: Path) -> list[dict[str, str]]:
  with open(path, newline='', encoding='utf-8') as file:
    return list(csv.DictReader(file))


def number(text: str) -> float | None:
  return float(text) if text else None


def run(paths: list[Path], out: Path | None, **options: Any) -> int:
  return predict.run(Model(), predict.plan(paths, out or Path(), paths), out=out, **options)  # type: ignore[arg-type]


# from end to end


@pytest.fixture(scope='module')
def many(tmp_path_factory: pytest.TempPathFactory, clips: Path, model_folder: Path, user: Predict) -> tuple[Path, Any]:
  """A call with clips of all kinds, and where it wrote."""
  root = tmp_path_factory.mktemp('many')
  first, second = sorted(clips.glob('s01/*.mp4'))[:2]
  for place in ('a', 'b/deep'):
    (root / place).mkdir(parents=True)
  shutil.copy(first, root / 'a/clip.mp4')
  shutil.copy(second, root / 'b/deep/clip.mp4')
  (root / 'b/notes.txt').write_text('no clip')
  (root / 'b/old.film.mp4').write_text('what an earlier call wrote')
  (root / 'broken.mp4').write_bytes(b'nothing' * 99)
  shutil.copy(first, root / 'x[1]=.mp4')
  named = ('a/clip.mp4', 'b', 'x[1]=.mp4', 'broken.mp4', 'a/*.mp4', 'gone.mp4')
  done = user(*named, f'--model={model_folder}', '--out=out', '--film', cwd=root)
  return root, done


def test_all_clips_that_can_be_are_answered(many: tuple[Path, Any]) -> None:
  _, done = many
  assert done.returncode == 1
  assert [text.split(': ')[0] for text in done.stdout.splitlines()] == ['a/clip.mp4', 'b/deep/clip.mp4', 'x[1]=.mp4']
  assert done.stderr.splitlines()[0] == 'gone.mp4: no such file'
  (broken,) = done.stderr.splitlines()[1:]
  assert broken.startswith('broken.mp4: ') and 'media file' in broken


def test_what_is_written_is_what_python_gets(many: tuple[Path, Any], model_folder: Path) -> None:
  root, done = many
  names = {'clip': 'a/clip.mp4', 'clip_2': 'b/deep/clip.mp4', 'x[1]=': 'x[1]=.mp4'}
  model = emo_jax.load(model_folder)
  for text, (name, path) in zip(done.stdout.splitlines(), names.items(), strict=True):
    wanted = model.predict(root / path)
    assert json.loads((root / f'out/{name}.json').read_text()) == wanted
    assert text.startswith(f'{path}: {wanted["verdict"]} {100 * wanted["confidence"]:.0f} %, next ')
    assert len(rows(root / f'out/{name}.csv')) == len(wanted['segments'])
    assert iio.imread(root / f'out/{name}.png').shape[:2] == (770, 1100)
    kinds = media.probe(str(root / f'out/{name}.film.mp4'))
    assert kinds.picture and kinds.sound
  endings = ('.json', '.csv', '.png', '.film.mp4')
  wanted_files = {f'{name}{ending}' for name in names for ending in endings} | {'summary.csv'}
  assert {path.name for path in (root / 'out').iterdir()} == wanted_files


def test_the_summary_has_a_row_for_each_clip(many: tuple[Path, Any]) -> None:
  root, _ = many
  first, second, third, broken = rows(root / 'out/summary.csv')
  assert [row['clip'] for row in (first, second, third)] == ['a/clip.mp4', 'b/deep/clip.mp4', 'x[1]=.mp4']
  assert [row['name'] for row in (first, second, third)] == ['clip', 'clip_2', 'x[1]=']
  of_json = json.loads((root / 'out/clip_2.json').read_text())
  assert second['verdict'] == of_json['verdict'] and float(second['confidence']) == of_json['confidence']
  assert int(second['segments']) == len(of_json['segments']) and second['problem'] == ''
  for name, part in of_json['methods']['hybrid']['probabilities'].items():
    assert float(second[f'probability_{name}']) == part
  assert broken['clip'] == 'broken.mp4' and 'media file' in broken['problem'] and broken['verdict'] == ''


def test_the_film_has_the_face_of_the_clip_in_its_box(many: tuple[Path, Any]) -> None:
  root, _ = many
  said = json.loads((root / 'out/clip.json').read_text())
  x, y, width, height = said['segments'][0]['box']
  image = next(image for time, image in media.frames(str(root / 'out/clip.film.mp4')) if time > 0.2).astype(int)
  yellow = np.argwhere(np.abs(image - (255, 214, 0)).max(-1) < 60)
  (top, left), (bottom, right) = yellow.min(0), yellow.max(0)
  np.testing.assert_allclose([left, top, right - left, bottom - top], [x, y, width, height], atol=10)


def test_the_sound_may_lie_beside_the_clip(tmp_path: Path, clips: Path, user: Predict, model_folder: Path) -> None:
  film, other = sorted(clips.glob('s01/*.mp4'))[:2]
  done = user(film, f'--model={model_folder}', f'--sound={other}', f'--out={tmp_path}')
  assert done.returncode == 0, done.stderr
  said = json.loads((tmp_path / f'{film.stem}.json').read_text())
  assert said == emo_jax.load(model_folder).predict(film, other) != emo_jax.load(model_folder).predict(film)


def test_a_second_clip_compiles_nothing(model_folder: Path, clips: Path, caplog: pytest.LogCaptureFixture) -> None:
  model = inference.load(model_folder)
  tasks = predict.plan(sorted(clips.glob('s0[12]/*.mp4'))[:3], Path(), [])
  assert predict.run(model, tasks[:1]) == 0
  with jax.log_compiles(), caplog.at_level(logging.WARNING, 'jax'):
    assert predict.run(model, tasks[1:]) == 0
  assert not [record for record in caplog.records if record.getMessage().startswith('Compiling')]


# flags


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
  """main of the program in a folder of its own, within this process: (clips, flag=value ...) -> exit status."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(predict.memory, 'keep_freed_memory', lambda: None)
  monkeypatch.setattr(predict.signal, 'signal', lambda *_: None)

  def call(*clips: str, **given: Any) -> int:
    unset = {'model': 'nowhere', 'out': None, 'film': False, 'sound': None, 'limit': 60.0}
    monkeypatch.setattr(predict.flags, 'FLAGS', types.SimpleNamespace(**{**unset, **given}))
    return predict.main(['predict', *clips])

  return call


@pytest.mark.parametrize(
  ('clips', 'given', 'says'),
  [
    ([], {}, 'name a clip'),
    (['a.mp4'], {'film': True}, '--film needs --out'),
    (['a.mp4', 'b.mp4'], {'sound': 'c.wav'}, '--sound=c.wav is the sound of one clip; here are 2'),
    (['a.mp4'], {}, 'nowhere is no model folder'),
    (['a.mp4'], {'out': 'a.mp4'}, 'a.mp4'),
  ],
)
def test_what_cannot_be_run_is_said_in_a_sentence(
  program: Callable[..., int],
  tmp_path: Path,
  capsys: pytest.CaptureFixture[str],
  clips: list[str],
  given: dict[str, Any],
  says: str,
) -> None:
  for name in ('a.mp4', 'b.mp4', 'c.wav'):
    (tmp_path / name).write_bytes(b'nothing')
  assert program(*clips, **given) == 2
  out, err = capsys.readouterr()
  (sentence,) = err.splitlines()
  assert out == '' and sentence.startswith('predict: ') and says in sentence
  assert (tmp_path / 'a.mp4').read_bytes() == b'nothing'


@pytest.mark.parametrize('flag', ['--limit=0', '--lmit=1'])
def test_flags_that_cannot_be_used_are_said_in_a_sentence(user: Predict, flag: str) -> None:
  done = user('a.mp4', '--model=nowhere', flag)
  assert done.returncode == 2 and done.stdout == '' and flag[2:].split('=')[0] in done.stderr
  assert done.stderr.startswith('predict: a flag cannot be used: ') and 'Traceback' not in done.stderr


def test_without_a_model_there_is_a_sentence(user: Predict) -> None:
  done = user('a.mp4')
  assert done.returncode == 2 and '--model' in done.stderr and 'Traceback' not in done.stderr


def test_where_no_clip_is_found_no_model_is_loaded(
  program: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
  (tmp_path / 'empty').mkdir()
  assert program('empty', 'a/*.mp4', 'gone.mp4') == 1
  assert capsys.readouterr() == (
    '',
    'empty: holds no file whose name ends as media do\na/*.mp4: nothing fits this pattern\ngone.mp4: no such file\n',
  )


# which clips


def test_folders_are_searched_and_patterns_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  names = ['b.MP4', 'a.wav', 'deep/er/c.flv', 'notes.txt', 'x.film.mp4', 'd[1].mp4', '-e.mp4']
  for name in names:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b'x')
  monkeypatch.chdir(tmp_path)
  named = lambda argument: [str(path) for path in predict.found(argument)[0]]
  assert sorted(named('.')) == ['-e.mp4', 'a.wav', 'b.MP4', 'd[1].mp4', 'deep/er/c.flv']
  assert named('*.mp4') == ['-e.mp4', 'd[1].mp4', 'x.film.mp4']
  assert named('**/*.flv') == ['deep/er/c.flv'] == named('de*')
  assert named('d[1].mp4') == ['d[1].mp4'] and named('notes.txt') == ['notes.txt']
  assert predict.found('*.avi') == ([], ['*.avi: nothing fits this pattern'])


def test_each_clip_is_judged_once_and_no_two_share_a_name() -> None:
  paths = ['a/x.mp4', 'b/x.mp4', './a/x.mp4', 'c/X.avi', 'x_2.mp4', 'summary.mp4', 'd/x.film.mp4', 'a/../a/x.mp4']
  tasks = predict.plan(map(Path, paths), Path('out'), [])
  assert [(str(task.path), task.name) for task in tasks] == [
    ('a/x.mp4', 'x'),
    ('b/x.mp4', 'x_2'),
    ('c/X.avi', 'X_3'),
    ('x_2.mp4', 'x_2_2'),
    ('summary.mp4', 'summary_2'),
    ('d/x.film.mp4', 'x.film'),
  ]


def test_no_clip_is_written_over(tmp_path: Path) -> None:
  paths = [tmp_path / 'a.mp4', tmp_path / 'a.film.mp4', tmp_path / 'sub/b.mp4']
  (tmp_path / 'sub').mkdir()
  for path in paths:
    path.touch()
  (tmp_path / 'link').symlink_to(tmp_path)
  tasks = predict.plan(paths, tmp_path / 'link', [*paths, tmp_path / 'b.json'])
  assert [task.name for task in tasks] == ['a_2', 'a.film', 'b_2']


def test_long_names_are_cut_so_that_their_files_can_be_written(tmp_path: Path, fake: dict[str, Any]) -> None:
  path = Path('ü' * 125 + '.mp4')
  fake[path.name] = result()
  assert run([path], tmp_path) == 0
  assert (tmp_path / f'{"ü" * 100}.png').exists()


# what is written


@pytest.mark.parametrize(
  'said',
  [
    result(),
    result(7, without_face=[1, 2], without_sound=[2, 3]),
    result(3, without_face=range(3), by='audio', how=''),
    result(1),
  ],
)
def test_the_table_says_what_the_json_does(tmp_path: Path, fake: dict[str, Any], said: dict[str, Any]) -> None:
  fake['clip.mp4'] = said
  assert run([Path('clip.mp4')], tmp_path) == 0
  assert json.loads((tmp_path / 'clip.json').read_text()) == said
  table = rows(tmp_path / 'clip.csv')
  for row, segment in zip(table, said['segments'], strict=True):
    for name in ('start', 'end'):
      assert float(row[name]) == segment[name]
    for method in ('audio', 'visual', 'hybrid'):
      known = segment[method] or dict.fromkeys(CLASSES)
      assert {name: number(row[f'{method}_{name}']) for name in CLASSES} == known
    box = [number(row[f'box_{side}']) for side in ('x', 'y', 'width', 'height')]
    assert box == (segment['box'] or [None] * 4)
    assert (row['has_sound'], row['has_face']) == tuple(str(int(segment[f'has_{half}'])) for half in ('sound', 'face'))
    assert row['filled'] == segment['filled']


FORMULAS = ['=1+1', '+1', '-1', '@SUM(A1)', '\t=1', "=cmd|' /C calc'!A0", '=1;=2', '\n=1']


@pytest.mark.parametrize('name', FORMULAS)
def test_no_cell_is_a_formula(tmp_path: Path, fake: dict[str, Any], name: str) -> None:
  path = Path(f'{name.replace("/", "")}.mp4')
  fake[path.name] = result(2, classes=[name, 'joy', 'fear', 'rage'])
  fake['bad.mp4'] = own_clip.Unreadable(f'bad.mp4: {name}')
  assert run([path, Path('bad.mp4')], tmp_path) == 1
  tables = [tmp_path / 'summary.csv', *(other for other in tmp_path.glob('*.csv') if other.name != 'summary.csv')]
  assert len(tables) == 2
  for table in tables:
    with open(table, newline='', encoding='utf-8') as file:
      cells = [cell for row in csv.reader(file) for cell in row]
    assert f"'{path}" in cells or table != tables[0]
    for cell in cells:
      with contextlib.suppress(ValueError):
        float(cell)  # a number may have a sign
        continue
      assert not cell.startswith(('=', '+', '-', '@', '\t', '\r', '\n')), cell
  first = rows(tables[0])[0]
  assert first['verdict'].removeprefix("'") == fake[path.name]['verdict']


def test_names_that_are_no_text_are_written_as_escapes(
  tmp_path: Path, fake: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
  path = Path('\x1b[2J\nevil\udcff\u202e.mp4')
  fake[path.name] = {**result(2), 'warnings': ['the \x1b[31msound is odd']}
  assert run([path], tmp_path) == 0
  out, err = capsys.readouterr()
  assert out.startswith('\\x1b[2J\\nevil\\udcff\\u202e.mp4: ') and out.count('\n') == 1 == err.count('\n')
  assert 'the \\x1b[31msound is odd' in err
  stem = path.stem
  assert json.loads((tmp_path / f'{stem}.json').read_text())['file'] == path.name
  assert (tmp_path / f'{stem}.png').exists()


def test_lines_say_who_judged_and_what_was_missing() -> None:
  hybrid = result(9, without_face=[1, 2, 3])
  odds = sorted(hybrid['methods']['hybrid']['probabilities'].items(), key=lambda of: -of[1])
  first, second = (f'{name} {100 * part:.0f} %' for name, part in odds[:2])
  assert predict.said(hybrid) == (
    f'{first}, next {second}, by hybrid, 3 of 9 segments without a face, 3 filled in (gibbs)'
  )
  alone = predict.said(result(4, without_sound=range(4), by='visual', how=''))
  assert alone.endswith('by visual alone, 4 of 4 segments without sound')
  assert predict.said(result(2, classes=['joy'])) == 'joy 100 %, by hybrid'


# what goes wrong


def test_a_clip_that_cannot_be_used_does_not_stop_the_others(
  tmp_path: Path, fake: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
  fake |= {'a.mp4': own_clip.Unreadable('a.mp4: no face was found'), 'b.mp4': result()}
  assert run([tmp_path / 'a.mp4', tmp_path / 'b.mp4'], None) == 1
  out, err = capsys.readouterr()
  assert err == f'{tmp_path}/a.mp4: no face was found\n'
  assert out.startswith(f'{tmp_path}/b.mp4: ')


def test_a_film_that_cannot_be_made_is_said_and_the_rest_is_written(
  tmp_path: Path, fake: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
  def annotate(path: str, said: Any, track: Any, target: Path, **_: Any) -> None:
    target.write_bytes(b'half a film')
    raise OSError('odd time stamps')

  monkeypatch.setattr(predict.film, 'annotate_apart', annotate)
  fake['a.mp4'] = result()
  monkeypatch.setattr(inference, 'judge', lambda model, clip: fake[clip.path.name])
  holder = lambda path: type('X', (), {'path': path, 'records': [{'faces': None}]})()

  @contextlib.contextmanager
  def opened(model: Any, path: Path, *_: Any, **__: Any) -> Iterator[Any]:
    yield holder(path)

  monkeypatch.setattr(Model, 'opened', opened, raising=False)
  assert run([Path('a.mp4')], tmp_path, with_film=True) == 1
  assert 'a.mp4: no film: odd time stamps' in capsys.readouterr().err
  assert {path.name for path in tmp_path.iterdir()} == {'a.json', 'a.csv', 'a.png', 'summary.csv'}
  assert rows(tmp_path / 'summary.csv')[0]['problem'] == 'no film: odd time stamps'


@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), decoder.MachineFailure('the disk is full')])
def test_what_is_no_clips_fault_ends_the_run_and_what_was_answered_is_kept(
  tmp_path: Path, fake: dict[str, Any], error: Exception
) -> None:
  fake |= {'a.mp4': result(), 'b.mp4': error, 'c.mp4': result()}
  with pytest.raises(type(error)):
    run([Path('a.mp4'), Path('b.mp4'), Path('c.mp4')], tmp_path)
  assert [row['clip'] for row in rows(tmp_path / 'summary.csv')] == ['a.mp4']


@pytest.mark.parametrize(('number', 'status'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_ends_quietly(
  tmp_path: Path,
  clips: Path,
  model_folder: Path,
  strict: list[str],
  environment: dict[str, str],
  number: signal.Signals,
  status: int,
) -> None:
  for copy in range(60):
    shutil.copy(min(clips.glob('s01/*.mp4')), tmp_path / f'{copy:02d}.mp4')
  given = (f'--model={model_folder}', str(tmp_path), f'--out={tmp_path / "out"}', '--film')
  command = [sys.executable, *strict, '-m', 'emo_jax.predict', *given]
  with subprocess.Popen(
    command, cwd=REPO, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  ) as process:
    watchdog = threading.Timer(300, process.kill)
    watchdog.start()
    assert process.stdout and process.stderr
    told = process.stdout.readline()
    process.send_signal(number)
    rest, complaints = process.stdout.read(), process.stderr.read()
    watchdog.cancel()
  assert process.returncode == status and complaints == ''
  answered = [told, *rest.splitlines()]
  assert 1 <= len(answered) < 60
  kept = [row['clip'] for row in rows(tmp_path / 'out/summary.csv')]  # and perhaps one that was not told of any more
  assert kept[: len(answered)] == [text.split(': ')[0] for text in answered] and len(kept) <= len(answered) + 1
  assert not [path for path in (tmp_path / 'out').iterdir() if os.path.getsize(path) == 0]


def test_real_clips_are_answered(data_root: Path, tmp_path: Path, model_folder: Path, user: Predict) -> None:
  films = ['java_sed/video/01-01-06_01.mp4', 'ravdess_sample', 'crema_d_sample/VideoFlash/1001_DFA_ANG_XX.flv']
  done = user(*(data_root / film for film in films), f'--model={model_folder}', f'--out={tmp_path}', '--film')
  assert done.returncode == 0, done.stderr
  assert done.stdout.count('by hybrid') == 3 == len(done.stdout.splitlines())
  assert len(list(tmp_path.iterdir())) == 3 * 4 + 1

"""launch.py prepares every corpus as users have it: each film ends in the store or, with a reason, in rejected.csv."""

import csv
import importlib
import json
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import pytest

from emo_jax import experiment
from emo_jax.corpora import archive
from tests.corpora import trees

REPO = pathlib.Path(__file__).parents[2]
EXTRA = {  # what a corpus's docstring says on top
  'rml': (),
  'enterface05': ('data.exclude_speakers=("23",)',),
  'baum1s': (),
  'ravdess': (),
  'cremad': (),
  'savee': (),
  'java_sed': (),
  'manifest': (),
}


@pytest.fixture(scope='module')
def runs(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Callable[[str], Any]]:
  """Of each corpus: its data.root, the folder of its files, and the process that prepared it, two at a time."""
  base = tmp_path_factory.mktemp('corpora')
  strict = ['-W', 'error', '-W', 'ignore:the load_module() method:DeprecationWarning']

  def prepare(name: str) -> tuple[pathlib.Path, pathlib.Path, subprocess.CompletedProcess[str]]:
    folder = base / name / "a user's files"
    folder.mkdir(parents=True)
    root = getattr(trees, name)(folder)
    overrides = (f'data.root={root}', 'until=prepare', 'executor.workers=1', *EXTRA[name])
    flags = [f'--config={REPO}/configs/{name}.py', f'--workdir={base / name / "w"}']
    command = [sys.executable, *strict, str(REPO / 'launch.py'), *flags, *(f'--config.{each}' for each in overrides)]
    return (
      root,
      folder,
      subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment),
    )

  with futures.ThreadPoolExecutor(2) as pool:
    jobs = {name: pool.submit(prepare, name) for name in EXTRA}
    yield lambda name: jobs[name].result()


def _table(path: pathlib.Path) -> list[dict[str, str]]:
  with open(path, newline='', encoding='utf-8') as file:
    return list(csv.DictReader(file))


@pytest.mark.parametrize('name', EXTRA)
def test_every_film_of_an_archive_is_accounted_for(runs: Callable[[str], Any], name: str) -> None:
  root, folder, done = runs(name)
  assert done.returncode == 0 and 'Traceback' not in done.stderr, done.stderr
  workdir = folder.parent / 'w'
  config = importlib.import_module(f'configs.{name}').get_config()
  config.data.root = str(root)
  found = experiment.READERS[name](config.data)
  rejected = {row['file']: row['reason'] for row in _table(workdir / 'rejected.csv')}
  assert all(rejected.values())
  used = [clip for clip in found.clips if not any(str(path) in rejected for path in clip.files)]
  assert len(used) >= 4

  (index,) = (workdir / 'stages/prepare').glob('*/index.json')
  records = json.loads(index.read_text())
  assert len(records) == len(used)
  sounds = [workdir / 'stages/store' / f'{record["audio"]}.npy' for record in records]
  assert all(path.exists() for path in sounds) and len(set(sounds)) == len(used)
  media = {str(path) for path in folder.rglob('*') if archive.ending(path) in archive.MEDIA}
  assert media == {str(path) for clip in used for path in clip.files} | set(rejected)

  faceless = {row['id'] for row in _table(workdir / 'warnings.csv') if 'no face was found' in row['warning']}
  assert faceless == {clip.id for clip, record in zip(used, records, strict=True) if not record['faces']}
  for warning in found.warnings:
    assert f'{name}: {warning}' in done.stderr
  assert bool(found.warnings) == (name != 'manifest')
  folds = json.loads((workdir / 'split.json').read_text())['folds']
  assert sorted(speaker for fold in folds for speaker in fold['test']) == sorted({clip.speaker for clip in used})


def test_the_speakers_that_other_papers_leave_out_are_left_out(runs: Callable[[str], Any]) -> None:
  _, folder, _ = runs('enterface05')
  rows = _table(folder.parent / 'w/rejected.csv')
  left_out = [row['file'] for row in rows if row['reason'] == 'speaker 23 is in config.data.exclude_speakers']
  assert len(left_out) == 6 and all('/subject 23/' in file for file in left_out)

"""Stages: a folder for a key, made once, resumed after an interruption, shared by processes."""

import json
import multiprocessing
import pathlib
import threading
import time
from typing import Any

import pytest

from emo_jax import stages


def test_a_digest_depends_on_the_value_and_not_on_the_order_of_keys() -> None:
  first = {'a': 1, 'b': {'c': [1, 2], 'd': None}}
  again = {'b': {'d': None, 'c': [1, 2]}, 'a': 1}
  assert stages.digest(first) == stages.digest(again)
  others: list[Any] = [{**first, 'a': 2}, {**first, 'b': {'c': [2, 1], 'd': None}}, {**first, 'e': 0}, {'a': 1}, None]
  digests = {stages.digest(value) for value in [first, *others]}
  assert len(digests) == 6 and all(len(d) == 16 and int(d, 16) >= 0 for d in digests)


def test_digests_stay_what_they_were() -> None:
  """They name folders of earlier runs: the SHA-256 of the sorted JSON, as `printf '{"a": 1}' | sha256sum` has it."""
  assert stages.digest({'a': 1}) == 'f9d86028c6e0d64e'


def test_a_stage_is_made_once_for_each_key(tmp_path: pathlib.Path) -> None:
  made = []

  def work(folder: pathlib.Path) -> None:
    made.append(folder)
    (folder / 'result').write_text(str(len(made)))

  first = stages.run(tmp_path, 'prepare', {'a': 1}, work)
  assert stages.run(tmp_path, 'prepare', {'a': 1}, work) == first
  assert len(made) == 1 and (first / 'result').read_text() == '1'
  assert first.parent == tmp_path / 'prepare' and json.loads((first / 'key.json').read_text()) == {'a': 1}
  others = {stages.run(tmp_path, 'prepare', {'a': 2}, work), stages.run(tmp_path, 'features', {'a': 1}, work)}
  assert len(others | {first}) == 3 and len(made) == 3
  assert not list(tmp_path.glob('*/*.partial'))


def test_what_was_really_made_is_written_down(tmp_path: pathlib.Path) -> None:
  assert stages.executions(tmp_path) == []
  for key in (1, 2, 1):
    stages.run(tmp_path, 'net', {'a': key}, lambda folder: time.sleep(0.01))
  made = stages.executions(tmp_path)
  assert [(line['stage'], line['digest']) for line in made] == [('net', stages.digest({'a': key})) for key in (1, 2)]
  assert all(0.01 <= line['seconds'] < 5 for line in made)


def test_interrupted_work_goes_on_in_the_same_folder(tmp_path: pathlib.Path) -> None:
  seen: list[list[str]] = []

  def work(folder: pathlib.Path) -> None:
    seen.append(sorted(path.name for path in folder.iterdir() if path.name != 'lock'))
    (folder / f'part_{len(seen)}').touch()
    if len(seen) < 3:
      raise KeyboardInterrupt

  for _ in range(2):
    with pytest.raises(KeyboardInterrupt):
      stages.run(tmp_path, 'net', {'a': 1}, work)
    assert not [path for path in (tmp_path / 'net').iterdir() if path.is_dir() and path.suffix != '.partial']
  folder = stages.run(tmp_path, 'net', {'a': 1}, work)
  assert seen == [[], ['part_1'], ['part_1', 'part_2']]
  assert sorted(p.name for p in folder.glob('part_*')) == ['part_1', 'part_2', 'part_3']


def _slow(folder: pathlib.Path) -> None:
  with open(folder.parent / 'calls', 'a') as file:
    file.write('called\n')
  time.sleep(0.5)
  (folder / 'result').write_text('whole')


def _race(cache: str, barrier: Any, results: Any) -> None:
  barrier.wait(30)
  folder = stages.run(pathlib.Path(cache), 'net', {'a': 1}, _slow)
  results.put((folder / 'result').read_text())


def test_two_processes_at_once_make_it_once_and_both_get_it_whole(tmp_path: pathlib.Path) -> None:
  context = multiprocessing.get_context('forkserver')
  barrier, results = context.Barrier(2), context.Queue()
  processes = [context.Process(target=_race, args=(str(tmp_path), barrier, results)) for _ in range(2)]
  for process in processes:
    process.start()
  assert [results.get(timeout=30) for _ in processes] == ['whole', 'whole']
  for process in processes:
    process.join(30)
  assert (tmp_path / 'net/calls').read_text() == 'called\n'
  assert not list(tmp_path.glob('*/*.partial'))


def test_who_is_overtaken_between_looking_and_locking_gets_the_others_folder(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  made = []

  def work(folder: pathlib.Path) -> None:
    made.append(folder)
    (folder / 'result').write_text('whole')

  (tmp_path / 'net').mkdir()
  other = threading.Thread(target=stages.run, args=(tmp_path, 'net', {'a': 1}, work))
  mkdir = pathlib.Path.mkdir

  def overtaken(self: pathlib.Path, *args: Any, **kwargs: Any) -> None:
    mkdir(self, *args, **kwargs)
    monkeypatch.undo()
    other.start()
    other.join(0.5)  # it may as well have to wait for this one

  monkeypatch.setattr(pathlib.Path, 'mkdir', overtaken)
  folder = stages.run(tmp_path, 'net', {'a': 1}, work)
  other.join(30)
  assert (folder / 'result').read_text() == 'whole' and len(made) == 1


def test_scratch_lasts_through_an_interruption_and_no_longer(tmp_path: pathlib.Path) -> None:
  def breaks(folder: pathlib.Path) -> None:
    (folder / 'scratch').mkdir()
    (folder / 'scratch' / 'checkpoint').touch()
    raise OSError('the power is gone')

  def resumes(folder: pathlib.Path) -> None:
    assert (folder / 'scratch' / 'checkpoint').exists()
    (folder / 'result').touch()

  with pytest.raises(OSError, match='the power is gone'):
    stages.run(tmp_path, 'net', {'a': 1}, breaks)
  folder = stages.run(tmp_path, 'net', {'a': 1}, resumes)
  assert {path.name for path in folder.iterdir()} == {'result', 'key.json'}
  (folder / 'scratch').mkdir()  # as a run leaves it that is killed between renaming and removing
  assert stages.run(tmp_path, 'net', {'a': 1}, breaks) == folder
  assert not (folder / 'scratch').exists()

"""Preparing a clip list: the store is whole afterwards, whatever crashed, hung, was damaged or broken off before."""

import csv
import dataclasses
import functools
import json
import os
import pathlib
import sys
import threading
import wave
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from emo_jax import processes
from emo_jax.context import Experiment, Unusable
from emo_jax.corpora import clip as clip_module
from emo_jax.corpora.clip import Clip
from emo_jax.frontend import decoder, halves, store, workers
from emo_jax.steps import prepare
from tests import tiny

BAD = (sys.executable, str(pathlib.Path(__file__).parents[1] / 'frontend' / 'bad_decoder.py'))
Answer = dict[str, Any]
AsTeam = Callable[..., list[Experiment]]


@pytest.fixture
def clips(tmp_path: pathlib.Path) -> list[Clip]:
  """Four sounds of two speakers."""
  found = []
  for number in range(4):
    path = tmp_path / f'{number}.wav'
    samples = np.random.default_rng(number).integers(-9000, 9000, 16000).astype(np.int16)
    with wave.open(str(path), 'wb') as file:
      file.setparams((1, 2, 16000, 16000, 'NONE', ''))
      file.writeframes(samples.tobytes())
    found.append(Clip(path.name, None, path, f's{number % 2}', 'ab'[number // 2], 'made'))
  return found


def named(clip: Clip, name: str, content: bytes | None = None) -> Clip:
  """A clip under another name, with the same bytes or these."""
  assert clip.sound
  path = clip.sound.with_name(name)
  path.write_bytes(clip.sound.read_bytes() + os.fsencode(name) if content is None else content)
  return Clip(name, None, path, clip.speaker, clip.emotion, clip.corpus)


def run(workdir: pathlib.Path, clips: list[Clip], **executor: Any) -> Experiment:
  config = tiny.get_config()
  config.until = 'prepare'
  config.executor.update({'workers': 2, **executor})
  workdir.mkdir(exist_ok=True)
  x = Experiment(config, workdir, workdir / 'stages', clips, ['a', 'b'], [])
  prepare.prepare(x)
  return x


def contents(x: Experiment) -> dict[str, bytes]:
  folder = x.cache / 'store'
  return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def rejected(x: Experiment) -> dict[str, str]:
  with open(x.workdir / 'rejected.csv', newline='') as file:
    return {row['id']: row['reason'] for row in csv.DictReader(file)}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
  """The names of the files that are decoded; in this process, for speed."""
  names: list[str] = []

  def noted(half: str, path: str, *arguments: Any, limit: float) -> Answer:
    names.append(pathlib.Path(path).name)
    return halves.prepare_half(half, path, *arguments)

  monkeypatch.setattr(decoder, 'prepare_half', noted)
  return names


@pytest.mark.parametrize('backend', ['threading', 'loky', 'dask'])
def test_clips_that_crash_or_hang_a_decoder_are_rejected_alone_whoever_prepares(
  clips: list[Clip], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
  good = run(tmp_path / 'good', clips)
  bad = [named(clips[0], f'{name}.wav') for name in ('crash', 'hang', 'hang in writing')]
  bad.append(named(clips[0], 'empty.wav', b''))
  monkeypatch.setattr(decoder, 'prepare_half', functools.partial(decoder.prepare_half, command=BAD))
  x = run(tmp_path / backend, [*bad, *clips], backend=backend, limit=3.0)
  assert contents(x) == contents(good)
  assert [record['audio'] for record in x.records[4:]] == [record['audio'] for record in good.records]
  reasons = rejected(x)
  assert list(reasons) == [clip.id for clip in bad]
  assert 'the decoder died (signal 11 SIGSEGV)' in reasons['crash.wav']
  for hung in ('hang.wav', 'hang in writing.wav'):
    assert reasons[hung] == f'{hung}: decoding it stood still for 3 s (config.executor.limit)'
  assert 'cannot be opened' in reasons['empty.wav']


def test_a_line_at_the_end_counts_what_came_out(
  clips: list[Clip], tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str], decoded: list[str]
) -> None:
  run(tmp_path / 'w', [*clips, named(clips[0], 'words.wav', b'words')])
  lines = capfd.readouterr().err.splitlines()
  counts = '0 whole, 4 halves or warned (warnings.csv), 1 rejected (rejected.csv)'  # there are no faces
  assert lines[-1] == f'prepare: 5 clips: {counts}'
  assert '5/5' in lines[-2] and lines[-2].endswith(('clip/s]', 's/clip]'))  # a busy machine takes longer than a second


def test_the_second_run_decodes_nothing(clips: list[Clip], tmp_path: pathlib.Path, decoded: list[str]) -> None:
  first = run(tmp_path / 'w', clips)
  assert sorted(decoded) == ['0.wav', '1.wav', '2.wav', '3.wav']
  decoded.clear()
  assert run(tmp_path / 'w', clips).records == first.records
  assert run(tmp_path / 'w', clips[:3]).records == first.records[:3]  # another clip list, the same store
  assert decoded == []


def damaged(path: pathlib.Path) -> None:
  content = bytearray(path.read_bytes())
  content[5000] ^= 1
  path.write_bytes(content)


@pytest.mark.parametrize('whole', [True, False])
def test_what_is_damaged_in_the_store_is_prepared_again_and_said(
  clips: list[Clip], tmp_path: pathlib.Path, decoded: list[str], capfd: pytest.CaptureFixture[str], whole: bool
) -> None:
  x = run(tmp_path / 'w', clips)
  before, index = contents(x), x.made['prepare'][0] / 'index.json'
  damaged(x.cache / 'store' / f'{x.records[1]["audio"]}.npy')
  (x.cache / 'store' / f'{x.records[3]["audio"]}.npz').unlink()
  if not whole:  # as after an interruption: the store knows, the stage does not
    index.unlink()
    x.made['prepare'][0].rename(x.made['prepare'][0].with_suffix('.partial'))
  decoded.clear()
  capfd.readouterr()
  again = run(tmp_path / 'w', clips)
  assert sorted(decoded) == ['1.wav', '3.wav']
  assert contents(again) == before and again.records == x.records and index.exists()
  assert f'store: {2 if whole else 1} damaged files, prepared again' in capfd.readouterr().err


@pytest.mark.parametrize('text', [None, '', '[{"audio": nu', '[]'])
def test_a_damaged_index_is_written_again(
  clips: list[Clip], tmp_path: pathlib.Path, decoded: list[str], text: str | None
) -> None:
  x = run(tmp_path / 'w', clips)
  index = x.made['prepare'][0] / 'index.json'
  before = index.read_bytes()
  decoded.clear()
  index.unlink()
  if text is not None:
    index.write_text(text)
  assert run(tmp_path / 'w', clips).records == x.records
  assert index.read_bytes() == before and decoded == []


def test_a_clip_whose_decoder_was_lost_is_tried_again_where_that_may_help(
  clips: list[Clip], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  asked: list[str] = []
  lost: dict[str, Answer] = {'0.wav': {'reason': 'crash', 'again': 0}, '1.wav': {'reason': 'hang', 'again': 5.0}}

  def prepare_half(half: str, path: str, target: str, settings: dict[str, Any], *, limit: float) -> Answer:
    name = pathlib.Path(path).name
    asked.append(name)
    return dict(lost[name]) if name in lost else halves.prepare_half(half, path, target, settings)

  monkeypatch.setattr(decoder, 'prepare_half', prepare_half)
  assert rejected(run(tmp_path / 'w', clips, limit=5.0)) == {'0.wav': 'crash', '1.wav': 'hang'}
  asked.clear()
  run(tmp_path / 'w', clips, limit=5.0)
  assert asked == ['0.wav']
  asked.clear()
  lost.clear()
  x = run(tmp_path / 'w', clips, limit=6.0)
  assert sorted(asked) == ['0.wav', '1.wav']
  assert rejected(x) == {} and all(record['audio'] for record in x.records)


def test_a_fault_of_the_machine_stops_the_run_and_the_next_one_goes_on(
  clips: list[Clip], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
  prepare_half = decoder.prepare_half

  def full(half: str, path: str, *arguments: Any, **options: Any) -> Answer:
    if path.endswith('2.wav'):
      raise decoder.MachineFailure('the disk is full while writing there')
    return prepare_half(half, path, *arguments, **options)

  with monkeypatch.context() as patch:
    patch.setattr(decoder, 'prepare_half', full)
    with pytest.raises(Unusable, match=r'^the disk is full while writing there$'):
      run(tmp_path / 'w', clips, workers=1)
  assert decoded == ['0.wav', '1.wav']
  assert not list((tmp_path / 'w' / 'stages' / 'prepare').glob('*/index.json'))
  x = run(tmp_path / 'w', clips, workers=1)
  assert decoded == ['0.wav', '1.wav', '2.wav', '3.wav']
  assert contents(x) == contents(run(tmp_path / 'unbroken', clips))


def test_a_cache_that_cannot_be_written_is_said_in_a_sentence(clips: list[Clip], tmp_path: pathlib.Path) -> None:
  (tmp_path / 'w').mkdir()
  (tmp_path / 'w' / 'stages').write_text('no folder')
  with pytest.raises(Unusable, match=r'w/stages cannot be written .*run the same command again'):
    run(tmp_path / 'w', clips)


def test_workers_elsewhere_find_files_that_are_named_from_here(
  clips: list[Clip], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.chdir(tmp_path)
  asked: list[str] = []

  def prepare_half(half: str, path: str, *arguments: Any, limit: float) -> Answer:
    asked.append(path)
    return {'reason': 'not now'}

  monkeypatch.setattr(decoder, 'prepare_half', prepare_half)
  run(tmp_path / 'w', [dataclasses.replace(clip, sound=pathlib.Path(clip.id)) for clip in clips])
  assert sorted(asked) == [str(clip.sound) for clip in clips]


def test_names_with_anything_in_them_are_prepared_and_listed(clips: list[Clip], tmp_path: pathlib.Path) -> None:
  names = ['it\'s "new"\nline.wav', 'M\u00e4rchen.wav', os.fsdecode(b'byte \xff.wav')]
  x = run(tmp_path / 'w', [*(named(clips[0], name) for name in names), named(clips[0], names[2] + 'x', b'words')])
  assert all(record['audio'] for record in x.records[:3])
  assert list(rejected(x)) == ['byte \\udcff.wavx']
  assert json.loads((x.made['prepare'][0] / 'index.json').read_text()) == x.records


def test_a_store_of_another_version_stays_beside_the_new_one(
  clips: list[Clip], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
  with monkeypatch.context() as patch:
    patch.setattr(halves, 'VERSIONS', {half: number - 1 for half, number in halves.VERSIONS.items()})
    old = run(tmp_path / 'w', clips)
  before = contents(old)
  new = run(tmp_path / 'w', clips)
  assert {record['audio'] for record in new.records}.isdisjoint(record['audio'] for record in old.records)
  assert before.items() < contents(new).items() and len(contents(new)) == 2 * len(before) - 1  # the lock


def tables(x: Experiment) -> list[bytes]:
  return [path.read_bytes() for path in (x.workdir / 'rejected.csv', x.workdir / 'warnings.csv', index_of(x))]


def index_of(x: Experiment) -> pathlib.Path:
  return x.made['prepare'][0] / 'index.json'


def test_a_team_reads_and_decodes_each_clip_once_and_makes_what_one_process_makes(
  clips: list[Clip], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, as_team: AsTeam
) -> None:
  assert clips[1].sound
  again = named(clips[1], 'again.wav', clips[1].sound.read_bytes())
  gone = dataclasses.replace(again, id='gone.wav', sound=tmp_path / 'gone.wav')
  clips = [*clips, again, named(clips[0], 'words.wav', b'words'), gone]
  read, decoded = [], []
  content_hash = clip_module.content_hash

  def noted(path: pathlib.Path) -> str:
    read.append(path.name)
    return content_hash(path)

  def prepare_half(half: str, path: str, *arguments: Any, limit: float) -> Answer:
    decoded.append((processes.number(), pathlib.Path(path).name))
    return halves.prepare_half(half, path, *arguments)

  monkeypatch.setattr(decoder, 'prepare_half', prepare_half)
  alone = run(tmp_path / 'alone', clips, workers=1)
  monkeypatch.setattr(clip_module, '_HASHED', {})
  monkeypatch.setattr(clip_module, 'content_hash', noted)
  monkeypatch.setattr(store, 'tidy', lambda folder: decoded.append((processes.number(), 'tidy')))
  decoded.clear()
  team = as_team(*[lambda: run(tmp_path / 'team', clips, workers=1)] * 2)
  assert sorted(read) == sorted(clip.id for clip in clips)
  assert decoded[0] == decoded[-1] == (0, 'tidy')  # nobody writes then
  assert sorted(decoded[1:-1]) == [(0, '0.wav'), (0, '2.wav'), (0, 'words.wav'), (1, '1.wav'), (1, '3.wav')]
  for x in team:
    assert x.records == alone.records and len(x.segments) == len(alone.segments)
    assert contents(x) == contents(alone) and tables(x) == tables(alone)
  read.clear()
  run(tmp_path / 'team', clips)  # what the other has read is known in each
  assert read == ['gone.wav']


def test_clips_that_share_a_file_of_the_store_are_prepared_by_the_same_process() -> None:
  contents = [{'a/0', 'f/0'}, {'a/1'}, {'a/2', 'f/1'}, {'a/1', 'f/4'}, set(), {'f/1', 'a/0'}]
  assert prepare._dealt([0, 1, 2, 3, 4, 5], contents) == [[0, 2, 5], [1, 3], [4]]
  assert prepare._dealt([5, 4, 1], contents) == [[5], [4], [1]]


def test_a_team_mends_a_store_and_tells_of_it_once(
  clips: list[Clip], tmp_path: pathlib.Path, decoded: list[str], as_team: AsTeam, capfd: pytest.CaptureFixture[str]
) -> None:
  x = run(tmp_path / 'w', clips)
  before = contents(x)
  for number in (0, 3):
    damaged(x.cache / 'store' / f'{x.records[number]["audio"]}.npy')
  (x.cache / 'store' / f'{x.records[1]["audio"]}.npz').unlink()
  decoded.clear()
  capfd.readouterr()
  team = as_team(*[lambda: run(tmp_path / 'w', clips)] * 3)
  assert sorted(decoded) == ['0.wav', '1.wav', '3.wav']
  assert all(contents(each) == before and each.records == x.records for each in team)
  told = capfd.readouterr().err
  assert told.count('store: 3 damaged files, prepared again') == 1 and told.count('prepare: 4 clips') == 1


def test_a_clip_list_that_is_not_the_same_in_all_processes_is_refused(
  clips: list[Clip], tmp_path: pathlib.Path, as_team: AsTeam
) -> None:
  other = [dataclasses.replace(clips[0], emotion='b'), *clips[1:]]
  for last, counts in ((clips[:3], '4, 3'), (other, '4, 4')):
    with pytest.raises(Unusable, match=f'see different clips, in order {counts} of them: let config.data.root'):
      as_team(lambda: run(tmp_path / 'w', clips), lambda last=last: run(tmp_path / 'w', last))
  assert not (tmp_path / 'w' / 'stages').exists()


def test_what_others_have_written_is_waited_for_but_not_for_ever(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  late = tmp_path / 'store' / 'late.npz'
  late.parent.mkdir()
  threading.Timer(0.3, late.touch).start()
  workers.await_files([late])
  assert late.exists()
  monkeypatch.setattr(workers, 'LATE_S', 0.1)
  with pytest.raises(decoder.MachineFailure, match=r'gone\.npz has been written elsewhere and is not seen here after'):
    workers.await_files([late, tmp_path / 'nowhere' / 'gone.npz'])


@pytest.mark.parametrize(('backend', 'hands_on'), [('threading', [[0, 2], [1]]), ('dask', [[0, 1, 2], []])])
def test_of_several_processes_the_lead_alone_hands_jobs_to_dask(
  as_team: Callable[..., list[Any]], backend: str, hands_on: list[list[int]]
) -> None:
  executor = tiny.get_config().executor
  executor.backend = backend
  assert as_team(*[lambda: workers.share([0, 1, 2], executor)] * 2) == hands_on

"""Split files: what is recorded comes back, and what was changed, or made for other clips, is refused."""

import dataclasses
import json
import pathlib
import types
from typing import Any

import pytest

from emo_jax import stages
from emo_jax.corpora.clip import Clip
from emo_jax.evaluation import folds, splits


def clips() -> list[Clip]:
  """Two films of each of six speakers, and a take of the first to learn from alone."""
  path, ends = pathlib.Path('a.mp4'), dict(zip('abcdef', ('test', 'held', *['train'] * 4), strict=True))
  made = [
    Clip(f'{who}{take}', path, path, who, emotion, 'made', sentence=f'{take}', group='gh'[who > 'c'], split=ends[who])
    for who in 'abcdef'
    for take, emotion in enumerate(('joy', 'fear'))
  ]
  return [*made, Clip('a_take', None, path, 'a', 'joy', 'made', role='train_only')]


def data(**changes: Any) -> Any:
  wanted = {'corpus': 'made', 'rule': 'loso', 'held': 1, 'split': None, 'allow_leaks': False}
  return types.SimpleNamespace(**(wanted | changes))


def sides(found: list[Clip], of: list[folds.Fold]) -> list[list[str | None]]:
  return [[folds.side(clip, fold) for clip in found] for fold in of]


def leaky() -> list[Clip]:
  """Speaker c has a clip on each of two sides."""
  return [dataclasses.replace(clip, split='test') if clip.id == 'c1' else clip for clip in clips()]


def signed(path: pathlib.Path, split: dict[str, Any]) -> None:
  """Writes a split file, whatever it says, with the digest that it should have."""
  said = {name: value for name, value in split.items() if name not in ('digest', 'leaks_allowed')}
  path.write_text(json.dumps({**split, 'digest': stages.digest(said)}))


def test_a_record_says_all_there_is() -> None:
  some = [clip for clip in clips() if clip.speaker in 'abc']
  _, _, split = splits.deal(some, data(rule='fixed'))
  digest = split.pop('digest')
  assert digest == stages.digest({name: value for name, value in split.items() if name != 'leaks_allowed'})
  film = lambda who, take, side: {
    'speaker': who,
    'emotion': ('joy', 'fear')[take],
    'group': 'g',
    'sentence': f'{take}',
    'split': side,
  }
  known = {
    f'{who}{take}': film(who, take, side)
    for who, side in zip('abc', ('test', 'held', 'train'), strict=True)
    for take in (0, 1)
  }
  assert split == {
    'version': 1,
    'corpus': 'made',
    'rule': 'fixed',
    'held': True,
    'leaks_allowed': False,
    'clips': {**known, 'a_take': {'speaker': 'a', 'emotion': 'joy', 'role': 'train_only'}},
    'folds': [{'train': ['c'], 'held': ['b'], 'test': ['a']}],
  }


@pytest.mark.parametrize(('rule', 'held'), [('loso', 1), ('loso', 0), ('groups:3', 1), ('groups', 0), ('fixed', 1)])
def test_an_experiment_runs_again_on_the_split_that_it_recorded(tmp_path: pathlib.Path, rule: str, held: int) -> None:
  path = tmp_path / 'split.json'
  own, dealt, split = splits.deal(clips(), data(rule=rule, held=held))
  assert split['held'] == bool(held)
  splits.write(path, split)
  again, of_file, same = splits.deal(clips()[::-1], data(rule='file', split=str(path)))
  assert (of_file, same) == (dealt, split)
  assert sides(again[::-1], of_file) == sides(own, dealt)
  # A clip's own split counts under rule fixed alone; else its speaker does.
  assert {clip.split for clip in own} == ({None, 'train', 'held', 'test'} if rule == 'fixed' else {None})


def test_a_leaking_split_is_refused_from_a_file_too_unless_leaks_are_allowed(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'split.json'
  with pytest.raises(folds.Leak, match='side of a fold: c;'):
    splits.deal(leaky(), data(rule='fixed'))
  own, dealt, split = splits.deal(leaky(), data(rule='fixed', allow_leaks=True))
  assert split['leaks_allowed'] is True
  splits.write(path, split)
  with pytest.raises(folds.Leak, match='side of a fold: c;'):
    splits.deal(leaky(), data(rule='file', split=path))
  again, of_file, same = splits.deal(clips(), data(rule='file', split=path, allow_leaks=True))
  assert same == split
  assert sides(again, of_file) == sides(own, dealt) and sides(again, of_file)[0][4:6] == ['train', 'test']


def test_that_leaks_are_allowed_is_marked_and_is_no_other_split(tmp_path: pathlib.Path) -> None:
  _, _, split = splits.deal(clips(), data())
  splits.write(tmp_path / 'split.json', split)
  _, _, marked = splits.deal(clips(), data(rule='file', split=tmp_path / 'split.json', allow_leaks=True))
  assert marked == {**split, 'leaks_allowed': True}
  splits.write(tmp_path / 'marked.json', marked)
  assert splits.load(tmp_path / 'marked.json') == marked


def test_a_speaker_on_two_sides_whose_clips_have_none_is_always_refused(tmp_path: pathlib.Path) -> None:
  _, _, split = splits.deal(clips(), data(held=0))
  split['folds'][0]['train'].append('a')
  signed(tmp_path / 'split.json', split)
  with pytest.raises(folds.Leak, match='side of a fold: a;'):
    splits.deal(clips(), data(rule='file', split=tmp_path / 'split.json', allow_leaks=True))


@pytest.mark.parametrize(
  'change',
  [
    {'corpus': 'other'},
    {'rule': 'fixed'},
    {'held': False},
    {'clips': {}},
    {'folds': []},
    {'digest': '0' * 16},
    {'extra': 1},
  ],
)
def test_a_file_that_was_changed_is_refused(tmp_path: pathlib.Path, change: dict[str, Any]) -> None:
  _, _, split = splits.deal(clips(), data())
  splits.write(tmp_path / 'split.json', {**split, **change})
  with pytest.raises(ValueError, match=r'split\.json: not as it was written: its digest'):
    splits.load(tmp_path / 'split.json')


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (None, 'cannot be read as a split file.*No such file'),
    ('{"version": 1', 'cannot be read as a split file'),
    ('{"rule": "loso", "folds": []}', 'of version None; this code reads version 1'),
    ('{"version": 2}', 'of version 2; this code reads version 1'),
    ('[1]', 'of version None'),
  ],
)
def test_what_is_no_split_file_is_refused(tmp_path: pathlib.Path, text: str | None, message: str) -> None:
  path = tmp_path / 'split.json'
  if text is not None:
    path.write_text(text)
  with pytest.raises(ValueError, match=message):
    splits.load(path)


def test_a_file_made_for_other_clips_is_refused_and_the_first_differences_are_named(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'split.json'
  splits.write(path, splits.deal(clips(), data())[2])
  change = lambda name, **fields: [dataclasses.replace(clip, **fields) if clip.id == name else clip for clip in clips()]
  for found, told in (
    (clips()[1:], 'a0 is not in the corpus'),
    ([*clips(), dataclasses.replace(clips()[0], id='z')], 'z is not in the file'),
    (change('b1', speaker='c'), 'b1 has the speaker b in the file, c in the corpus'),
    (change('b1', emotion='joy'), 'b1 has the emotion fear in the file, joy in the corpus'),
    (change('a_take', role='evaluate'), 'a_take has the role train_only in the file, evaluate in the corpus'),
  ):
    with pytest.raises(ValueError, match=f'1 differ: {told}$'):
      splits.deal(found, data(rule='file', split=path))
  with pytest.raises(ValueError, match=r'7 differ: a0 is not.*; a1 .*; b0 .*; b1 .*; c0 is not in the corpus$'):
    splits.deal(clips()[7:], data(rule='file', split=path))
  # What is recorded of a clip beside these may differ.
  splits.deal(change('b1', sentence='another'), data(rule='file', split=path))


def _entries(**changes: Any) -> dict[str, Any]:
  own: dict[str, Any] = splits.deal(clips(), data())[2]['clips']
  return {**own, 'a0': {**own['a0'], **changes}}


def _folds(**changes: Any) -> list[dict[str, Any]]:
  own: list[dict[str, Any]] = splits.deal(clips(), data())[2]['folds']
  return [{**own[0], **changes}, *own[1:]]


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'clips': ['a0']}, '"clips" must hold'),
    ({'clips': {'a0': 'a'}}, '"clips" must hold'),
    ({'clips': _entries(speaker=['a'])}, 'clips without a speaker: a0$'),
    ({'clips': _entries(split='dev'), 'rule': 'fixed'}, 'only under rule fixed have clips a split, .*: a0$'),
    ({'clips': _entries(split='train')}, 'only under rule fixed have clips a split, .*: a0$'),
    ({'folds': None}, '"folds" must hold at least one'),
    ({'folds': []}, '"folds" must hold at least one'),
    ({'folds': {'train': []}}, '"folds" must hold at least one'),
    ({'folds': ['a']}, '"folds" must hold at least one'),
    ({'folds': _folds(held=None)}, '"folds" must hold at least one'),
    ({'folds': _folds(held='b')}, '"folds" must hold at least one'),
    ({'folds': _folds(test=[1])}, '"folds" must hold at least one'),
    ({'folds': _folds(train=['c', 'z', 'y'])}, 'speakers of no clip: y, z$'),
    ({'folds': _folds()[1:]}, 'no fold tests, which rule fixed alone allows: a$'),
    ({'rule': None}, '"corpus" and "rule" must be words'),
  ],
)
def test_a_signed_file_that_is_no_split_is_refused(
  tmp_path: pathlib.Path, change: dict[str, Any], message: str
) -> None:
  path = tmp_path / 'split.json'
  signed(path, {**splits.deal(clips(), data())[2], **change})
  with pytest.raises(ValueError, match=rf'split\.json: no split: .*{message}'):
    splits.load(path)


def test_who_is_only_learnt_from_need_not_be_tested(tmp_path: pathlib.Path) -> None:
  some = [*clips(), dataclasses.replace(clips()[-1], id='z_take', speaker='z')]
  _, dealt, split = splits.deal(some, data())
  splits.write(tmp_path / 'split.json', split)
  assert splits.deal(some, data(rule='file', split=tmp_path / 'split.json'))[1] == dealt


@pytest.mark.parametrize('allow_leaks', [False, True])
def test_folds_that_are_not_those_of_the_clips_own_sides_are_refused(tmp_path: pathlib.Path, allow_leaks: bool) -> None:
  """Under rule fixed what counts is a clip's side: folds that look well must not hide it."""
  path = tmp_path / 'split.json'
  split = splits.deal(clips(), data(rule='fixed'))[2]
  (fold,) = split['folds']
  signed(path, {**split, 'folds': [{**fold, 'train': [], 'test': ['a', *fold['train']]}]})
  with pytest.raises(ValueError, match='its folds are not those that its clips stand in'):
    splits.deal(clips(), data(rule='file', split=path, allow_leaks=allow_leaks))
  split['clips']['c1']['split'] = 'test'
  signed(path, split)
  message = 'its folds are not' if allow_leaks else 'on more than one side of a fold: c;'
  with pytest.raises(ValueError, match=message):
    splits.deal(clips(), data(rule='file', split=path, allow_leaks=allow_leaks))


@pytest.mark.parametrize(
  ('rule', 'split', 'message'),
  [
    ('file', None, r'name the file in config\.data\.split'),
    ('loso', 'split.json', r'needs config\.data\.rule=file, not loso'),
  ],
)
def test_a_file_and_the_rule_file_belong_together(rule: str, split: str | None, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    splits.deal(clips(), data(rule=rule, split=split))

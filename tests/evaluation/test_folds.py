"""Folds: every speaker judged once, nobody on two sides, and what cannot be split is refused."""

import itertools
import pathlib

import pytest

from emo_jax.corpora.clip import Clip
from emo_jax.evaluation.folds import Fold, Leak, make_folds, side

RULES = ['loso', 'groups:4', 'groups:3', 'groups']


def clip(speaker: str, take: int = 0, **fields: str) -> Clip:
  path = pathlib.Path(f'{speaker}_{take}.mp4')
  name = f'{speaker}_{take}{fields.get("role", "")}'
  return Clip(name, picture=path, sound=path, speaker=speaker, emotion='joy', corpus='made', **fields)


def speakers(count: int) -> list[Clip]:
  """Two clips of each speaker, listed backwards; groups of two neighbours."""
  numbers = reversed(range(1, count + 1))
  return [clip(f's{n}', take, group=f'g{(n + 1) // 2}') for n in numbers for take in range(2)]


@pytest.mark.parametrize('held', [True, False])
@pytest.mark.parametrize('rule', RULES)
def test_each_speaker_is_judged_once_and_sides_are_disjoint(rule: str, held: bool) -> None:
  clips = speakers(8)
  everyone = {c.speaker for c in clips}
  folds = make_folds(clips, rule=rule, held=held)
  assert sorted(s for fold in folds for s in fold.test) == sorted(everyone)
  for fold in folds:
    sides = [set(fold.train), set(fold.held), set(fold.test)]
    assert set.union(*sides) == everyone and sum(map(len, sides)) == 8
    assert bool(fold.held) == held


def test_loso_holds_the_next_speaker_cyclically() -> None:
  assert make_folds(speakers(4), rule='loso', held=True) == [
    Fold(train=('s3', 's4'), held=('s2',), test=('s1',)),
    Fold(train=('s1', 's4'), held=('s3',), test=('s2',)),
    Fold(train=('s1', 's2'), held=('s4',), test=('s3',)),
    Fold(train=('s2', 's3'), held=('s1',), test=('s4',)),
  ]


def test_without_held_all_others_train() -> None:
  assert make_folds(speakers(3), rule='loso', held=False) == [
    Fold(train=('s2', 's3'), held=(), test=('s1',)),
    Fold(train=('s1', 's3'), held=(), test=('s2',)),
    Fold(train=('s1', 's2'), held=(), test=('s3',)),
  ]


def test_groups_are_dealt_round_robin() -> None:
  folds = make_folds(speakers(8), rule='groups:4', held=True)
  assert [fold.test for fold in folds] == [('s1', 's5'), ('s2', 's6'), ('s3', 's7'), ('s4', 's8')]
  assert [fold.held for fold in folds] == [('s2', 's6'), ('s3', 's7'), ('s4', 's8'), ('s1', 's5')]
  assert folds[3].train == ('s2', 's3', 's6', 's7')
  assert [fold.test for fold in make_folds(speakers(5), rule='groups:3', held=True)] == [
    ('s1', 's4'),
    ('s2', 's5'),
    ('s3',),
  ]


def test_published_groups_are_kept() -> None:
  folds = make_folds(speakers(6), rule='groups', held=True)
  assert [fold.test for fold in folds] == [('s1', 's2'), ('s3', 's4'), ('s5', 's6')]
  assert folds[0].held == ('s3', 's4') and folds[0].train == ('s5', 's6')


def test_a_fixed_split_is_one_fold() -> None:
  clips = [clip('a', split='test'), clip('b', split='train'), clip('c', split='held'), clip('d', split='train')]
  assert make_folds(clips, rule='fixed', held=True) == [Fold(train=('b', 'd'), held=('c',), test=('a',))]


@pytest.mark.parametrize('rule', RULES)
def test_what_is_only_learnt_from_is_on_no_side_of_a_held_or_tested_speaker(rule: str) -> None:
  clips = speakers(8)
  extra = [clip(f's{n}', role='train_only') for n in range(1, 9)] + [clip('x', role='train_only')]
  folds = make_folds([*clips, *extra], rule=rule, held=True)
  for fold, plain in zip(folds, make_folds(clips, rule=rule, held=True), strict=True):
    assert (fold.held, fold.test) == (plain.held, plain.test)
    assert set(fold.train) == {*plain.train, 'x'}  # who is never judged is always learnt from
    for c in extra:
      assert side(c, fold) == ('train' if c.speaker in fold.train else None)


def test_a_clip_stands_where_its_speaker_stands() -> None:
  fold = Fold(train=('a',), held=('b',), test=('c',))
  assert [side(clip(s), fold) for s in 'abcd'] == ['train', 'held', 'test', None]
  assert [side(clip(s, role='train_only'), fold) for s in 'abcd'] == ['train', None, None, None]
  assert side(clip('b', role='train_only', split='train'), fold) is None  # it is never dealt by itself


def test_under_a_fixed_split_the_clips_own_word_counts() -> None:
  clips = [clip('a', 0, split='train'), clip('a', 1, split='test'), clip('b', split='held')]
  (fold,) = make_folds(clips, rule='fixed', held=True, allow_leaks=True)
  assert [side(c, fold) for c in clips] == ['train', 'test', 'held']


@pytest.mark.parametrize('sides', [*itertools.combinations(('train', 'held', 'test'), 2)])
def test_a_speaker_on_two_sides_is_refused_unless_leaks_are_allowed(sides: tuple[str, str]) -> None:
  clips = [clip(name, split=name) for name in ('train', 'held', 'test')]
  clips += [clip('both', number, split=name) for number, name in enumerate(sides)]
  with pytest.raises(Leak, match=r'more than one side of a fold: both; .*allow_leaks'):
    make_folds(clips, rule='fixed', held=True)
  (fold,) = make_folds(clips, rule='fixed', held=True, allow_leaks=True)
  assert all('both' in getattr(fold, name) for name in sides)


@pytest.mark.parametrize('allow_leaks', [False, True])
def test_a_speaker_of_two_groups_is_refused(allow_leaks: bool) -> None:
  # Leaks can be allowed under rule 'fixed' alone: here the speaker's clips would have no side of their own.
  clips = [*speakers(6), clip('s1', 9, group='g3')]
  with pytest.raises(Leak, match='more than one side of a fold: s1'):
    make_folds(clips, rule='groups', held=True, allow_leaks=allow_leaks)


@pytest.mark.parametrize(
  ('count', 'rule', 'held', 'message'),
  [
    (2, 'loso', True, 'too few for train, held and test'),
    (1, 'loso', False, 'too few for train and test'),
    (8, 'groups:2', True, 'too few'),
    (8, 'groups:1', False, 'too few'),
    (3, 'groups:4', True, 'only 3 speakers'),
    (8, 'groups:0', True, 'use loso, groups, groups:K, fixed or file'),
    (8, 'groups:', True, 'use loso, groups, groups:K, fixed or file'),
    (8, 'logo', True, 'use loso, groups, groups:K, fixed or file'),
    (8, 'fixed', True, 'clips without a split'),
  ],
)
def test_splits_that_cannot_be_made_are_refused(count: int, rule: str, held: bool, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    make_folds(speakers(count), rule=rule, held=held)


def test_a_clip_without_a_group_and_a_split_without_a_side_are_refused() -> None:
  with pytest.raises(ValueError, match='clip x_0 has no group'):
    make_folds([*speakers(6), clip('x')], rule='groups', held=True)
  for missing in ('train', 'test'):
    clips = [clip(name, split=name) for name in ('train', 'held', 'test') if name != missing]
    with pytest.raises(ValueError, match='without training or without test'):
      make_folds(clips, rule='fixed', held=True)

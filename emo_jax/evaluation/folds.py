"""Who is learnt from, who is chosen on, who is judged: speaker-disjoint folds (pipeline step: split)."""

import dataclasses
from collections.abc import Sequence

from emo_jax.corpora.clip import Clip


@dataclasses.dataclass(frozen=True)
class Fold:
  """Three sets of speakers; disjoint unless leaks are allowed. `held` trains nothing: choices are made on it."""

  train: tuple[str, ...]
  held: tuple[str, ...]
  test: tuple[str, ...]


class Leak(ValueError):
  """A split that has a speaker on two sides."""


def _rounds(blocks: list[list[str]], extra: list[str], *, held: bool) -> list[Fold]:
  """Each block of speakers is the test set once; the next block, cyclically, is held."""
  if len(blocks) < 2 + held:
    raise ValueError(
      f'{len(blocks)} speaker blocks are too few for train{", held" if held else ""} and test; '
      'use fewer groups of more speakers, or config.data.held=0'
    )
  folds = []
  for turn in range(len(blocks)):
    chosen = {turn, (turn + 1) % len(blocks)} if held else {turn}
    train = [s for block, speakers in enumerate(blocks) if block not in chosen for s in speakers]
    folds.append(
      Fold(
        train=tuple(sorted(train + extra)),
        held=tuple(blocks[(turn + 1) % len(blocks)]) if held else (),
        test=tuple(blocks[turn]),
      )
    )
  return folds


def _by_group(clips: Sequence[Clip]) -> list[list[str]]:
  groups: dict[str, set[str]] = {}
  for clip in clips:
    if clip.group is None:
      raise ValueError(f'clip {clip.id} has no group; rule "groups" needs one for every clip, "groups:K" deals them')
    groups.setdefault(clip.group, set()).add(clip.speaker)
  return [sorted(groups[name]) for name in sorted(groups)]


def make_folds(clips: Sequence[Clip], *, rule: str, held: bool, allow_leaks: bool = False) -> list[Fold]:
  """Deals the speakers of `clips` to folds (contract.md, Splits).

  Args:
    rule: 'loso' (each speaker is the test set once), 'groups:K' (sorted speakers dealt round robin into K groups),
      'groups' (the clips' own published groups), or 'fixed' (the clips' own `split`, a single fold).
    held: keep the next block of speakers out of training, to choose on (rule 'fixed' has its own).
    allow_leaks: under rule 'fixed', accept a speaker on both sides; every result is then marked as not
      speaker-independent.

  Raises:
    ValueError: an unknown rule, or too few speakers for it.
    Leak: a speaker on two sides.
  """
  judged = [clip for clip in clips if clip.role == 'evaluate']
  speakers = sorted({clip.speaker for clip in judged})
  extra = sorted({clip.speaker for clip in clips} - set(speakers))  # they only have clips to learn from
  if rule == 'loso':
    folds = _rounds([[speaker] for speaker in speakers], extra, held=held)
  elif rule == 'groups':
    folds = _rounds(_by_group(judged), extra, held=held)
  elif rule.startswith('groups:') and rule[7:].isdigit() and int(rule[7:]) > 0:
    count = int(rule[7:])
    if count > len(speakers):
      raise ValueError(f'config.data.rule={rule}: only {len(speakers)} speakers to deal')
    folds = _rounds([speakers[turn::count] for turn in range(count)], extra, held=held)
  elif rule == 'fixed':
    loose = [clip.id for clip in judged if clip.split is None]
    if loose:
      raise ValueError(f'config.data.rule=fixed: clips without a split, the first {loose[:5]}')
    sides = {side: {clip.speaker for clip in judged if clip.split == side} for side in ('train', 'held', 'test')}
    folds = [Fold(*(tuple(sorted(sides[side])) for side in ('train', 'held', 'test')))]
    folds = [dataclasses.replace(fold, train=tuple(sorted({*fold.train, *extra}))) for fold in folds]
  else:
    raise ValueError(f'config.data.rule={rule!r}: use loso, groups, groups:K, fixed or file')
  check(folds, allow_leaks=allow_leaks and rule == 'fixed')
  return folds


def check(folds: Sequence[Fold], *, allow_leaks: bool) -> None:
  """Refuses folds that nothing can be learnt from or judged on, and speakers on two sides.

  Args:
    allow_leaks: accept such speakers, whose clips have sides of their own.

  Raises:
    ValueError: a fold without training or without test speakers.
    Leak: a speaker on two sides.
  """
  for fold in folds:
    if not fold.train or not fold.test:
      raise ValueError(f'a fold without training or without test speakers: {fold}')
    shared = (set(fold.train) & {*fold.held, *fold.test}) | (set(fold.held) & set(fold.test))
    if shared and not allow_leaks:
      raise Leak(
        f'speakers on more than one side of a fold: {", ".join(sorted(shared))}; mend the split, or set '
        'config.data.allow_leaks=True (rule fixed), which marks every result as not speaker-independent'
      )


def side(clip: Clip, fold: Fold) -> str | None:
  """'train', 'held' or 'test': where a clip stands in a fold; its own split decides where it has one (splits.deal).

  None for a clip of nobody in the fold, or that may only be learnt from and whose speaker is held or tested.
  """
  if clip.split is not None and clip.role == 'evaluate':
    return clip.split
  if clip.speaker in fold.train:
    return 'train'
  if clip.role == 'train_only':
    return None
  return next((name for name in ('held', 'test') if clip.speaker in getattr(fold, name)), None)

"""A split as a thing: a small versioned file that says who is learnt from and who is judged (pipeline step: split).

Every experiment records its own as split.json; any experiment on the same clips can be run on it again, with
config.data.rule=file and config.data.split naming the file:

  {"version": 1, "corpus", "rule", "held", "leaks_allowed",
   "clips": {id: {"speaker", "emotion", and where known "group", "sentence", "role", "split"}},
   "folds": [{"train", "held", "test"}, of speakers], "digest": of all the rest but "leaks_allowed"}

A clip's own "split" is there where clips, not speakers, were dealt (rule fixed).
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from emo_jax import stages
from emo_jax.corpora.clip import Clip
from emo_jax.evaluation import folds as dealing
from emo_jax.evaluation.folds import Fold

VERSION = 1
SIDES = ('train', 'held', 'test')
Record = dict[str, Any]


def _entry(clip: Clip) -> dict[str, str]:
  optional = {'group': clip.group, 'sentence': clip.sentence, 'split': clip.split}
  role = {} if clip.role == 'evaluate' else {'role': clip.role}
  known = {name: value for name, value in optional.items() if value is not None}
  return {'speaker': clip.speaker, 'emotion': clip.emotion, **known, **role}


def _signed(record: Record) -> Record:
  rest = {name: value for name, value in record.items() if name not in ('digest', 'leaks_allowed')}
  return {**record, 'digest': stages.digest(rest)}


def record(clips: Sequence[Clip], folds: Sequence[Fold], *, corpus: str, rule: str, leaks_allowed: bool) -> Record:
  """What a split file says. Clips have a `split` only where the rule heeds it."""
  return _signed(
    {
      'version': VERSION,
      'corpus': corpus,
      'rule': rule,
      'held': any(fold.held for fold in folds),
      'leaks_allowed': leaks_allowed,
      'clips': {clip.id: _entry(clip) for clip in clips},
      'folds': [{side: list(getattr(fold, side)) for side in SIDES} for fold in folds],
    }
  )


def write(path: pathlib.Path, split: Record) -> None:
  """Writes a split file."""
  path.write_text(json.dumps(split, indent=1) + '\n')


def load(path: str | pathlib.Path) -> Record:
  """Reads a split file.

  Raises:
    ValueError: no such file, another version, a file that is not as it was written, or one that is no split.
  """
  try:
    split = json.loads(pathlib.Path(path).read_text())
  except (OSError, ValueError) as error:
    raise ValueError(f'{path}: cannot be read as a split file ({error})') from error
  version = split.get('version') if isinstance(split, dict) else None
  if version != VERSION:
    raise ValueError(f'{path}: a split file of version {version!r}; this code reads version {VERSION}')
  if split != _signed(split):
    raise ValueError(f'{path}: not as it was written: its digest is another; take the file that an experiment wrote')
  if wrong := _wrong(split):
    raise ValueError(f'{path}: no split: {wrong}')
  return split


def _wrong(split: Record) -> str:
  """Why a record, whoever signed it, is no split; '' where it is one."""
  clips, folds = split.get('clips'), split.get('folds')
  if not (isinstance(clips, dict) and all(isinstance(entry, dict) for entry in clips.values())):
    return '"clips" must hold an object for each clip'
  if silent := [name for name, entry in clips.items() if not isinstance(entry.get('speaker'), str)]:
    return f'clips without a speaker: {", ".join(silent[:5])}'
  if not (isinstance(folds, list) and folds and all(map(_is_fold, folds))):
    return f'"folds" must hold at least one object with lists of names: {", ".join(SIDES)}'
  if not all(isinstance(split.get(name), str) for name in ('corpus', 'rule')):
    return '"corpus" and "rule" must be words'
  fixed = split['rule'] == 'fixed'
  if odd := [name for name, entry in clips.items() if 'split' in entry and not (fixed and entry['split'] in SIDES)]:
    return f'only under rule fixed have clips a split, {", ".join(SIDES)}: {", ".join(odd[:5])}'
  everybody = {entry['speaker'] for entry in clips.values()}
  if strangers := {name for fold in folds for side in SIDES for name in fold[side]} - everybody:
    return f'speakers of no clip: {", ".join(sorted(strangers))}'
  judged = {entry['speaker'] for entry in clips.values() if entry.get('role', 'evaluate') == 'evaluate'}
  if not fixed and (untested := judged - {name for fold in folds for name in fold['test']}):
    return f'speakers that no fold tests, which rule fixed alone allows: {", ".join(sorted(untested))}'
  return ''


def _is_fold(fold: Any) -> bool:
  sides = [fold.get(side) for side in SIDES] if isinstance(fold, dict) else [None]
  return all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in sides)


def _differences(clips: Sequence[Clip], entries: dict[str, dict[str, str]]) -> list[str]:
  """How the clips of a corpus differ from those of a split file, in words."""
  here = {clip.id: _entry(clip) for clip in clips}
  told = [f'{name} is not in the corpus' for name in entries.keys() - here.keys()]
  told += [f'{name} is not in the file' for name in here.keys() - entries.keys()]
  for name in here.keys() & entries.keys():
    for field in ('speaker', 'emotion', 'role'):
      was, now = (of[name].get(field, 'evaluate') for of in (entries, here))
      if was != now:
        told.append(f'{name} has the {field} {was} in the file, {now} in the corpus')
  return sorted(told)


def _from_file(clips: Sequence[Clip], data: Any) -> tuple[list[Clip], list[Fold], Record]:
  split = load(data.split)
  if told := _differences(clips, split['clips']):
    raise ValueError(f'config.data.split={data.split}: made for other clips: {len(told)} differ: {"; ".join(told[:5])}')
  sided = [dataclasses.replace(clip, split=split['clips'][clip.id].get('split')) for clip in clips]
  folds = [Fold(**{side: tuple(fold[side]) for side in SIDES}) for fold in split['folds']]
  if split['rule'] != 'fixed':
    dealing.check(folds, allow_leaks=False)
  elif folds != dealing.make_folds(sided, rule='fixed', held=bool(data.held), allow_leaks=data.allow_leaks):
    raise ValueError(f'config.data.split={data.split}: its folds are not those that its clips stand in')
  return sided, folds, {**split, 'leaks_allowed': bool(data.allow_leaks)}


def deal(clips: Sequence[Clip], data: Any) -> tuple[list[Clip], list[Fold], Record]:
  """The split that an experiment asks for.

  Args:
    data: config.data.

  Returns:
    the clips, of which those have a `split` whose own it is that counts; the folds; what split.json says.

  Raises:
    ValueError: a rule that does not fit the clips, or a file that does not.
    folds.Leak: a speaker on two sides.
  """
  if data.rule == 'file' and not data.split:
    raise ValueError('config.data.rule=file: name the file in config.data.split')
  if data.split and data.rule != 'file':
    raise ValueError(f'config.data.split={data.split}: a split file needs config.data.rule=file, not {data.rule}')
  if data.rule == 'file':
    return _from_file(clips, data)
  folds = dealing.make_folds(clips, rule=data.rule, held=bool(data.held), allow_leaks=data.allow_leaks)
  if data.rule != 'fixed':
    clips = [dataclasses.replace(clip, split=None) for clip in clips]
  said = record(clips, folds, corpus=data.corpus, rule=data.rule, leaks_allowed=bool(data.allow_leaks))
  return list(clips), folds, said

"""Step 1, prepare: every clip decoded once, into the store.

The processes of a team take a part of the clips each and write it into the one store; every file has one writer. What
they go by, they tell each other: a shared file system may show one host late what another has written.
"""

import collections
import contextlib
import dataclasses
import functools
import itertools
import json
import pathlib
import sys
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from emo_jax import files, processes, stages
from emo_jax.context import Experiment, Unusable
from emo_jax.corpora import clip as clip_list
from emo_jax.corpora.clip import Clip
from emo_jax.evaluation import leaks
from emo_jax.frontend import decoder, halves, workers
from emo_jax.frontend import store as stored
from emo_jax.report import report
from emo_jax.training.metrics import progress

VERSION = 1  # raised when this code changes its result; the front end has its own in frontend/store.py


def prepare(x: Experiment) -> None:
  """Decodes every clip once: log-mel columns and aligned faces into the store. Bad clips are listed, never fatal.

  Raises:
    Unusable: the machine has to be seen to (a full disk, a missing package); or the folds cannot be trained on; or the
      processes of the team see different clips.
  """
  _check_clips(x)
  with _machine_failures(x.cache):
    hashes = clip_list.content_hashes(x.clips)
    x.records = _records(x, {str(path): name for path, name in hashes.items()})
    workers.await_files([x.cache / 'store' / f'{stem}.npz' for stem in set().union(*map(_stems, x.records))])
  open_store(x)
  if processes.lead():
    with _machine_failures(x.workdir):
      report.write_rejected(x)
      report.write_warnings(x)
    _sum_up(x)
  check_recordings(x)
  if x.config.until != 'prepare':
    check_folds(x)


def _check_clips(x: Experiment) -> None:
  """Refuses processes that have read different clips: they would wait for each other with what is not the same.

  Raises:
    Unusable: how many clips each has.
  """
  known = [[clip.id, clip.speaker, clip.emotion, clip.role, *(path.name for path in clip.files)] for clip in x.clips]
  seen = processes.exchange([len(known), stages.digest(known)])
  if len({own for _, own in seen}) > 1:
    raise Unusable(
      f'the processes see different clips, in order {", ".join(str(count) for count, _ in seen)} of them: let '
      'config.data.root be the same on all hosts'
    )


def open_store(x: Experiment) -> None:
  """The prepared clips, as x.records name them, and their windows."""
  wanted = x.config.frontend
  x.store = stored.Store(x.cache / 'store', x.records, **wanted.segments, refuse_short=wanted.short == 'refuse')
  x.segments = x.store.table()


def _records(x: Experiment, hashes: dict[str, str]) -> list[dict[str, Any]]:
  """Of each clip what halves.prepare_clip says, now or in an earlier run. Afterwards the store holds all of it, whole.

  Args:
    hashes: media file -> hash of its content.
  """
  key, store = _key(x, hashes), x.cache / 'store'
  folder = stages.folder_of(x.cache, 'prepare', key)
  contents = [{stem for _, stem, _ in halves.of_clip(clip, hashes, key['frontend']).values()} for clip in x.clips]
  done, earlier = processes.by_lead(lambda: [folder.exists(), _read_index(folder)])
  processes.by_lead(lambda: stored.tidy(store))  # before anybody writes
  known = _known(earlier, _mend(store, contents, earlier), x.config.executor.limit)

  def work(folder: pathlib.Path) -> None:
    new = _decode(x, hashes, _dealt([number for number in range(len(x.clips)) if number not in known], contents))
    if processes.lead():
      stored.tidy(store)
      records = known | new
      with files.whole(folder / 'index.json') as file:
        file.write(json.dumps([records[number] for number in range(len(x.clips))], indent=1) + '\n')

  x.made['prepare'] = [stages.run(x.cache, 'prepare', key, work)]
  if done and len(known) < len(x.clips):
    work(folder)
  return processes.by_lead(lambda: _read_index(folder))


def _dealt(clips: list[int], contents: list[set[str]]) -> list[list[int]]:
  """The clips in parts for processes to take; what shares a file of the store stands in one.

  Args:
    contents: of all clips, the stems of what they may have in the store.
  """
  group = leaks.groups(leaks.same_bytes(contents), len(contents))
  parts: dict[int, list[int]] = collections.defaultdict(list)
  for number in clips:
    parts[int(group[number])].append(number)
  return list(parts.values())


def _decode(x: Experiment, hashes: dict[str, str], parts: list[list[int]]) -> dict[int, dict[str, Any]]:
  """The records of the clips in all parts, of which this process prepares its own; it waits for the others."""
  settings = x.config.frontend.to_dict()
  prepare_half = functools.partial(decoder.prepare_half, limit=x.config.executor.limit)
  own = [number for part in workers.share(parts, x.config.executor) for number in part]
  jobs = {
    number: (*_absolute(x.clips[number], hashes), str(x.cache / 'store'), settings, prepare_half) for number in own
  }
  records = []
  with progress(workers.titled('prepare'), len(jobs), 'clip') as bar:
    for made in workers.run(halves.prepare_clip, jobs, x.config.executor):
      records.append(made)
      bar.update()
  return dict(itertools.chain.from_iterable(processes.exchange(records)))


def _key(x: Experiment, hashes: dict[str, str]) -> dict[str, Any]:
  of_clip = [[clip.id, *(hashes[str(f)] if f else None for f in (clip.sound, clip.picture))] for clip in x.clips]
  return {'version': [VERSION, halves.VERSIONS], 'frontend': x.config.frontend.to_dict(), 'clips': of_clip}


def plan(x: Experiment) -> bool:
  """Where the prepared clips would lie, in x.made; if they are there, opens them and is true."""
  hashes = {str(path): name for path, name in clip_list.content_hashes(x.clips).items()}
  x.made['prepare'] = [stages.folder_of(x.cache, 'prepare', _key(x, hashes))]
  x.records = processes.by_lead(lambda: _read_index(x.made['prepare'][0]))
  if x.records:
    open_store(x)
  return bool(x.records)


def _absolute(clip: Clip, hashes: dict[str, str]) -> tuple[Clip, dict[str, str]]:
  """A clip and its hashes for a process that may have another working directory."""
  picture, sound = (path and path.absolute() for path in (clip.picture, clip.sound))
  by_path = {str(file.absolute()): hashes[str(file)] for file in clip.files}
  return dataclasses.replace(clip, picture=picture, sound=sound), by_path


def _read_index(folder: pathlib.Path) -> list[dict[str, Any]]:
  """The records that a folder of this stage holds; none where there is no folder or its index is damaged."""
  try:
    return json.loads((folder / 'index.json').read_text())
  except (FileNotFoundError, ValueError):
    return []


def _stems(record: dict[str, Any]) -> set[str]:
  """What a clip has in the store."""
  return {record[half] for half in ('audio', 'faces') if record[half]}


def _mend(store: pathlib.Path, contents: list[set[str]], earlier: list[dict[str, Any]]) -> set[str]:
  """The stems of what is damaged in the store, and out of it afterwards, or is gone. The processes look at a part each.

  Args:
    contents: of all clips, the stems of what they may have in the store.
    earlier: records of an earlier run.
  """
  needed = set().union(*map(_stems, earlier))
  own = processes.share(sorted(needed.union(*contents)))
  lost = stored.mend(store, own)
  lost |= {stem for stem in needed.intersection(own) if not (store / f'{stem}.npz').exists()}
  lost = set().union(*processes.exchange(sorted(lost)))
  if lost and processes.lead():
    print(f'store: {len(lost)} damaged files, prepared again', file=sys.stderr)
  return lost


def _known(earlier: list[dict[str, Any]], lost: Collection[str], limit: float) -> dict[int, dict[str, Any]]:
  """The records of an earlier run that still hold, by clip."""
  return {
    number: record
    for number, record in enumerate(earlier)
    if _stems(record).isdisjoint(lost) and record.get('again', limit) >= limit
  }


def _sum_up(x: Experiment) -> None:
  rejected, odd = report.missing(x)[0], report.oddities(x)
  whole = len(x.clips) - len(odd) - len(rejected)
  told = f'prepare: {len(x.clips)} clips: {whole} whole, {len(odd)} halves or warned (warnings.csv), '
  told += f'{len(rejected)} rejected (rejected.csv)'
  reasons = collections.Counter(reason for _, reason in x.left_out)
  told += ''.join(f'\n  left out {count}: {reason}' for reason, count in reasons.most_common(5))
  more = len(x.left_out) - sum(count for _, count in reasons.most_common(5))
  print(told + f'\n  left out {more} more' * (more > 0), file=sys.stderr)


@contextlib.contextmanager
def _machine_failures(place: pathlib.Path) -> Iterator[None]:
  """Says in a sentence what is wrong with the machine, met while writing below `place`."""
  try:
    yield
  except (OSError, ImportError, MemoryError, decoder.MachineFailure) as error:
    raise Unusable(decoder.explain(error, place)) from error


def check_folds(x: Experiment) -> None:
  """Refuses, before anything is trained, folds in which a later stage would have nothing to learn or choose from.

  Raises:
    Unusable: a fold without training clips of a modality, without clips of both, or with a single emotion among them;
      or without such held clips where an epoch or a penalty is to be chosen on them.
  """
  config = x.config
  fused = config.fusion.finetune if config.fusion.kind == 'dbn' else config.fusion.head
  trained = ((('audio',), config.audio), (('visual',), config.visual), (('audio', 'visual'), fused))
  for number, fold in enumerate(x.folds):
    for needed, part in trained:
      choosing = part.select == 'held' or config.svm.candidates or config.score.candidates
      if choosing and not len(x.rows(fold, needed, 'held')):
        raise Unusable(
          f'fold {number} (held speakers {", ".join(fold.held)}) has no held clip with {" and ".join(needed)} to '
          'choose on. Look at rejected.csv, or set select=last for this part of the config and svm.candidates=()'
        )
      rows = x.rows(fold, needed, 'train')
      emotions = sorted({x.classes[label] for label in x.labels(rows)})
      if len(emotions) < 2:
        raise Unusable(
          f'fold {number} (test speakers {", ".join(fold.test)}) has {len(np.unique(x.segments.clip[rows]))} training '
          f'clips with {" and ".join(needed)}, of the emotions {emotions}; at least two emotions are needed. Look at '
          'rejected.csv, add clips, or use fewer folds (config.data.rule)'
        )


def sound_print(store: pathlib.Path, stem: str | None) -> np.ndarray | None:
  """The fingerprint (leaks.fingerprint) of a sound in the store; None for none, or one that says too little."""
  if stem is None:
    return None
  with np.load(store / f'{stem}.npz', allow_pickle=False) as facts:
    column_s = float(facts['column_s'])
  return leaks.fingerprint(np.load(store / f'{stem}.npy', mmap_mode='r', allow_pickle=False), column_s)


def _leaks(x: Experiment) -> list[str]:
  """Of each kind of recordings that stand on two sides of a fold: the clips, and how to run all the same."""
  contents = [{pathlib.PurePath(stem).name for stem in _stems(record)} for record in x.records]  # the names are hashes
  prints = [sound_print(x.store.folder, record['audio']) for record in x.records]
  sides = np.array([x.sides(fold) for fold in x.folds])
  return [
    f'{finding.check}: {finding.said}: {"; ".join(finding.examples)}. Mend the split, or set '
    'config.data.allow_leaks=True, which marks every result as not speaker-independent'
    for finding in leaks.recordings(x.clips, sides, contents, prints)
    if finding.verdict == 'LEAK'
  ]


def check_recordings(x: Experiment) -> None:
  """Refuses, before anything is trained, a recording that stands on two sides of a fold; up to prepare, tells of it.

  Of several processes the lead alone listens to the sounds.

  Raises:
    Unusable: the clips, and how to run all the same.
  """
  found = [] if x.config.data.allow_leaks else processes.by_lead(lambda: _leaks(x))
  if found and x.config.until != 'prepare':
    raise Unusable(found[0])
  for told in found if processes.lead() else ():
    print(f'prepare: {told}', file=sys.stderr)

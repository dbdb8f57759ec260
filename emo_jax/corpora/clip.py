"""A clip and its labels: what every corpus reader hands to the pipeline (pipeline step: clips in)."""

import collections
import dataclasses
import hashlib
import itertools
import pathlib
from collections.abc import Iterable, Sequence

import joblib

from emo_jax import processes

_HASHED: dict[tuple[pathlib.Path, int, int, int], str] = {}  # path, size and times -> hash


@dataclasses.dataclass(frozen=True)
class Clip:
  """One recording with its label. A film file is both `picture` and `sound`; half a clip has one of them.

  Attributes:
    id: unique in its corpus.
    picture: the file that holds the face, or None.
    sound: the file that holds the voice, or None.
    speaker: who speaks; speakers, never clips, are dealt to training and test.
    emotion: the class label, a word.
    corpus: the corpus's name.
    sentence: what is said, where known.
    group: the published speaker group, where there is one.
    role: 'evaluate', or 'train_only' for a clip that may be learnt from and is never judged.
    split: 'train' | 'held' | 'test' where the corpus fixes a single fold (rule 'fixed').
  """

  id: str
  picture: pathlib.Path | None
  sound: pathlib.Path | None
  speaker: str
  emotion: str
  corpus: str
  sentence: str | None = None
  group: str | None = None
  role: str = 'evaluate'
  split: str | None = None

  @property
  def files(self) -> list[pathlib.Path]:
    """The media files of the clip, each once."""
    return list(dict.fromkeys(path for path in (self.picture, self.sound) if path is not None))


LeftOut = tuple[str, str]  # a file or folder of an archive that is no clip of the experiment, and why


@dataclasses.dataclass(frozen=True)
class Listing:
  """What a reader found.

  Attributes:
    clips: what an experiment may use.
    left_out: what it may not, each with its reason.
    warnings: sentences about the archive, as counts that differ from what its corpus says.
  """

  clips: list[Clip]
  left_out: list[LeftOut] = dataclasses.field(default_factory=list)
  warnings: list[str] = dataclasses.field(default_factory=list)

  def narrowed(self, *, emotions: Sequence[str], exclude_speakers: Sequence[str]) -> 'Listing':
    """The listing with these emotions alone (all, where none is named) and without these speakers.

    Raises:
      ValueError: an emotion or a speaker that no clip has.
    """
    for name, wanted, there in (
      ('emotions', emotions, {clip.emotion for clip in self.clips}),
      ('exclude_speakers', exclude_speakers, {clip.speaker for clip in self.clips}),
    ):
      if unknown := sorted({str(value) for value in wanted} - there):
        raise ValueError(f'config.data.{name}: {", ".join(unknown)} in no clip; there are {", ".join(sorted(there))}')
    clips, left_out = [], list(self.left_out)
    for clip in self.clips:
      reason = ''
      if clip.speaker in map(str, exclude_speakers):  # a flag's 23 is a number
        reason = f'speaker {clip.speaker} is in config.data.exclude_speakers'
      elif emotions and clip.emotion not in emotions:
        reason = f'{clip.emotion} is not in config.data.emotions'
      if reason:
        left_out += [(str(path), reason) for path in clip.files]
      else:
        clips.append(clip)
    return dataclasses.replace(self, clips=clips, left_out=left_out)


def classes(clips: Iterable[Clip]) -> list[str]:
  """The emotions that are judged, sorted: the order of every label, score and confusion matrix."""
  return sorted({clip.emotion for clip in clips if clip.role == 'evaluate'})


def check(clips: Sequence[Clip]) -> None:
  """Refuses a clip list that no experiment can be run on.

  Raises:
    ValueError: no clips, an id used twice, a clip without media, or fewer than two emotions.
  """
  if not any(clip.role == 'evaluate' for clip in clips):
    raise ValueError('the corpus holds no clips to evaluate; check config.data.root')
  twice = [name for name, count in collections.Counter(clip.id for clip in clips).items() if count > 1]
  if twice:
    raise ValueError(f'clip ids must be unique; used more than once: {", ".join(twice[:5])}')
  empty = [clip.id for clip in clips if not clip.files]
  if empty:
    raise ValueError(f'clips without sound and without picture: {", ".join(empty[:5])}')
  if len(classes(clips)) < 2:
    raise ValueError(f'at least two emotions are needed; the corpus has only {classes(clips)}')
  unknown = sorted({clip.emotion for clip in clips} - set(classes(clips)))
  if unknown:
    raise ValueError(f'train_only clips hold emotions that are never judged: {", ".join(unknown)}')


def content_hash(path: pathlib.Path) -> str:
  """SHA-256 of a file's bytes, in hex; of what is missing, unreadable or no regular file 'why: its name'."""
  try:
    if path.exists() and not path.is_file():  # a pipe would be waited for, a device never ends
      return f'no regular file: {path.name}'
    with open(path, 'rb') as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()
  except (OSError, ValueError) as error:  # ValueError: a name that no file can have
    return f'{getattr(error, "strerror", None) or error}: {path.name}'


def content_hashes(clips: Iterable[Clip]) -> dict[pathlib.Path, str]:
  """Media file -> hash of its content (`content_hash`), of all files of the clips, read in threads.

  The processes of a team, which must have the same clips, read a part each. A file that has not changed since, by size
  and times, is not read again by any of them: a sweep asks for each cell.
  """
  files = sorted({path for clip in clips for path in clip.files})
  threads = joblib.Parallel(n_jobs=-1, prefer='threads')
  own = threads(joblib.delayed(_hash_once)(number, files[number]) for number in processes.share([*range(len(files))]))
  hashes = {}
  for number, facts, found in itertools.chain.from_iterable(processes.exchange(own)):
    hashes[files[number]] = found
    if facts and ':' not in found:  # what could not be read may be next time
      _HASHED[(files[number].absolute(), *facts)] = found
  return {path: hashes[path] for path in files}


def _hash_once(number: int, path: pathlib.Path) -> tuple[int, tuple[int, ...], str]:
  """Which file it is, its size and times (nothing of one that cannot be looked at), its hash."""
  try:
    stat = path.stat()
  except (OSError, ValueError):
    return number, (), content_hash(path)
  facts = stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
  return number, facts, _HASHED.get((path.absolute(), *facts)) or content_hash(path)

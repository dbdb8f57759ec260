"""An archive as users have it: walked whatever its folders, and compared with what its corpus says (clips in)."""

import collections
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

from emo_jax.corpora.clip import Clip, LeftOut, Listing

FILMS = ('.3gp', '.avi', '.flv', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.mts', '.ogv', '.webm', '.wmv')
SOUNDS = ('.aac', '.aif', '.aiff', '.flac', '.m4a', '.mp3', '.ogg', '.opus', '.wav', '.wma')
MEDIA = FILMS + SOUNDS
_LFS = b'version https://git-lfs'


def ending(path: pathlib.Path) -> str:
  """What a file's name ends in, as '.avi', whatever its case."""
  return path.suffix.strip().lower()


def walk(root: str | pathlib.Path, endings: Sequence[str] = FILMS) -> tuple[list[pathlib.Path], list[LeftOut]]:
  """The files below a folder whose names end so (in upper or lower case), in a fixed order, and what cannot be taken.

  Links are followed, each folder once and never to one that holds the archive, so loops end; a folder that lies in
  the archive is seen there, not through a link to it. Left out are folders that cannot be read, companion files of
  macOS, links to nothing, and pointers that Git LFS puts in place of files that were not fetched.

  Raises:
    ValueError: root is no folder.
  """
  if not os.path.isdir(root):
    raise ValueError(f'{str(root)!r}: no such folder; unpack the archive and point config.data.root at it')
  found: list[pathlib.Path] = []
  left_out: list[LeftOut] = []

  def unreadable(error: OSError) -> None:
    left_out.append((str(error.filename), f'the folder cannot be read: {error.strerror}'))

  seen = {_identity(folder) for folder in pathlib.Path(root).resolve().parents}
  starts = collections.deque([str(root)])  # links to folders wait here until all that lies in the archive is seen
  while starts:
    for folder, below, names in os.walk(starts.popleft(), onerror=unreadable):
      if _identity(folder) in seen:
        below.clear()
        continue
      seen.add(_identity(folder))
      below.sort()
      starts += [path for path in (os.path.join(folder, name) for name in below) if os.path.islink(path)]
      for path in (pathlib.Path(folder, name) for name in sorted(names)):
        if ending(path) not in endings:
          continue
        if reason := _no_media(path):
          left_out.append((str(path), reason))
        else:
          found.append(path)
  return found, left_out


def _identity(folder: str | pathlib.Path) -> tuple[int, int]:
  status = os.stat(folder)
  return status.st_dev, status.st_ino


def _no_media(path: pathlib.Path) -> str:
  """Why a file with a film's name holds no film, as far as its name and first bytes say; '' otherwise."""
  if path.name.startswith('._'):
    return 'a companion file of macOS, not the film'
  try:
    if not path.is_file():
      return 'leads to no file: a broken link, or one whose file was not fetched'
    if path.stat().st_size < 1000:
      with open(path, 'rb') as file:
        if file.read(len(_LFS)) == _LFS:
          return 'a pointer of Git LFS, not the film: fetch the files (git lfs pull)'
  except OSError:
    pass  # whatever it is, preparing it will say so
  return ''


def listing(
  root: str, clip_of: Callable[[pathlib.Path], Clip | str], *, example: str, endings: Sequence[str] = FILMS
) -> Listing:
  """The clips of an archive, sorted by id.

  Args:
    clip_of: a file to its clip, or to the reason why it is none. Of two files with one id, as where an archive was
      unpacked twice, the first is kept.
    example: what a file of the corpus is called.
    endings: of the files that may be clips; other media are left out.

  Raises:
    ValueError: no such folder, or no clip below it.
  """
  paths, left_out = walk(root, MEDIA)
  kept: dict[str, Clip] = {}
  for path in paths:
    other = f'no {ending(path)} file is a clip here; clips are like {example}'
    clip = clip_of(path) if ending(path) in endings else other
    if isinstance(clip, str):
      left_out.append((str(path), clip))
    elif first := kept.get(clip.id):
      left_out.append((str(path), f'another file of clip {clip.id}; kept is {first.files[0]}'))
    else:
      kept[clip.id] = clip
  if not kept:
    why = f' ({len(left_out)} left out, the last: {left_out[-1][0]}: {left_out[-1][1]})' if left_out else ''
    raise ValueError(
      f'{root}: no clip like {example} below it{why}; point config.data.root at the unpacked archive, or a folder above'
    )
  return Listing([kept[name] for name in sorted(kept)], left_out)


def differences(
  clips: Sequence[Clip], *, clips_expected: int, emotions: Mapping[str, int], kind: str = 'clips'
) -> list[str]:
  """One sentence where the archive does not hold what its corpus says; none where it does.

  Args:
    clips_expected: in the whole corpus.
    emotions: clips of each emotion in the whole corpus; may be empty where that is not known.
    kind: what is counted, where `clips` are not all of the corpus.
  """
  counts = collections.Counter(clip.emotion for clip in clips)
  parts = [f'{counts[name]} of {count} {name}' for name, count in emotions.items() if counts[name] != count]
  parts += [f'{count} {name} (none expected)' for name, count in counts.items() if emotions and name not in emotions]
  if len(clips) == clips_expected and not parts:
    return []
  detail = f' ({", ".join(parts)})' if parts else ''
  return [f'the corpus has {clips_expected} {kind}, this archive {len(clips)}{detail}']

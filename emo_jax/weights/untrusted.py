"""Opening files from strangers (step: published weights): mapped, not copied, and every failure a ValueError."""

import contextlib
import mmap
import os
from collections.abc import Iterator

BEGINNINGS = (
  (b'version https://git-lfs', 'a Git LFS pointer, not the file that it stands for: run "git lfs pull"'),
  (b'PK\x03\x04', 'a zip file'),
  (b'\x1f\x8b', 'a gzip file: unpack it'),
  (b'\x89HDF', 'an HDF5 file'),
  (b'MATLAB 7', "a MATLAB 7.3 file, which is HDF5: save it with -v7 in MATLAB's format 5"),
  (b'MATLAB 5.0', 'a MATLAB 5 file'),
  (b'\x80', 'a pickle'),
)


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], expected: str) -> Iterator[mmap.mmap]:
  """Maps a file into memory, read-only; whatever fails inside says which file, what was expected and what was found.

  Arrays may go on looking into the map: it lasts as long as they do.

  Args:
    path: the file.
    expected: its kind, as "a caffemodel".

  Raises:
    ValueError: no such file, or anything that was raised inside.
  """
  if not os.path.isfile(path):
    raise ValueError(f'{os.fspath(path)}: no such file; expected {expected}')
  try:
    with open(path, 'rb') as file:
      data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if os.path.getsize(path) else None
  except OSError as error:
    raise ValueError(f'{os.fspath(path)}: {error.strerror}; expected {expected}') from None
  if data is None:
    raise ValueError(f'{os.fspath(path)}: expected {expected}, found an empty file')
  try:
    yield data
  except Exception as error:  # A hostile file makes a parser stumble in any way.
    why = str(error) if isinstance(error, ValueError) else f'{type(error).__name__} ({error})'
    where = f'{os.fspath(path)} ({len(data):,} bytes)'
    raise ValueError(f'{where}: expected {expected}, found {_kind(data)}: {why}') from None


def _kind(data: mmap.mmap) -> str:
  head = data[:512]
  for beginning, kind in BEGINNINGS:
    if head.startswith(beginning):
      return kind
  if head.lstrip()[:9].lower().startswith((b'<!doctype', b'<html', b'<?xml', b'<head')):
    return 'a web page, as of a download that failed'
  if head.isascii() and all(byte >= 32 or byte in b'\t\r\n' for byte in head):
    return f'text ({head[:40].decode()!r})'
  return f'a file that begins with {head[:8].hex(" ")}'

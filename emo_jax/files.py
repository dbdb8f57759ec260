"""Files that a killed run leaves usable: texts that are there whole or not at all, and lists of JSON lines that grow
(all steps of the pipeline)."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any, TextIO


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[TextIO]:
  """A text file to write into; it takes its name when it is whole, and the place of what had it.

  What is no text (bytes of file names) is written as escapes.
  """
  partial = path.with_name(f'{path.name}.partial')
  with open(partial, 'w', newline='', encoding='utf-8', errors='backslashreplace') as file:
    yield file
  partial.replace(path)


def add_to(path: pathlib.Path) -> TextIO:
  """Opens a list of lines to add to. A last line that was cut off is ended first: the next one is not part of it."""
  with open(path, 'ab+') as file:
    if file.tell():
      file.seek(-1, os.SEEK_END)
      file.write(b'' if file.read(1) == b'\n' else b'\n')
  return open(path, 'a', encoding='utf-8')


def add(path: pathlib.Path, entry: dict[str, Any]) -> None:
  """Adds a line to a list of JSON lines."""
  with add_to(path) as file:
    file.write(json.dumps(entry) + '\n')


def entries(path: pathlib.Path) -> list[dict[str, Any]]:
  """What a list of JSON lines holds, without those that were cut off; nothing where there is no file."""
  found = []
  for line in path.read_bytes().splitlines() if path.exists() else ():
    with contextlib.suppress(ValueError):
      found.append(json.loads(line))
  return found

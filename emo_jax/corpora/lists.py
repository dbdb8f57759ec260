"""Somebody's lists of clips, as they are published: CSV with any header or none, or a line of JSON a clip (audit)."""

import csv
import functools
import io
import json
import pathlib
import re
from typing import Any

from emo_jax.context import Unusable
from emo_jax.corpora import archive
from emo_jax.corpora.clip import Clip

PATHS = ('path', 'wav', 'key')  # the columns that may name a clip, the first of them counts


def read(path: str, side: str, *, name: str | None, root: str | None) -> list[Clip]:
  """The clips of a list, all on one side.

  Args:
    path: a CSV or jsonl file; a table with a header or without, or objects (see the docstring of emo_jax/audit.py).
    name: takes paths apart, for what the columns lack.
    root: the folder of the media; None for the list's own.

  Raises:
    Unusable: no such file, no rows, or a row that does not say who speaks.
  """
  try:
    with open(path, newline='', encoding='utf-8-sig', errors='surrogateescape') as file:
      text = file.read()
    rows = _objects(text) if path.lower().endswith('.jsonl') else _table(text, bare=name is not None)
  except (OSError, csv.Error, ValueError) as error:
    raise Unusable(f'{path}: cannot be read as a list: {error}') from error
  if not rows:
    raise Unusable(f'{path}: lists no clip')
  entries = [_entry(row, name) for row in rows]
  if silent := [entry for entry in entries if not (entry['path'] and entry.get('speaker'))]:
    why = 'columns path and speaker' if name is None else f'a path in which --name={name} finds a group "speaker"'
    raise Unusable(f'{path}: {len(silent)} of {len(entries)} rows lack {why}, the first {silent[0]}')
  return [_listed(entry, side, path, root) for entry in entries]


def _objects(text: str) -> list[dict[str, Any]]:
  rows = [json.loads(line) for line in text.split('\n') if line.strip()]
  if not all(isinstance(row, dict) for row in rows):
    raise ValueError('a line is no object {"path": ..., "speaker": ...}')
  return rows


def _table(text: str, *, bare: bool) -> list[dict[str, Any]]:
  """Rows by column; of a table without a header, if that may be, the first column alone."""
  first = next((line for line in text.splitlines() if line.strip()), '')
  delimiter = max(',;\t', key=re.sub('"[^"]*"', '', first).count)
  reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, skipinitialspace=True)
  rows = [row for row in reader if any(row)]
  header = [cell.strip().lower() for cell in rows[0]] if rows else []
  if set(PATHS) & set(header):
    return [dict(zip(header, row, strict=False)) for row in rows[1:]]
  if rows and not bare:
    raise ValueError(
      f'its first line, {first[:80]!r}, names no column path; for a bare list say by --name=REGEX who speaks'
    )
  return [{'path': row[0]} for row in rows]


def _entry(row: dict[str, Any], name: str | None) -> dict[str, str]:
  """Path, speaker and what else is known of a clip: by its columns, or else by --name."""
  said = {column.strip().lower(): str(cell) for column, cell in row.items() if cell is not None}
  cells = {column: cell if column in PATHS else cell.strip() for column, cell in said.items()}
  path = next((cells[column] for column in PATHS if cells.get(column)), '')
  columns = {'emotion': cells.get('label'), **cells}
  return {**_taken_apart(path, name), **{column: cell for column, cell in columns.items() if cell}, 'path': path}


def _taken_apart(text: str, name: str | None) -> dict[str, str]:
  try:
    match = re.search(name, text) if name else None
  except re.error as error:
    raise Unusable(f'--name={name}: no regular expression ({error})') from error
  return {group: value.strip() for group, value in match.groupdict().items() if value} if match else {}


def _listed(entry: dict[str, str], side: str, path: str, root: str | None) -> Clip:
  film = _find(entry['path'], path, root)
  sound = _find(entry['sound'], path, root) if entry.get('sound') else film
  emotion, sentence = entry.get('emotion') or '', entry.get('sentence') or None
  return Clip(entry['path'], film, sound, entry['speaker'], emotion, 'list', sentence, split=side)


def _find(name: str, path: str, root: str | None) -> pathlib.Path:
  """The media file that a list names: beside the list; or below the root, where folders and endings may be left out."""
  whole = pathlib.Path(root or pathlib.Path(path).parent, name)
  if root is None or whole.exists():
    return whole
  wanted = pathlib.PurePath(name)
  found = (file for file, parts in _media(root).get(wanted.name, []) if parts[-len(wanted.parts) :] == wanted.parts)
  return next(found, whole)


@functools.cache
def _media(root: str) -> dict[str, list[tuple[pathlib.Path, tuple[str, ...]]]]:
  """The media below a folder, by name and by name without an ending: the file, and the parts of its path so."""
  known: dict[str, list[tuple[pathlib.Path, tuple[str, ...]]]] = {}
  for path in archive.walk(root, archive.MEDIA)[0]:
    for named in (path, path.with_suffix('')):
      known.setdefault(named.name, []).append((path, named.parts))
  return known

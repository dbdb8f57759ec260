"""Any collection of clips, listed in a CSV file (pipeline step: clips in).

Columns: `path, speaker, emotion`, and optionally `sound, group, sentence, split`. Paths are absolute or relative to
the CSV's folder. `path` is the film, or a sound file of its own; `sound` names a separate sound track.
`split` = train | held | test fixes a single fold (rule 'fixed').
"""

import csv
import pathlib

from emo_jax.corpora.clip import Clip, Listing

REQUIRED = ('path', 'speaker', 'emotion')
OPTIONAL = ('sound', 'group', 'sentence', 'split')
FILES = ('path', 'sound')  # whose names may hold any byte
SPLITS = ('train', 'held', 'test')


def read(root: str) -> Listing:
  """Lists the clips of the CSV file `root`.

  Raises:
    ValueError: no such file, a column missing or unknown, or a row with an empty or impossible value (all are listed).
  """
  table = pathlib.Path(root)
  if not table.is_file():
    raise ValueError(f'{root}: no such file; point config.data.root at a CSV with columns {", ".join(REQUIRED)}')
  # Surrogate escapes keep the bytes of file names that are no UTF-8.
  with open(table, newline='', encoding='utf-8-sig', errors='surrogateescape') as file:
    reader = csv.DictReader(file, skipinitialspace=True)
    columns = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = columns
    missing = [name for name in REQUIRED if name not in columns]
    unknown = [name for name in columns if name not in REQUIRED + OPTIONAL]
    if missing or unknown:
      raise ValueError(
        f'{root}: missing columns {missing}, unknown columns {unknown}; required {REQUIRED}, optional {OPTIONAL}'
      )
    lines, rows, problems = [], [], []
    for row in reader:
      if None in row:
        problems.append(f'line {reader.line_num}: more cells than columns; put quotes about a comma')
      lines.append(reader.line_num)
      rows.append({key: (value or '').strip() for key, value in row.items() if key})
  for line, row in zip(lines, rows, strict=True):
    problems += [f'line {line}: {name} is empty' for name in REQUIRED if not row[name]]
    broken = [name for name in row if name not in FILES and not row[name].isprintable()]
    problems += [f'line {line}: {name} is {row[name]!a}, not UTF-8; save the table as CSV UTF-8' for name in broken]
    if row.get('split') and row['split'] not in SPLITS:
      problems.append(f'line {line}: split is {row["split"]!r}, not one of {", ".join(SPLITS)}')
  if problems:
    raise ValueError(f'{root}: ' + '; '.join(problems[:10]) + (' ...' if len(problems) > 10 else ''))
  return Listing([_clip(table.parent, row) for row in rows])


def _clip(folder: pathlib.Path, row: dict[str, str]) -> Clip:
  film = folder / row['path']
  return Clip(
    id=row['path'],
    picture=film,
    sound=folder / row['sound'] if row.get('sound') else film,
    speaker=row['speaker'],
    emotion=row['emotion'],
    corpus='manifest',
    sentence=row.get('sentence') or None,
    group=row.get('group') or None,
    split=row.get('split') or None,
  )

"""BAUM-1s: spontaneous emotions and mental states in Turkish, filmed (pipeline step: clips in).

Zhalehpour, Onder, Akhtar, Erdem, "BAUM-1: A Spontaneous Audio-Visual Face Database of Affective and Mental States",
IEEE Trans. Affective Computing 8(3), 2017. Home: UCI Machine Learning Repository, record 473; given against a signed
licence form. Protocol of Zhang et al.: the six basic emotions, leave one of 5 groups of speakers out (method.md A6).

Layout (method.md B3): `BAUM1s_MP4 - All/s001/S001_015.mp4`. The labels are in `Annotations_BAUM1s.xlsx`, or in a
table exported from it (.csv, .tsv, .txt); they are found by what the columns hold, so rows of film, emotion, code and
gender do as well. `BAUM1a` holds the acted clips, which are another corpus.
"""

import codecs
import collections
import csv
import pathlib
import re
from collections.abc import Mapping, Sequence

from emo_jax.corpora import archive
from emo_jax.corpora.clip import Clip, Listing

EMOTIONS = (  # by their codes, from 1
  *('anger', 'boredom', 'bothered', 'concentrating', 'contempt', 'disgust', 'fear'),
  *('happiness', 'neutral', 'sadness', 'surprise', 'thinking', 'unsure'),
)
BASIC = ('anger', 'disgust', 'fear', 'happiness', 'sadness', 'surprise')
# What a person who looked at a film saw where the sheet's word and code differ (method.md B3).
SEEN = {'S015_007': 'happiness'}
ENDINGS = ('.xlsx', '.csv', '.tsv', '.txt')  # of sheets; the original first
SHEET = re.compile(r'baum[\s_-]?1[\s_-]?s(?![a-z])', re.IGNORECASE)
ACTED = re.compile(r'baum[\s_-]?1[\s_-]?a(?![a-z])', re.IGNORECASE)
NAME = re.compile(r'(s(\d{3})_\d{3})(?:\.mp4)?', re.IGNORECASE)
SPEAKER = re.compile(r's\s*(\d+)', re.IGNORECASE)
CODE = re.compile(r'0*([1-9]|1[0-3])(?:\.0)?')
WORD = re.compile(  # one bracket for each of EMOTIONS
  r'(anger|angry)|(bored(?:om)?)|(bother(?:ed)?)|(concentrat(?:ing|ed|ion))|(contempt)|(disgust(?:ed)?)|(fear(?:ful)?)'
  r'|(happy|happiness|joy)|(neutral)|(sad(?:ness)?)|(surprised?)|(thinking)|(unsure)',
  re.IGNORECASE,
)
NEEDED = (
  'needed are a column of clip names (S001_015) and one of emotions: words, or codes 1 to 13 under a header with '
  '"emotion" or in the sixth column'
)


def _emotion(cell: str) -> str:
  """The emotion that a cell gives by word or by code; the cell itself where it gives none."""
  if word := WORD.fullmatch(cell):
    return EMOTIONS[(word.lastindex or 0) - 1]
  code = CODE.fullmatch(cell)
  return EMOTIONS[int(code[1]) - 1] if code else cell


def _tables(path: pathlib.Path) -> list[list[list[str]]]:
  """The tables of a sheet: rows of cells, without the spaces about them."""
  if archive.ending(path) == '.xlsx':
    import openpyxl

    with open(path, 'rb') as file:  # which openpyxl would leave open where it stumbles
      sheets = openpyxl.load_workbook(file, data_only=True).worksheets
    return [
      [['' if cell is None else str(cell).strip() for cell in row] for row in sheet.iter_rows(values_only=True)]
      for sheet in sheets
    ]
  raw = path.read_bytes()
  wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # Excel's "Unicode text"
  lines = raw.decode('utf-16' if wide else 'utf-8-sig', errors='replace').splitlines()
  clips = [line for line in lines if NAME.search(line)]
  delimiter = next((mark for mark in '\t;' if clips and all(mark in line for line in clips)), ',')
  return [[[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]]


def _columns(rows: Sequence[Sequence[str]], header: Sequence[str], name: int) -> list[int]:
  """The columns of the emotion: of its word, of its code, or of both; none where they cannot be told.

  Args:
    rows: those of clips.
    header: the row above them.
    name: the column of the clips' names.
  """

  def mostly(kind: re.Pattern[str]) -> list[int]:
    counts = collections.Counter(i for row in rows for i, cell in enumerate(row) if kind.fullmatch(cell))
    return [i for i in sorted(counts) if 2 * counts[i] > len(rows) and i != name]

  def agreement(pair: tuple[int, int]) -> int:
    return sum(len(row) > max(pair) and _emotion(row[pair[0]]) == _emotion(row[pair[1]]) for row in rows)

  words, codes = mostly(WORD), mostly(CODE)
  if words:  # other columns of numbers, as subjects, agree with no word
    best = max(((word, code) for word in words for code in codes), key=agreement, default=None)
    return list(best) if best and 2 * agreement(best) > len(rows) else words[:1]
  headed = [i for i in codes if i < len(header) and 'emotion' in header[i].lower()]
  return headed[:1] or [i for i in codes if i == 5]


def _labels(sheet: pathlib.Path) -> dict[str, set[str]]:
  """What a sheet says of each clip; more than one emotion where it contradicts itself, none where it says nothing.

  Raises:
    ValueError: a sheet that cannot be read or understood.
  """
  try:
    tables = _tables(sheet)
  except ImportError:
    raise
  except Exception as error:  # whatever the readers of zip, XML and CSV let through
    raise ValueError(
      f'{sheet}: cannot be read as a sheet ({type(error).__name__}: {error}); save it anew as .xlsx or .csv'
    ) from error
  table = max(tables, key=lambda rows: sum(bool(NAME.fullmatch(cell)) for row in rows for cell in row), default=[])
  places = collections.Counter(i for row in table for i, cell in enumerate(row) if NAME.fullmatch(cell))
  name = max(places, key=lambda i: places[i], default=0)
  of_clips = [i for i, row in enumerate(table) if len(row) > name and NAME.fullmatch(row[name])]
  first = of_clips[0] if of_clips else 1
  header = table[max(first - 1, 0)] if table else []
  rows = [table[i] for i in of_clips]
  if not (columns := _columns(rows, header, name)):
    raise ValueError(f'{sheet}: the labels were not found; its header is {header}; {NEEDED}')
  labels: dict[str, set[str]] = {}
  for row in rows:
    clip = row[name].upper().removesuffix('.MP4')
    labels.setdefault(clip, set()).update(_emotion(row[i]) for i in columns if i < len(row) and row[i])
  return labels


def _sheet(root: str) -> tuple[pathlib.Path, list[str]]:
  """The annotation sheet below root, the original before exported ones, and a warning that names the others.

  Raises:
    ValueError: there is none.
  """
  paths, _ = archive.walk(root, ENDINGS)
  sheets = [path for path in paths if SHEET.search(path.stem) and not path.name.startswith('~$')]
  sheets.sort(key=lambda path: ('annot' not in path.stem.lower(), ENDINGS.index(archive.ending(path))))
  if not sheets:
    raise ValueError(
      f'{root}: no Annotations_BAUM1s.xlsx below it, nor a table ({", ".join(ENDINGS[1:])}) with BAUM1s in its name'
    )
  others = ', '.join(str(path) for path in sheets[1:])
  return sheets[0], [f'the labels are those of {sheets[0]}; not looked at: {others}'] if others else []


def _clip(path: pathlib.Path, root: pathlib.Path, labels: Mapping[str, set[str]]) -> Clip | str:
  """The clip, or why a film is none."""
  folders = path.relative_to(root).parts[:-1]
  match = NAME.fullmatch(path.stem.strip())
  if any(ACTED.search(folder) for folder in folders):
    return 'an acted clip of BAUM-1a; BAUM-1s are the spontaneous ones'
  if match is None:
    return 'not a BAUM-1 name (S, subject, clip, as S001_015)'
  name, subject = match[1].upper(), match[2]
  folder = SPEAKER.fullmatch(folders[-1]) if folders else None
  if folder and int(folder[1]) != int(subject):
    return f'named as of subject {subject}, in the folder {folders[-1]}: one of them is wrong'
  if name not in labels:
    return 'not in the annotation sheet'
  said = sorted(labels[name])
  clear = len(said) == 1 and said[0] in EMOTIONS
  if not clear and name not in SEEN:
    return f'the annotation sheet says {" and ".join(said) or "nothing"}; needed is one emotion of BAUM-1s'
  return Clip(
    id=name,
    picture=path,
    sound=path,
    speaker=f's{subject}',
    emotion=said[0] if clear else SEEN[name],
    corpus='baum1s',
  )


def _warnings(clips: Sequence[Clip], labels: Mapping[str, set[str]], without: Sequence[str]) -> list[str]:
  """What an archive has that differs from the paper's account, and what to know of its labels."""
  basic = [clip for clip in clips if clip.emotion in BASIC]
  warnings = archive.differences(clips, clips_expected=1222, emotions={})
  warnings += archive.differences(basic, clips_expected=521, emotions={}, kind='clips of the six basic emotions')
  if without:
    names = ', '.join(without[:20]) + (', ...' if len(without) > 20 else '')
    warnings.append(f'clips of the annotation sheet without a film: {len(without)} ({names})')
  for clip in clips:
    if clip.id in SEEN:
      said = ' and '.join(sorted(labels[clip.id]))
      warnings.append(f'{clip.id} is ambiguous: the annotation sheet says {said}; kept as {clip.emotion}')
  return warnings


def read(root: str) -> Listing:
  """Lists the films that the annotation sheet gives an emotion, of all 13.

  Raises:
    ValueError: no such folder, no film of BAUM-1s or no annotation sheet below it, or one that cannot be understood.
  """
  sheet, warnings = _sheet(root)
  labels = _labels(sheet)
  found = archive.listing(root, lambda path: _clip(path, pathlib.Path(root), labels), example='s001/S001_015.mp4')
  there = {clip.id for clip in found.clips} | {pathlib.Path(file).stem.upper() for file, _ in found.left_out}
  return Listing(found.clips, found.left_out, [*warnings, *_warnings(found.clips, labels, sorted(set(labels) - there))])

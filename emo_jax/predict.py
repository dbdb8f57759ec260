"""What clips of one's own say: the emotion of each, and how it goes over time (all steps, by a model folder).

  python -m emo_jax.predict --model=M CLIP [CLIP ...] [--out=DIR [--film]] [--sound=FILE] [--limit=SECONDS]

A CLIP is a media file of any container, frame rate and length; or a folder, in which all files are taken, at any depth,
whose names end as media do (but for `.film.mp4`, which this program writes); or a pattern such as 'takes/*.mp4', ** for
any depth. A file that is named itself is tried whatever its ending. A file that is named twice is judged once. Where
the sound of a single clip is not in its film, --sound names it. Decoding is given up after --limit seconds without a
frame.

Prints a line a clip: its name, the verdict, how sure it is (of strangers' whole clips with 70 %, about 70 % should be
right), the next best, who judged (hybrid, or the one half that there is), what was missing and what was filled in.
Sentences about odd media, and about clips that cannot be used, go to standard error.

With --out, DIR gets of every clip
  NAME.json      all of it; inference.judge says what the fields are
  NAME.csv       a row a segment: start and end in seconds, the probability of each class by audio, visual and hybrid,
                 the face's box in px, 1 or 0 for sound and face, which half was filled in; empty where there is none
  NAME.png       the timeline (report/timeline.py)
  NAME.film.mp4  with --film: the clip with its face box and its emotions drawn in (report/film.py)
and summary.csv, a row a clip. NAME is the clip's file name without its ending; where several clips of one call would
have the same, the second gets NAME_2, the third NAME_3, in the order in which they are judged; summary.csv says which
is which. DIR is for one call: a new or an empty folder, or that of an earlier call, whose files of the same names are
replaced. No clip is ever written over. In both tables, texts that a spreadsheet would take for a formula have a '
before them.

Exit status: 0 all clips were answered; 1 some could not be used, or an argument names none; 2 flags, a model that
cannot be used, or a machine that stands in the way (a full disk); 130 and 143 stopped by Ctrl-C and SIGTERM.
"""

import contextlib
import csv
import glob
import io
import itertools
import json
import math
import os
import pathlib
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from absl import app, flags, logging

from emo_jax import command_line, files, inference, memory, own_clip
from emo_jax.context import Unusable
from emo_jax.corpora import archive
from emo_jax.frontend import decoder
from emo_jax.report import film, timeline

METHODS = timeline.METHODS
FILM = '.film.mp4'
ENDINGS = ('.json', '.csv', '.png', FILM)
BOX = ('box_x', 'box_y', 'box_width', 'box_height')
LONGEST = 200  # bytes of a name, which endings make longer; file systems have 255
FORMULA = ('=', '+', '-', '@', '\t', '\r', '\n')  # what a cell begins with that a spreadsheet runs


class Task(NamedTuple):
  """A clip to judge, and what its files are called."""

  path: pathlib.Path
  name: str


def visible(text: str) -> str:
  """Anybody's text for a terminal: what would move its cursor, or is no letter, as escapes."""
  return ''.join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def found(argument: str) -> tuple[list[pathlib.Path], list[str]]:
  """The clips that a command-line argument names, sorted where it names several, and sentences about the others."""
  path = pathlib.Path(argument)
  if path.is_dir():
    below, left_out = archive.walk(path, archive.MEDIA)
    clips = [clip for clip in below if not clip.name.lower().endswith(FILM)]
    told = [f'{name}: {why}' for name, why in left_out]
    return clips, told if clips or told else [f'{argument}: holds no file whose name ends as media do']
  if os.path.lexists(path):
    return [path], []
  matches = sorted(glob.glob(argument, recursive=True)) if glob.has_magic(argument) else []
  if not matches:
    return [], [f'{argument}: {"nothing fits this pattern" if glob.has_magic(argument) else "no such file"}']
  parts = [found(match) for match in matches]
  return [clip for clips, _ in parts for clip in clips], [sentence for _, told in parts for sentence in told]


def _cut(name: str) -> str:
  """A name without what is beyond LONGEST bytes, and no half letter at its end."""
  while len(os.fsencode(name)) > LONGEST:
    name = name[:-1]
  return name


def plan(clips: Iterable[pathlib.Path], out: pathlib.Path, used: Iterable[pathlib.Path]) -> list[Task]:
  """Each clip once, and what its files in `out` are called: no two alike, and none of them is a file that is used."""
  real = {os.path.realpath(path) for path in used}
  taken = {'summary'}  # in lower case: some file systems know no other
  tasks: dict[str, Task] = {}
  for clip in clips:
    if (key := os.path.abspath(clip)) in tasks:
      continue
    stem = _cut(clip.stem)
    names = itertools.chain([stem], (f'{stem}_{number}' for number in itertools.count(2)))
    free = lambda name: not any(os.path.realpath(out / f'{name}{ending}') in real for ending in ENDINGS)
    name = next(name for name in names if name.lower() not in taken and free(name))
    taken.add(name.lower())
    tasks[key] = Task(clip, name)
  return list(tasks.values())


def claim(out: pathlib.Path) -> None:
  """Makes the folder for what is written; one that is there is empty, or an earlier call has written it.

  Raises:
    Unusable: it holds something else, or is none.
  """
  if out.exists() and not out.is_dir():
    raise Unusable(f'--out={out} is no folder: name one that is empty or does not exist')
  out.mkdir(parents=True, exist_ok=True)
  if any(out.iterdir()) and not (out / 'summary.csv').exists():
    raise Unusable(f'--out={out} holds other things: name a folder that is empty or does not exist')


def said(result: Mapping[str, Any]) -> str:
  """A result in a line."""
  odds = {**result['methods'][result['by']]['probabilities']}
  odds.pop(result['verdict'])
  parts = [f'{result["verdict"]} {timeline.share(result["confidence"])}']
  if odds:
    second = max(odds, key=odds.__getitem__)
    parts.append(f'next {second} {timeline.share(odds[second])}')
  parts.append('by hybrid' if result['by'] == 'hybrid' else f'by {result["by"]} alone')
  missing = result['missing']
  for half in ('sound', 'a face'):
    if count := missing[f'without_{half.split()[-1]}']:
      parts.append(f'{count} of {missing["segments"]} segments without {half}')
  if missing['filled']:
    parts.append(f'{missing["filled"]} filled in ({missing["how"]})')
  return visible(', '.join(parts))


def cell(value: Any) -> Any:
  """A value as a spreadsheet may have it: none is empty, yes and no are 1 and 0, and no text is a formula."""
  if isinstance(value, str):
    return f"'{value}" if value.startswith(FORMULA) else value
  return '' if value is None else int(value) if isinstance(value, bool) else value


def write_table(path: pathlib.Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
  """A CSV file; what a row does not have stays empty."""
  with files.whole(path) as file:
    # Texts in quotation marks: where a semicolon parts cells, none of them begins within a text.
    writer = csv.writer(file, lineterminator='\n', quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(map(cell, columns))
    writer.writerows([cell(row.get(column)) for column in columns] for row in rows)


def segment_columns(classes: Sequence[str]) -> list[str]:
  """The columns of a clip's table."""
  odds = [f'{method}_{name}' for method in METHODS for name in classes]
  return ['start', 'end', *odds, *BOX, 'has_sound', 'has_face', 'filled']


def segment_row(segment: Mapping[str, Any]) -> dict[str, Any]:
  """A segment of a result as a row of its clip's table."""
  odds = {f'{method}_{name}': part for method in METHODS for name, part in (segment[method] or {}).items()}
  box = dict(zip(BOX, segment['box'] or [None] * len(BOX), strict=True))
  return {**{name: segment[name] for name in ('start', 'end', 'has_sound', 'has_face', 'filled')}, **odds, **box}


def summary_columns(classes: Sequence[str]) -> list[str]:
  """The columns of summary.csv."""
  odds = [f'probability_{name}' for name in classes]
  counts = ['segments', 'without_sound', 'without_face', 'filled', 'how']
  return ['clip', 'name', 'verdict', 'confidence', 'by', 'seconds', *counts, *odds, 'problem']


def summary_row(task: Task, result: Mapping[str, Any]) -> dict[str, Any]:
  """A clip as a row of summary.csv."""
  odds = {f'probability_{name}': part for name, part in result['methods'][result['by']]['probabilities'].items()}
  of_clip = {name: result[name] for name in ('verdict', 'confidence', 'by', 'seconds')}
  return {'clip': str(task.path), 'name': task.name, **of_clip, **result['missing'], **odds}


@contextlib.contextmanager
def replaced(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Where to write a file that takes its name when it is whole; what is not is removed."""
  partial = path.with_name(f'{path.name}.partial')
  try:
    yield partial
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


def write(out: pathlib.Path, name: str, result: Mapping[str, Any]) -> None:
  """A result as JSON, CSV and PNG."""
  with files.whole(out / f'{name}.json') as file:
    json.dump(result, file, ensure_ascii=False, allow_nan=False, indent=1)
  write_table(out / f'{name}.csv', map(segment_row, result['segments']), segment_columns(result['classes']))
  with replaced(out / f'{name}.png') as picture:
    timeline.draw(picture, result)


def judged(
  model: inference.Model, task: Task, *, out: pathlib.Path | None, with_film: bool, sound: str | None, limit: float
) -> tuple[dict[str, Any], str]:
  """Judges a clip and writes its files; the result, and why there is no film although one is wanted.

  Raises:
    own_clip.Unreadable: nothing in the clip can be used.
    OSError, decoder.MachineFailure: no fault of the clip's.
  """
  with model.opened(task.path, sound, limit=limit) as clip:
    result = inference.judge(model, clip)
    if out is not None:
      write(out, task.name, result)
    if out is None or not with_film:
      return result, ''
    track = clip.store.facts(0, 'faces') if clip.records[0]['faces'] else None
    try:
      with replaced(out / f'{task.name}{FILM}') as target:
        film.annotate_apart(str(task.path), result, track, target, sound=sound)
    except (OSError, ValueError) as error:
      return result, f'no film: {error}'
  return result, ''


def run(
  model: inference.Model,
  tasks: Sequence[Task],
  *,
  out: pathlib.Path | None = None,
  with_film: bool = False,
  sound: str | None = None,
  limit: float = own_clip.LIMIT_S,
) -> int:
  """Judges clip after clip, tells of each, and writes what is wanted; how many could not be answered in full."""
  rows: list[dict[str, Any]] = []
  try:
    for task in tasks:
      name = visible(str(task.path))
      try:
        result, problem = judged(model, task, out=out, with_film=with_film, sound=sound, limit=limit)
      except own_clip.Unreadable as error:
        problem = str(error).removeprefix(f'{task.path.name}: ').removeprefix(f'{task.path.absolute()}: ')
        rows.append({'clip': str(task.path), 'problem': problem})
      else:
        rows.append({**summary_row(task, result), 'problem': problem})
        print(f'{name}: {said(result)}', flush=True)
        tell(f'{name}: {warning}' for warning in result['warnings'])
      tell([f'{name}: {problem}'] if problem else [])
  finally:
    if out is not None:
      write_table(out / 'summary.csv', rows, summary_columns(model.classes))
  return sum(bool(row['problem']) for row in rows)


def tell(sentences: Iterable[str]) -> None:
  """Sentences for whoever looks on."""
  for sentence in sentences:
    print(visible(sentence), file=sys.stderr, flush=True)


def main(argv: list[str]) -> int:
  """Flags to answers and exit status."""
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='backslashreplace')  # names may hold anything
  logging.set_verbosity(logging.FATAL)  # Orbax and JAX tell of much
  memory.keep_freed_memory()
  signal.signal(signal.SIGTERM, _stop)
  try:
    return _main(argv[1:], flags.FLAGS)
  except KeyboardInterrupt:
    return 130
  except (ValueError, OSError, decoder.MachineFailure) as error:
    tell([f'predict: {error}'])
    return 2


def _stop(number: int, frame: Any) -> None:
  raise SystemExit(128 + number)


def _main(arguments: Sequence[str], given: Any) -> int:
  if not arguments:
    raise Unusable('name a clip, a folder of clips or a pattern (--help tells all)')
  if given.film and not given.out:
    raise Unusable('--film needs --out=DIR, where the film goes')
  looked = [found(argument) for argument in arguments]
  clips = [clip for of, _ in looked for clip in of]
  tell(sentence for _, told in looked for sentence in told)
  out = pathlib.Path(given.out) if given.out else None
  tasks = plan(clips, out or pathlib.Path(), [*clips, *([pathlib.Path(given.sound)] if given.sound else [])])
  if given.sound and len(tasks) != 1:
    raise Unusable(f'--sound={given.sound} is the sound of one clip; here are {len(tasks)}')
  if not tasks:
    return 1
  if out is not None:
    claim(out)
  if not math.isfinite(given.limit):
    raise Unusable(f'--limit={given.limit}: a number of seconds is needed')
  unanswered = run(
    inference.load(given.model), tasks, out=out, with_film=given.film, sound=given.sound, limit=given.limit
  )
  return int(bool(unanswered) or not all(of for of, _ in looked))


if __name__ == '__main__':
  flags.DEFINE_string('model', None, 'The model folder (python -m emo_jax.export).', required=True)
  flags.DEFINE_string('out', None, 'Where to write JSON, CSV and PNG of each clip.')
  flags.DEFINE_bool('film', False, 'Write each clip with its face box and its emotions drawn in, too.')
  flags.DEFINE_string('sound', None, 'The file that has the sound of a single clip, where the clip has it not.')
  flags.DEFINE_float(
    'limit', own_clip.LIMIT_S, 'Seconds without a frame after which a clip is given up.', lower_bound=1
  )
  app.run(main, flags_parser=command_line.parser('predict', status=2))

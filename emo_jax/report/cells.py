"""The verdicts of an ablation's cells, read from their CSVs, brought on the same clips (pipeline step: report)."""

import csv
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from emo_jax import contenders

SAME = ('corpus', 'classes', 'judged', 'leaks_allowed', 'split_digest')  # of report.json: what all cells agree on
Run = tuple[int, int]  # the networks' seed, fusion's
_Key = tuple[int, str]  # fold, clip


def cell_name(variant: str, protocol: str, nets_seed: int, seed: int) -> str:
  """Of a cell, and of its folder in <workdir>/cells."""
  return f'{variant}/{protocol}_nets{nets_seed}_seed{seed}'


class Cell(NamedTuple):
  """One experiment of an ablation; `folder` holds its report.json, predictions.csv and, with held clips, held.csv."""

  variant: str
  protocol: str
  nets_seed: int
  seed: int
  folder: pathlib.Path
  methods: tuple[str, ...]

  @property
  def name(self) -> str:
    """For people."""
    return cell_name(*self[:4])


class Clips(NamedTuple):
  """The K clips of one side that anybody has judged, each in its fold.

  Attributes:
    fold: int [K].
    clip: [K], ids.
    speaker: [K], names.
    truth: int [K], classes.
  """

  fold: np.ndarray
  clip: list[str]
  speaker: np.ndarray
  truth: np.ndarray


class Verdicts(NamedTuple):
  """What R runs say of K clips.

  Attributes:
    verdict: int [R, K], classes; -1 where the half that is needed lacks.
    scores: float [R, K, C]; NaN there.
  """

  verdict: np.ndarray
  scores: np.ndarray


class Row(NamedTuple):
  """A contender within a protocol, over its runs; one that no fusion seed acts on has one for each networks' seed."""

  name: str
  variant: str
  method: str
  level: str
  meaning: str
  seeded: bool
  runs: list[Run]
  test: Verdicts
  held: Verdicts


class Results(NamedTuple):
  """All cells.

  Attributes:
    facts: report.json of the first, without its methods.
    looks: how many configurations have been judged on 'test' and on 'held' speakers.
    test, held: clips, ordered by fold and id; nobody is held where held speakers are judged.
    rows: of each protocol.
  """

  facts: dict[str, Any]
  looks: dict[str, int]
  test: Clips
  held: Clips
  rows: dict[str, list[Row]]


class _Judged(NamedTuple):
  """A line of a CSV: of each method the verdict and the scores [C]."""

  speaker: str
  truth: int
  verdicts: dict[str, tuple[int, list[float]]]


def row_names(cells: Iterable[Cell]) -> dict[tuple[str, str], str]:
  """What the row of each (variant, method) is called: by what tells it from the others, both if need be."""
  methods = {cell.variant: cell.methods for cell in cells}
  alone = {variant for variant, own in methods.items() if variant and len(own) == 1}
  names = {}
  for variant, own in methods.items():
    for method in own:
      judges = sum(method in other for other in methods.values())
      told_apart = judges == 1 and method not in alone
      names[variant, method] = variant if variant in alone else method if told_apart else f'{variant}: {method}'
  return names


def read(cells: Sequence[Cell], names: Mapping[tuple[str, str], str]) -> Results:
  """Reads the cells, one and more.

  Args:
    names: from `row_names`, of these and of those that failed.

  Raises:
    ValueError: a cell was judged on other clips, classes or folds than the first, or its files are not whole.
  """
  reports = [json.loads((cell.folder / 'report.json').read_text(encoding='utf-8')) for cell in cells]
  facts = {name: value for name, value in reports[0].items() if name != 'methods'}
  for cell, report in zip(cells, reports, strict=True):
    for name, wanted in {**{name: facts[name] for name in SAME}, 'protocol': cell.protocol}.items():
      if report[name] != wanted:
        raise ValueError(f'cell {cell.name}: its {name} is {report[name]!r}, not {wanted!r} as of {cells[0].name}')
  sides = {}
  for file in ('predictions.csv', 'held.csv') if facts['judged'] == 'test' else ('predictions.csv',):
    sides[file] = [_read_table(cell, cell.folder / file, facts['classes']) for cell in cells]
  test = sides['predictions.csv']
  held = sides.get('held.csv', [{} for _ in cells])
  clips = [_same_clips(cells, tables) for tables in (test, held)]
  rows: dict[str, list[Row]] = {}
  for (protocol, variant, method), own in _grouped(cells).items():
    of_method = reports[own[0]]['methods'][method]
    verdicts = [
      _stacked([tables[number] for number in own], method, of_side, [cells[number] for number in own], facts)
      for tables, of_side in zip((test, held), clips, strict=True)
    ]
    told = names[variant, method], variant, method, of_method['level'], of_method['meaning']
    runs = [(cells[number].nets_seed, cells[number].seed) for number in own]
    rows.setdefault(protocol, []).append(Row(*told, method in contenders.SEEDED, runs, *verdicts))
  looks = {side: max(report[f'configurations_judged_on_{side}'] for report in reports) for side in ('test', 'held')}
  return Results(facts, looks, clips[0], clips[1], rows)


def _grouped(cells: Sequence[Cell]) -> dict[tuple[str, str, str], list[int]]:
  """Protocol, variant, method -> its runs: indices into cells, ordered by seed."""
  grouped: dict[tuple[str, str, str], dict[Run, int]] = {}
  for number in sorted(range(len(cells)), key=lambda number: cells[number][2:4]):
    cell = cells[number]
    for method in cell.methods:
      runs = grouped.setdefault((cell.protocol, cell.variant, method), {})
      first = all(nets_seed != cell.nets_seed for nets_seed, _ in runs)
      if first or method in contenders.SEEDED:
        runs[cell.nets_seed, cell.seed] = number
  order = {(cell.protocol, cell.variant, method): None for cell in cells for method in cell.methods}
  return {key: list(grouped[key].values()) for key in order}


def _read_table(cell: Cell, path: pathlib.Path, classes: Sequence[str]) -> dict[_Key, _Judged]:
  """A CSV of verdicts; nothing where there is no held.csv."""
  if path.name == 'held.csv' and not path.exists():
    return {}
  number = {name: place for place, name in enumerate(classes)}
  table: dict[_Key, _Judged] = {}
  with open(path, newline='', encoding='utf-8') as file:
    for line in csv.DictReader(file):
      try:
        verdicts = {
          method: (number[line[method]], [float(line[f'{method}:{name}']) for name in classes])
          for method in cell.methods
          if line[method]
        }
        judged = _Judged(line['speaker'], number[line['truth']], verdicts)
      except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'cell {cell.name}: {path.name}, clip {line.get("clip")}: {error!r} is amiss') from error
      if any(not np.isfinite(max(scores)) or np.isnan(scores).any() for _, scores in verdicts.values()):
        raise ValueError(f'cell {cell.name}: {path.name}, clip {line["clip"]}: scores that are no numbers')
      table[int(line['fold']), line['clip']] = judged
  return table


def _same_clips(cells: Sequence[Cell], tables: Sequence[Mapping[_Key, _Judged]]) -> Clips:
  """The clips of one side. A cell may lack those whose halves its methods need; what it has, it has as the others."""
  found: dict[_Key, tuple[str, int]] = {}
  for cell, table in zip(cells, tables, strict=True):
    for key, judged in table.items():
      if found.setdefault(key, judged[:2]) != judged[:2]:
        raise ValueError(
          f'cell {cell.name}: clip {key[1]} of fold {key[0]} has another speaker or truth than elsewhere'
        )
  keys = sorted(found)
  return Clips(
    np.array([fold for fold, _ in keys], int),
    [clip for _, clip in keys],
    np.array([found[key][0] for key in keys], str),
    np.array([found[key][1] for key in keys], int),
  )


def _stacked(
  tables: Sequence[Mapping[_Key, _Judged]], method: str, clips: Clips, cells: Sequence[Cell], facts: Mapping[str, Any]
) -> Verdicts:
  """One method's verdicts of its runs, each a table."""
  shape = len(tables), len(clips.clip)
  verdict, scores = np.full(shape, -1), np.full((*shape, len(facts['classes'])), np.nan)
  place = {key: number for number, key in enumerate(zip(clips.fold.tolist(), clips.clip, strict=True))}
  for run, table in enumerate(tables):
    for key, judged in table.items():
      if method in judged.verdicts:
        verdict[run, place[key]], scores[run, place[key]] = judged.verdicts[method]
    if np.any((verdict[run] < 0) != (verdict[0] < 0)):
      raise ValueError(f'cell {cells[run].name}: {method} has judged other clips than in {cells[0].name}')
  return Verdicts(verdict, scores)

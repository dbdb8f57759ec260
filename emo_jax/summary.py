"""What an ablation comes to: its tables, and the page (after all steps of the pipeline, for all cells)."""

import collections
import datetime
import json
import pathlib
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from emo_jax import experiment, files, finished, provenance, stages
from emo_jax.context import Unusable
from emo_jax.grid import Cell, judged
from emo_jax.report import cells as report_cells
from emo_jax.report import comparison, curves, embedding, page, saliency


def write(config: Any, folder: pathlib.Path, wanted: Sequence[Cell], failed: dict[str, str]) -> None:
  """Writes <workdir>/report: what all finished cells come to, in tables and on a page.

  Networks are looked into through the first finished cell of the row that the first contrast is about.

  Args:
    failed: why cells failed, by name.
  """
  finished, broken = ([cell for cell in wanted if (cell.name in failed) == wrong] for wrong in (False, True))
  (folder / 'report').mkdir(exist_ok=True)
  compared, insight = None, {}
  if finished:
    names = report_cells.row_names(judged(wanted, folder))
    try:
      compared = comparison.compare(judged(finished, folder), config.sweep.contrasts, failed=judged(broken, folder))
    except ValueError as error:
      raise Unusable(f'the cells are done, but cannot be compared: {error}') from error
    comparison.write(folder / 'report', compared)
    first = config.sweep.contrasts[0][0] if config.sweep.contrasts else ''
    judges = [(cell, method) for cell in finished for method in cell.config.methods]
    chosen = [(cell, method) for cell, method in judges if names[cell.variant, method] == first]
    insight = _insight(*(chosen or judges)[0], folder)
  written = page.write(folder / 'report', compared, run=_told_of_run(config, folder, finished, failed), **insight)
  print(f'report: {written}')


def _insight(cell: Cell, method: str, folder: pathlib.Path) -> dict[str, Any]:
  """What there is to see in a cell's first fold, by a contender's verdicts; nothing where stages are gone."""
  workdir = cell.within(folder)
  x = experiment.look_over(cell.config, str(workdir))
  try:
    finished.reopen(x)
  except Unusable as error:
    print(f'report: no curves and no pictures: {error}', file=sys.stderr)
    return {}
  if 'features' not in x.made:
    return {}
  looked = saliency.examples(x, 0, *saliency.scored(x, 0, method))
  return {'curves': curves.read(x), 'embedding': embedding.of(x), 'saliency': looked}


def _told_of_run(config: Any, folder: pathlib.Path, finished: Sequence[Cell], failed: dict[str, str]) -> dict[str, Any]:
  """What the page says of how it came about; seconds are those of all cells (as run last) or stages."""
  facts = provenance.facts()
  lines = files.entries(folder / 'provenance.jsonl')
  started = next(line['time'] for line in lines if line['event'] == 'start')
  taken = {line['cell']: line['seconds'] for line in lines if line['event'] == 'cell'}
  taken |= {f'{number}': line['seconds'] for number, line in enumerate(lines) if line['event'] == 'stage'}
  return {
    'command': shlex.join(['python', *facts['argv']]),
    'config': config.to_dict(),
    'git': _commits([folder, *(cell.within(folder) for cell in finished)]),
    **{name: facts[name] for name in ('versions', 'devices')},
    'started': started,
    'seconds': sum(taken.values()),
    'stages': stage_counts(pathlib.Path(config.cache), [cell.within(folder) for cell in finished], started),
    'cells': len(finished) + len(failed),
    'failed': [{'cell': name, 'reason': reason} for name, reason in failed.items()],
  }


def _commits(folders: Iterable[pathlib.Path]) -> str:
  """The commits that experiments were run at, all of them."""
  seen: dict[str, None] = {}
  for folder in folders:
    for line in files.entries(folder / 'provenance.jsonl'):
      if line['event'] == 'start':
        seen[f'{str(line["git"])[:12]}{" with uncommitted changes" * line["changed"]}'] = None
  return ', '.join(seen)


def stage_counts(cache: pathlib.Path, folders: Iterable[pathlib.Path], started: str) -> dict[str, dict[str, int]]:
  """Stage -> how many of the folders that these cells use were made since `started`, and how often one was reused."""
  since = datetime.datetime.fromisoformat(started).timestamp()
  made = {f'{one["stage"]}/{one["digest"]}' for one in stages.executions(cache) if one['time'] >= since}
  used: collections.Counter[str] = collections.Counter()
  for folder in folders:
    for made_of in json.loads((folder / 'stages.json').read_text()).values():
      used.update(made_of)
  counts: dict[str, dict[str, int]] = {}
  for path, times in used.items():
    of_stage = counts.setdefault(path.split('/')[0], {'made': 0, 'reused': 0})
    of_stage['made'] += path in made
    of_stage['reused'] += times - (path in made)
  return counts

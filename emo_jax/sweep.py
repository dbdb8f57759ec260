"""An ablation: every variant, protocol and seed is an experiment of its own, a cell, and one page compares them (all
steps of the pipeline, for each cell).

Cells share a cache, so what they have in common is made once. A cell that fails is noted, and the others go on; run
again, a sweep goes on where it was, with the cells that failed or are not done.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import tqdm

from emo_jax import experiment, memory, processes, provenance, stages, summary
from emo_jax.context import Experiment, Unusable, by_lead, holding
from emo_jax.evaluation import normalise
from emo_jax.evaluation.leaks import counted
from emo_jax.frontend import decoder, workers
from emo_jax.grid import Cell, cells, check_contrasts, in_order
from emo_jax.steps import prepare
from emo_jax.training.metrics import progress

DONE = 'done'  # in a cell's folder, once its report is written
FUSED_OR_JOINED = ('hybrid', 'concat')  # what a single experiment's page asks
_ALONE = threading.Lock()  # what a cell prints is redirected for its whole process, which may have threads (Dask's)
_Outcome = tuple[float, str]  # seconds, and why the cell failed, if it did


def run(config: Any, workdir: str, *, dry_run: bool = False) -> int:
  """Runs the cells of config.sweep and writes the page that compares them; a single experiment is only ever told of.

  Args:
    config: the whole ConfigDict.
    workdir: of the sweep; each cell has a folder in <workdir>/cells.
    dry_run: tell what would be made, and how long it may take; nothing is written.

  Returns:
    The exit status: 1 where a cell failed.

  Raises:
    Unusable: what no cell, or a variant, can be run with; nothing has been trained then.
  """
  folder = pathlib.Path(workdir).absolute()
  config = _anchored(config, folder)
  wanted = cells(config) if config.sweep.variants else [_alone(config)]
  experiments = _look_over(wanted, folder)
  if config.sweep.variants:
    check_contrasts(config.sweep.contrasts, wanted, experiments)
  if dry_run:
    processes.only_lead(lambda: tell(wanted, experiments))
    return 0
  if len(processes.team()) > 1 and config.executor.backend != 'threading':
    raise Unusable(
      f'config.executor.backend={config.executor.backend} with several processes: they work on one cell of a sweep '
      'after another, all together; use threading'
    )
  started = provenance.facts()

  def claim() -> None:
    folder.mkdir(parents=True, exist_ok=True)
    provenance.claim(folder, config.to_dict())

  by_lead(folder, claim)
  with holding(folder):
    provenance.note(folder, event='start', **started)
    return _run(config, folder, wanted, experiments)


def _run(config: Any, folder: pathlib.Path, wanted: Sequence[Cell], experiments: Sequence[Experiment]) -> int:
  _prepare(experiments, folder)
  if config.until == 'prepare':
    return 0
  failed = _run_all(config.executor, wanted, experiments, folder)
  if config.until == 'report':
    processes.only_lead(lambda: summary.write(config, folder, wanted, failed))
  for name, reason in failed.items():
    print(f'failed: {name}: {reason} (more in {folder / "cells" / name / "log.txt"})', file=sys.stderr)
  return int(bool(failed))


def run_alone(config: Any, workdir: str, *, profile: bool = False) -> None:
  """Runs one experiment, and writes its page unless that is there and nothing has changed.

  Args:
    config: the whole ConfigDict.
    workdir: of the experiment.
    profile: leave traces of its trainings (training/clock.py) in <workdir>/profile.

  Raises:
    Unusable: what it cannot be run with.
  """
  folder = pathlib.Path(workdir).absolute()
  x = experiment.set_up(config, workdir)
  x.profile = profile

  def write_page() -> None:
    if not (folder / 'report' / 'index.html').exists():  # it goes with the result that it was of
      of_page = _anchored(config, folder)
      if set(FUSED_OR_JOINED) <= set(config.methods):
        of_page.sweep.contrasts = (FUSED_OR_JOINED,)
      summary.write(of_page, folder, [_alone(of_page)], {})

  with holding(folder):
    experiment.run(x)
    if config.page and config.until == 'report':
      processes.only_lead(write_page)


def _anchored(config: Any, folder: pathlib.Path) -> Any:
  """The config with whole paths, which mean the same in every process."""
  config = config.copy_and_resolve_references()
  config.cache = str(pathlib.Path(config.cache).absolute() if config.cache else folder / 'stages')
  if config.data.root:
    config.data.root = str(pathlib.Path(config.data.root).absolute())
  if config.data.split:
    config.data.split = str(pathlib.Path(config.data.split).absolute())
  return config


def _alone(config: Any) -> Cell:
  """An experiment without a sweep, as a cell."""
  nets_seed = config.seed if config.nets_seed is None else config.nets_seed
  return Cell('', normalise.PROTOCOLS.get(config.normalise, ''), nets_seed, config.seed, config)


def _look_over(wanted: Sequence[Cell], folder: pathlib.Path) -> list[Experiment]:
  """The experiment of each cell, looked over once for each variant: seeds and protocols make no difference to it."""
  of_variant: dict[str, Experiment] = {}
  for cell in wanted:
    if cell.variant not in of_variant:
      try:
        of_variant[cell.variant] = experiment.look_over(cell.config, str(folder))
      except Unusable as error:
        raise Unusable(f'variant {cell.variant}: {error}') from error
  return [dataclasses.replace(of_variant[cell.variant], config=cell.config, made={}) for cell in wanted]


def _prepare(experiments: Iterable[Experiment], folder: pathlib.Path) -> None:
  """Decodes the clips once for each front end, here, with all workers; rejected.csv is the sweep's."""
  seen = set()
  for x in experiments:
    own = stages.digest([x.config.frontend.to_dict(), x.config.data.to_dict()])
    if own not in seen:
      seen.add(own)
      here = dataclasses.replace(x, workdir=folder, config=x.config.copy_and_resolve_references())
      here.config.until = 'prepare'  # whether the folds can be trained on is for each cell to say
      prepare.prepare(here)


def _run_all(
  executor: Any, wanted: Sequence[Cell], experiments: Sequence[Experiment], folder: pathlib.Path
) -> dict[str, str]:
  """Runs the cells that are not done, a line each; why cells failed, by name."""
  finished = lambda: [c.name for c, x in zip(wanted, experiments, strict=True) if _done(c.within(folder), x)]
  done = set(processes.by_lead(finished))
  left = {cell.name: cell for cell in in_order(wanted) if cell.name not in done}
  jobs = {name: (_for_worker(cell.config, executor), str(cell.within(folder))) for name, cell in left.items()}
  if (skipped := len(wanted) - len(left)) and processes.lead():
    print(f'{skipped} of {len(wanted)} cells are done already')
  failed: dict[str, str] = {}
  with progress('cells', len(jobs), 'cell') as bar:
    for name, (seconds, reason) in _outcomes(executor, jobs):
      provenance.note(folder, event='cell', cell=name, seconds=seconds, failed=reason)
      if processes.lead():
        with tqdm.tqdm.external_write_mode():
          print(f'{name}: {f"failed: {reason}" if reason else f"{seconds:.1f} s"}', flush=True)
      bar.update()
      if reason:
        failed[name] = reason
  return failed


def _for_worker(config: Any, executor: Any) -> Any:
  """A cell's config where it runs: a process that has others beside it decodes nothing with processes of its own."""
  if executor.backend != 'threading':
    config = config.copy_and_resolve_references()
    config.executor.update({'backend': 'threading', 'workers': 1, 'address': ''})
  return config


def _outcomes(executor: Any, jobs: dict[str, tuple[Any, str]]) -> Iterator[tuple[str, _Outcome]]:
  """Each cell's name and outcome, as they come: one after another here, or side by side in processes."""
  if executor.backend == 'threading':
    yield from ((name, run_cell(*job)) for name, job in jobs.items())
    return
  try:
    yield from workers.run(run_cell, jobs, executor)
  except decoder.MachineFailure as error:
    raise Unusable(str(error)) from error


def run_cell(config: Any, workdir: str) -> _Outcome:
  """Runs one experiment to its end, its output in log.txt; what it raises is its outcome."""
  with _ALONE:
    return _run_cell(config, workdir)


def _run_cell(config: Any, workdir: str) -> _Outcome:
  memory.keep_freed_memory()
  started, folder, reason = time.monotonic(), pathlib.Path(workdir), ''
  if processes.lead():
    folder.mkdir(parents=True, exist_ok=True)
  with contextlib.ExitStack() as stack:
    log_file = folder / 'log.txt' if processes.lead() else os.devnull
    log = stack.enter_context(open(log_file, 'a', encoding='utf-8', errors='backslashreplace'))
    stack.enter_context(contextlib.redirect_stdout(log))
    stack.enter_context(contextlib.redirect_stderr(log))
    try:
      x = experiment.set_up(config, workdir)
      with holding(folder):
        experiment.run(x)
    except Unusable as error:
      if len(processes.team()) > 1 and not isinstance(error.__cause__, FloatingPointError):
        raise  # perhaps it is the trouble of this process alone, and others wait for it in the middle of the cell
      reason = str(error)
      print(f'failed: {reason}', file=sys.stderr)
    except Exception as error:  # whatever it is, the other cells are not the worse for it
      if len(processes.team()) > 1:
        raise
      traceback.print_exc()
      reason = f'{type(error).__name__}: {error}'
  seconds = round(time.monotonic() - started, 2)
  if not reason and config.until == 'report' and processes.lead():
    (folder / DONE).touch()
  return seconds, reason


def _done(folder: pathlib.Path, x: Experiment) -> bool:
  """Whether a cell's folder holds the results of what the experiment would use today: clips, code, config."""
  if not (folder / DONE).exists():
    return False
  experiment.plan(x)
  used = {name: [str(path.relative_to(x.cache)) for path in paths] for name, paths in x.made.items()}
  return json.loads((folder / 'stages.json').read_text()) == used and all(map(pathlib.Path.exists, _folders(x)))


def _folders(x: Experiment) -> list[pathlib.Path]:
  return [path for paths in x.made.values() for path in paths]


def tell(wanted: Sequence[Cell], experiments: Sequence[Experiment]) -> None:
  """Prints the grid, what of it is cached, and how long the rest may take, by earlier runs in this cache."""
  print(counted(len(wanted), 'cell'))
  width = max(len(cell.variant) for cell in wanted)
  rows: dict[str, list[Cell]] = {}
  for cell in wanted:
    rows.setdefault(f'{cell.variant or "experiment":{width}}  {cell.protocol}', []).append(cell)
  for row, own in rows.items():
    seeds = lambda values: ' '.join(str(value) for value in dict.fromkeys(values))
    told = f'network seeds {seeds(c.nets_seed for c in own)}, fusion seeds {seeds(c.seed for c in own)}'
    print(f'  {row}, {told}: {", ".join(own[0].config.methods)}')
  planned, seconds = plan(experiments), median_seconds(experiments[0].cache)
  print(f'{"stage":12} {"to make":>8} {"cached":>8} {"seconds":>8}')
  for base in dict.fromkeys(map(_base, planned)):
    parts = {stage: counts for stage, counts in planned.items() if _base(stage) == base}
    make, cached = (sum(counts[which] for counts in parts.values()) for which in (0, 1))
    told = f'{_estimate(parts, seconds):8.0f}' if _known(parts, seconds) else f'{"?":>8}'
    print(f'{base:12} {make:8} {cached:8} {told}')
  but = '' if _known(planned, seconds) else ', and what the ? takes: never made in this cache'
  print(f'estimated: {_estimate(planned, seconds) / 60:.1f} min with one worker{but}')
  if planned['prepare'][0]:
    print('the clips are not prepared, and what comes after hangs on them: run with --config.until=prepare to be told')


def _base(stage: str) -> str:
  """decide of decide/audio."""
  return stage.split('/')[0]


def _estimate(planned: dict[str, tuple[int, int]], seconds: dict[str, float]) -> float:
  return sum(make * seconds.get(stage, 0.0) for stage, (make, _) in planned.items())


def _known(planned: dict[str, tuple[int, int]], seconds: dict[str, float]) -> bool:
  return all(stage in seconds for stage, (make, _) in planned.items() if make)


def plan(experiments: Iterable[Experiment]) -> dict[str, tuple[int, int]]:
  """Stage -> how many folders are to be made, and how many are there; those that experiments share count once."""
  there: dict[tuple[str, pathlib.Path], bool] = {}
  for x in experiments:
    there |= {(stage, path): exists for stage, path, exists in experiment.plan(x)}
  names = dict.fromkeys(stage for stage, _ in there)
  of_stage = {name: [exists for (stage, _), exists in there.items() if stage == name] for name in names}
  return {name: (found.count(False), found.count(True)) for name, found in of_stage.items()}


def median_seconds(cache: pathlib.Path) -> dict[str, float]:
  """Stage -> what making one of its folders took in this cache, in the median."""
  taken: dict[str, list[float]] = {}
  for made in stages.executions(cache):
    taken.setdefault(made['stage'], []).append(made['seconds'])
  return {stage: statistics.median(seconds) for stage, seconds in taken.items()}

"""Which experiments a sweep consists of, and what its contrasts are called (before all steps of the pipeline)."""

import collections
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from emo_jax import contenders, stages
from emo_jax.context import Experiment, Unusable
from emo_jax.evaluation import normalise
from emo_jax.report import cells as report_cells

# What the sweep sets for all cells alike, so that no variant may.
OWN = ('data', 'seed', 'nets_seed', 'normalise', 'sweep', 'cache', 'until', 'page', 'executor')


class Cell(NamedTuple):
  """One experiment of a sweep: `config` is the whole ConfigDict of it, `protocol` inductive or transductive."""

  variant: str
  protocol: str
  nets_seed: int
  seed: int
  config: Any

  @property
  def name(self) -> str:
    """Of its folder in <workdir>/cells."""
    return report_cells.cell_name(*self[:4])

  def within(self, workdir: pathlib.Path) -> pathlib.Path:
    """Its folder; an experiment without a sweep has no variant's name, and the work directory for itself."""
    return workdir / 'cells' / self.name if self.variant else workdir


def cells(config: Any) -> list[Cell]:
  """Every variant with every normalisation, network seed and fusion seed; a variant that no seed acts on, with one.

  Raises:
    Unusable: a variant's field that there is not, or another value that no cell can be made of.
  """
  sweep = config.sweep
  for field in ('normalise', 'nets_seeds', 'seeds'):
    if not sweep[field] or len(set(sweep[field])) < len(sweep[field]):
      raise Unusable(f'config.sweep.{field}={sweep[field]!r}: at least one value is needed, and each once')
  if unknown := set(sweep.normalise) - normalise.PROTOCOLS.keys():
    raise Unusable(f'config.sweep.normalise: {sorted(unknown)} unknown; use {" or ".join(normalise.PROTOCOLS)}')
  for field, listed, unset in (
    ('seed', 'seeds', 0),
    ('nets_seed', 'nets_seeds', None),
    ('normalise', 'normalise', 'none'),
  ):
    if config[field] not in (unset, *sweep[listed]):
      raise Unusable(f'config.{field}={config[field]!r}: the sweep sets it for each cell; set config.sweep.{listed}')
  variants = {name: _varied(config, name) for name in sweep.variants}
  found = []
  for kind in sweep.normalise:
    for nets_seed in sweep.nets_seeds:
      for name, varied in variants.items():
        seeded = any(method in contenders.SEEDED for method in varied.methods)
        for seed in sweep.seeds if seeded else sweep.seeds[:1]:
          own = varied.copy_and_resolve_references()
          own.update({'normalise': kind, 'nets_seed': nets_seed, 'seed': seed})
          found.append(Cell(name, normalise.PROTOCOLS[kind], nets_seed, seed, own))
  return found


def _varied(config: Any, variant: str) -> Any:
  """The config with a variant's overrides, and without the sweep."""
  if not re.fullmatch(r'\w[\w-]*', variant):
    raise Unusable(f'config.sweep.variants: {variant!r} names a folder: use letters, digits, _ and -')
  varied = config.copy_and_resolve_references()
  with varied.unlocked():
    varied.sweep = {'variants': {}, 'normalise': ('none',), 'nets_seeds': (0,), 'seeds': (0,), 'contrasts': ()}
  varied.lock()
  for field, value in _fields(config.sweep.variants[variant].to_dict()):
    where = f'config.sweep.variants.{variant}.{field}'
    if field.split('.')[0] in OWN:
      raise Unusable(f'{where}: the sweep sets this field for all cells; set config.{field} or config.sweep')
    try:
      varied.update_from_flattened_dict({field: value})
    except KeyError as error:
      raise Unusable(f'{where}: the config has no such field') from error
    except (AttributeError, TypeError, ValueError) as error:
      raise Unusable(f'{where}={value!r}: {error}') from error
  return varied


def _fields(tree: dict[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
  """'a.b.c' and its value, of a nested dict."""
  for key, value in tree.items():
    if isinstance(value, dict) and value:
      yield from _fields(value, f'{prefix}{key}.')
    else:
      yield prefix + key, value


def in_order(wanted: Sequence[Cell]) -> list[Cell]:
  """First a cell of each pair of networks, so that workers seldom wait for what another one trains."""
  groups: collections.Counter[str] = collections.Counter()
  rank = {}
  for cell in wanted:
    c = cell.config
    nets = stages.digest([c.audio.to_dict(), c.visual.to_dict(), c.frontend.to_dict(), c.data.to_dict(), c.nets_seed])
    rank[cell.name] = min(groups[nets], 1)
    groups[nets] += 1
  return sorted(wanted, key=lambda cell: rank[cell.name])


def check_contrasts(contrasts: Any, wanted: Sequence[Cell], experiments: Iterable[Experiment]) -> None:
  """Refuses contrasts of rows that will not be there, before anything is trained."""
  rows = set(report_cells.row_names(judged(wanted, pathlib.Path())).values())
  for contrast in contrasts:
    if len(contrast) != 2 or not isinstance(contrast[0], str):
      raise Unusable(f'config.sweep.contrasts: {contrast!r}: a name and its rival are needed, or a tuple of rivals')
    rivals = (contrast[1],) if isinstance(contrast[1], str) else contrast[1]
    if unknown := {contrast[0], *rivals} - rows:
      raise Unusable(f'config.sweep.contrasts: nobody is called {sorted(unknown)}; use {", ".join(sorted(rows))}')
    if len(rivals) > 1 and not all(fold.held for x in experiments for fold in x.folds):
      raise Unusable(f'config.sweep.contrasts: the best of {rivals} is chosen on held clips: set config.data.held=1')


def judged(wanted: Iterable[Cell], folder: pathlib.Path) -> list[report_cells.Cell]:
  """The cells as the report reads them."""
  return [report_cells.Cell(*cell[:4], cell.within(folder), tuple(cell.config.methods)) for cell in wanted]

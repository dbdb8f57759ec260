"""Numbers that are not finite, in losses, gradients and parameters: found, named, or left out (every training)."""

import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import optax

from emo_jax import files, processes, provenance

Tree = Any
Update = Callable[..., tuple[Tree, Tree]]  # (state, ...) -> (state, sums)
Items = Callable[[Any], list[dict[str, Any]]]  # rows of a training, int [n] or slice(None), -> what each of them is
OF_STEP = ('gradient_norm', 'parameter_norm', 'skipped')  # in a step's sums, but no sums over rows
IN_A_ROW = 10  # updates left out one after the other, after which a training ends all the same
NAMED = 5  # clips that a message names, and steps


def norms(gradient: Tree, params: Tree) -> dict[str, jax.Array]:
  """The lengths of a step's gradient and of its new parameters, each as one vector.

  One number that is not finite makes them so; numbers that no float32 can square, from 2e19 on, make them infinite.
  """
  return {'gradient_norm': optax.tree.norm(gradient), 'parameter_norm': optax.tree.norm(params)}


def broken(means: dict[str, float]) -> dict[str, float]:
  """A step's numbers that are not finite, in the order in which they come about: loss, gradient, parameters."""
  names = {
    **{key: key for key in means if key not in OF_STEP},
    'gradient_norm': 'gradient',
    'parameter_norm': 'parameters',
  }
  return {name: means[key] for key, name in names.items() if not np.isfinite(means.get(key, 0))}


def guarded(update: Update, nonfinite: str) -> Update:
  """With 'skip' an update that changes nothing but the state's 'step' where one of its sums is not finite.

  Its sums tell of it: 'skipped' is 1 then, else 0. They must be the same on all devices, as parallel.total gives them.
  With 'stop' it is the update itself.
  """

  def skipping(state: Tree, *given: Any) -> tuple[Tree, Tree]:
    new, sums = update(state, *given)
    good = jnp.all(jnp.array([jnp.isfinite(value) for value in sums.values()]))
    kept = jax.tree.map(lambda after, before: jnp.where(good, after, before), new, {**state, 'step': new['step']})
    return kept, {**sums, 'skipped': 1.0 - good}

  return skipping if nonfinite == 'skip' else update


def means(sums: Tree) -> dict[str, float]:
  """A step's numbers, from what it has summed over its rows."""
  count = max(float(sums['count']), 1.0)
  return {key: float(value) / (1.0 if key in OF_STEP else count) for key, value in sums.items() if key != 'count'}


def numbered(rows: Any) -> list[dict[str, Any]]:
  """Rows of which no more is known than their numbers."""
  return [] if isinstance(rows, slice) else [{'row': row} for row in rows.tolist()]


def rows_of(batch: dict[str, np.ndarray], items: Items) -> list[dict[str, Any]]:
  """What the rows of a step are, of all processes, and whether their input is finite; without those that fill it up.

  Args:
    batch: of this process, with 'row', 'mask' and 'input'; or without, where a step takes all rows there are.
    items: what the training's rows are.
  """
  if 'row' not in batch:
    return items(slice(None))
  finite = finite_rows(batch['input'])
  wanted = (batch['mask'] > 0) | ~finite  # a row that only fills up is multiplied by 0: NaN stays NaN
  told = zip(items(batch['row'][wanted]), finite[wanted], strict=True)
  parts = processes.exchange([{**item, 'input_finite': bool(good)} for item, good in told])
  return [row for part in parts for row in part]


def not_finite(read: Callable[[np.ndarray], np.ndarray], count: int) -> np.ndarray:
  """int [n]: which of `count` rows have an input that is not finite. They are read one by one: it is a search."""
  return np.array([row for row in range(count) if not np.isfinite(read(np.array([row]))).all()], int)


def finite_rows(array: np.ndarray) -> np.ndarray:
  """bool [n]: which rows of [n, ...] hold nothing but finite numbers."""
  return np.isfinite(array).reshape(len(array), -1).all(axis=1)


def too_many(skipped: list[int], steps: int) -> bool:
  """Whether the newest of the steps left out is the last of IN_A_ROW, or of all steps of a shorter training."""
  most = min(IN_A_ROW, steps)
  return len(skipped) >= most and skipped[-1] - skipped[-most] == most - 1


def stop(
  name: str,
  what: str,
  value: float,
  rows: list[dict[str, Any]],
  workdir: pathlib.Path | None,
  *,
  step: int | None = None,
  skipped: int = 0,
) -> NoReturn:
  """Ends a stage; bad_batch.json in the work directory has all that is known, the message the gist.

  Args:
    name, what, value: of the training; what of it is not finite; NaN or infinity.
    rows: what it came from, as `rows_of` has it.
    workdir: None for nowhere to write.
    step: at which it came; None: outside of the steps.
    skipped: updates of the training that were left out.

  Raises:
    FloatingPointError: always, in all processes of the team once the file is there.
  """
  path = workdir / 'bad_batch.json' if workdir else None
  if path and processes.lead():
    known = {'train': name, 'step': step, 'what': what, 'value': str(value), 'skipped': skipped, 'rows': rows}
    with files.whole(path) as file:
      file.write(json.dumps(known, indent=1) + '\n')
  processes.together()
  at, of = '' if step is None else f' at step {step}', f', of {_clips(rows)}' if rows else ''
  broken = [row for row in rows if not row.get('input_finite', True)]
  there = f' ({path} has all)' if path else ''
  raise FloatingPointError(f'{name}: {what} became {value}{at}{of}{there}. {_advice(broken, skipped)}')


def _advice(broken: list[dict[str, Any]], skipped: int) -> str:
  if broken:
    return f'Not finite is the very input of {_clips(broken)}: mend these clips or leave them out'
  lower = 'Use a lower learning rate for this part of the config; that takes another --workdir'
  if skipped:
    return f'The updates of {skipped} steps had been left out, this one and all shortly before. {lower}'
  return f'The input is finite. {lower}. Or leave such updates out: config.nonfinite=skip'


def _clips(rows: list[dict[str, Any]]) -> str:
  """The first few clips of some rows."""
  names = list(dict.fromkeys(str(row.get('clip', row.get('row'))) for row in rows))
  return f'{", ".join(names[:NAMED])}{f" and {len(names) - NAMED} more" * (len(names) > NAMED)}'


def tell(name: str, skipped: list[int], steps: int, workdir: pathlib.Path | None) -> None:
  """Says at the end of a training which of its updates were left out, if any; `steps` are those of this run."""
  if not skipped or not processes.lead():
    return
  few = f'{", ".join(map(str, skipped[:NAMED]))}{", ..." * (len(skipped) > NAMED)}'
  print(f'{name}: {len(skipped)} of {steps} updates were not finite and left out (steps {few})', file=sys.stderr)
  if workdir:
    provenance.note(workdir, event='skipped', train=name, updates=steps, steps=skipped)

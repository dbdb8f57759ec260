"""What ends a stage before its time and is told in a sentence: numbers that are not finite, and memory that does not
suffice (all steps).
"""

import contextlib
import errno
import functools
import operator
import pathlib
from collections.abc import Iterator
from typing import Any

import jax

from emo_jax.context import Unusable

FREE = ('executor.workers', 'parallel.folds')  # may change in a work directory: no result hangs on them
LESS = {  # what makes a field's stage need less, by the field's last word
  'batch': 'a smaller batch',
  'accumulate': 'a larger accumulate (the batch in more parts, with the same results to float error)',
  'precision': 'precision=bfloat16',
  'workers': 'fewer workers',
  'folds': 'fewer folds at once',
}


@contextlib.contextmanager
def told(stage: str, config: Any, cache: pathlib.Path) -> Iterator[None]:
  """Within the context of a stage, such ends are.

  Args:
    stage: its name.
    config: the whole ConfigDict.
    cache: where the stages lie that are made.

  Raises:
    Unusable: numbers are not finite; or the memory of this machine, or of a device, does not suffice.
  """
  try:
    yield
  except FloatingPointError as error:
    raise Unusable(str(error)) from error
  except (MemoryError, OSError, jax.errors.JaxRuntimeError) as error:
    if not _of_memory(error):
      raise
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    raise Unusable(f'{stage}: out of memory ({reason}). {advice(stage, config, cache)}') from error


def _of_memory(error: Exception) -> bool:
  """Whether memory did not suffice, by what Python, numpy, the system and XLA raise then.

  XLA says RESOURCE_EXHAUSTED; but on a CPU it is INTERNAL where a step had begun, and CUDA's own errors too.
  """
  if isinstance(error, OSError):
    return error.errno == errno.ENOMEM
  return isinstance(error, MemoryError) or any(
    word in str(error).lower() for word in ('resource_exhausted', 'out of memory')
  )


def fields(stage: str, config: Any) -> list[str]:
  """The fields of the config that the memory of a stage hangs on most."""
  if stage in ('prepare', 'handcrafted'):
    return ['executor.workers']
  if stage in ('audio_net', 'visual_net'):
    return [f'{stage.removesuffix("_net")}.{field}' for field in ('batch', 'accumulate', 'precision')]
  if stage == 'features':
    return ['audio.batch', 'visual.batch']
  if stage == 'fusion':
    tuned = ['fusion.finetune.batch'] if config.fusion.finetune.kind == 'softmax' else []
    return ['fusion.rbm.batch', *tuned, 'parallel.folds'] if config.fusion.kind == 'dbn' else ['fusion.head.batch']
  return []


def advice(stage: str, config: Any, cache: pathlib.Path) -> str:
  """How a stage would need less memory, by fields of the config as they are now, and what changing them means."""
  told, again = [], 'the same command goes on where it was'
  for names, so in (
    ([name for name in fields(stage, config) if name in FREE], f'with that, {again}'),
    (
      [name for name in fields(stage, config) if name not in FREE],
      f'results hang on that: it takes another --workdir, where --config.cache={cache} finds what is made',
    ),
  ):
    if names:
      now = ', '.join(f'config.{name}={functools.reduce(operator.getitem, name.split("."), config)}' for name in names)
      less = ' or '.join(dict.fromkeys(LESS[name.rpartition('.')[2]] for name in names))
      told.append(f'Now {now}: {less} needs less; {so}')
  return '. '.join([*told, f'With more memory free, or on a larger machine, {again}'])

"""Which rows make up a batch: pure in (seed, step), so that resuming needs no iterator state. And batches made ahead
of their use.
"""

import collections
import concurrent.futures
import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from emo_jax.training import rngs

Rows = tuple[np.ndarray, np.ndarray]
_Item = TypeVar('_Item')
_Made = TypeVar('_Made')


def steps_per_epoch(count: int, batch: int) -> int:
  """Steps that see each of `count` rows once; the last one may be partly empty."""
  return -(-count // batch)


def padded(rows: np.ndarray, batch: int) -> Rows:
  """Fills up to `batch` rows with row 0 under mask 0: int32 [G], float32 [G]."""
  filled = np.zeros(batch, np.int32)
  filled[: len(rows)] = rows
  return filled, (np.arange(batch) < len(rows)).astype(np.float32)


def shuffled_rows(
  count: int, batch: int, *, padded_to: int, seed: int, names: tuple[str | int, ...]
) -> Callable[[int], Rows]:
  """The rows of each training step: every epoch a new permutation of all rows.

  Args:
    count: rows there are.
    batch: rows a step.
    padded_to: G >= batch, so that rows divide by the devices; the order of the rows does not depend on it.
    seed, names: of the random stream.

  Returns:
    step -> (rows int32 [G], mask float32 [G]).
  """
  order = functools.lru_cache(maxsize=2)(lambda epoch: rngs.shuffled(seed, epoch, count, *names))
  per_epoch = steps_per_epoch(count, batch)

  def rows(step: int) -> Rows:
    epoch, turn = divmod(step, per_epoch)
    return padded(order(epoch)[turn * batch : (turn + 1) * batch], padded_to)

  return rows


def cyclic_rows(count: int, batch: int, *, padded_to: int) -> Callable[[int], Rows]:
  """The rows of each training step, every epoch in the same order, as the author's script has it (method.md A4)."""
  per_epoch = steps_per_epoch(count, batch)
  return lambda step: padded(np.arange(count)[step % per_epoch * batch :][:batch], padded_to)


@contextlib.contextmanager
def ahead(make: Callable[[_Item], _Made], items: Iterable[_Item], *, depth: int = 2) -> Iterator[Iterator[_Made]]:
  """What `make` makes of each item, in their order: while one is in use, a background thread makes the next ones.

  Args:
    make: called for one item at a time. What it raises is raised where the item's turn comes.
    items: what to make something of.
    depth: how many are made ahead, and kept, at most.

  The thread ends with the context, however that is left.
  """
  worker = concurrent.futures.ThreadPoolExecutor(max_workers=1)

  def in_turn() -> Iterator[_Made]:
    begun: collections.deque[concurrent.futures.Future[_Made]] = collections.deque()
    for item in items:
      begun.append(worker.submit(make, item))
      if len(begun) > depth:
        yield begun.popleft().result()
    while begun:
      yield begun.popleft().result()

  try:
    yield in_turn()
  finally:
    worker.shutdown(cancel_futures=True)


def rows_in_order(count: int, batch: int) -> list[Rows]:
  """All rows once, in order, for prediction."""
  return [padded(np.arange(first, min(first + batch, count)), batch) for first in range(0, count, batch)]

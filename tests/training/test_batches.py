"""Tests of which rows make up a batch, and of making batches ahead."""

import threading
import time

import numpy as np
import pytest

from emo_jax.training import batches

ROWS = {'seed': 0, 'names': ('audio', 0)}


@pytest.mark.parametrize(('count', 'batch', 'steps'), [(1, 4, 1), (8, 4, 2), (9, 4, 3), (11, 4, 3), (12, 4, 3)])
def test_an_epoch_sees_each_row_exactly_once(count: int, batch: int, steps: int) -> None:
  assert batches.steps_per_epoch(count, batch) == steps
  rows_at = batches.shuffled_rows(count, batch, padded_to=batch + 2, **ROWS)
  for epoch in range(3):
    seen = []
    for step in range(epoch * steps, (epoch + 1) * steps):
      rows, mask = rows_at(step)
      assert rows.shape == mask.shape == (batch + 2,)
      assert rows.dtype == np.int32 and mask.dtype == np.float32
      assert set(mask) <= {0.0, 1.0} and mask.sum() <= batch
      assert np.all(np.diff(mask) <= 0)  # padding comes last
      seen += list(rows[mask > 0])
    assert sorted(seen) == list(range(count))


def test_every_batch_but_the_last_is_full() -> None:
  rows_at = batches.shuffled_rows(11, 4, padded_to=4, **ROWS)
  assert [rows_at(step)[1].sum() for step in range(6)] == [4, 4, 3, 4, 4, 3]


def test_the_order_does_not_depend_on_the_padding() -> None:
  narrow, wide = (batches.shuffled_rows(11, 4, padded_to=size, **ROWS) for size in (4, 8))
  for step in range(6):
    (rows, mask), (more_rows, more_mask) = narrow(step), wide(step)
    np.testing.assert_array_equal(more_rows[:4], rows)
    np.testing.assert_array_equal(more_mask, np.concatenate([mask, np.zeros(4)]))
    assert not more_rows[4:].any()


def test_epochs_seeds_and_names_differ() -> None:
  order = lambda epoch, **of: batches.shuffled_rows(30, 30, padded_to=30, **{**ROWS, **of})(epoch)[0].tobytes()
  orders = [order(0), order(1), order(2), order(0, seed=1), order(0, names=('audio', 1))]
  assert len(set(orders)) == 5


def test_rows_are_pure_in_seed_and_step() -> None:
  make = lambda: batches.shuffled_rows(11, 4, padded_to=4, **ROWS)
  forwards = make()
  in_turn = [forwards(step)[0] for step in range(12)]
  for step in (11, 0, 7, 3, 10):  # out of turn, in a fresh process's place
    np.testing.assert_array_equal(make()(step)[0], in_turn[step])


def test_cyclic_rows_come_in_the_same_order_in_every_epoch() -> None:
  rows_at = batches.cyclic_rows(7, 3, padded_to=4)
  epoch = [([0, 1, 2, 0], [1, 1, 1, 0]), ([3, 4, 5, 0], [1, 1, 1, 0]), ([6, 0, 0, 0], [1, 0, 0, 0])]
  for step in (*range(9), 302, 1):  # out of turn too
    rows, mask = rows_at(step)
    assert (list(rows), list(mask)) == epoch[step % 3]
    assert rows.dtype == np.int32 and mask.dtype == np.float32


def test_prediction_sees_all_rows_in_order() -> None:
  chunks = batches.rows_in_order(7, 3)
  assert [(list(rows), list(mask)) for rows, mask in chunks] == [
    ([0, 1, 2], [1, 1, 1]),
    ([3, 4, 5], [1, 1, 1]),
    ([6, 0, 0], [1, 0, 0]),
  ]


@pytest.mark.parametrize('count', [0, 1, 2, 3, 20])
@pytest.mark.parametrize('depth', [1, 2, 5])
def test_what_is_made_ahead_comes_in_order(count: int, depth: int) -> None:
  with batches.ahead(lambda item: item * item, iter(range(count)), depth=depth) as made:
    assert list(made) == [item * item for item in range(count)]


def test_the_next_ones_are_made_while_one_is_in_use_and_no_more_than_those() -> None:
  begun, made = [threading.Event() for _ in range(6)], []

  def make(item: int) -> int:
    begun[item].set()
    made.append(item)
    return item

  with batches.ahead(make, range(6), depth=2) as turns:
    for item in turns:
      for later in range(item, min(item + 3, 6)):
        assert begun[later].wait(30), f'{later} was not made while {item} was in use'
      assert not any(event.is_set() for event in begun[item + 3 :])
  assert made == list(range(6))  # one at a time


def test_what_making_raises_is_raised_at_its_turn() -> None:
  broken, used = OSError('the disk is gone'), []

  def make(item: int) -> int:
    if item == 3:
      raise broken
    return item

  with pytest.raises(OSError) as caught, batches.ahead(make, range(9)) as turns:
    used.extend(turns)
  assert caught.value is broken
  assert used == [0, 1, 2]


@pytest.mark.parametrize('ending', [None, RuntimeError, KeyboardInterrupt])
def test_nothing_goes_on_after_the_end(ending: type[BaseException] | None) -> None:
  before, made, makers = set(threading.enumerate()), [], set()

  def make(item: int) -> int:
    time.sleep(0.02)
    made.append(item)
    makers.add(threading.current_thread())
    return item

  try:
    with batches.ahead(make, range(500), depth=200) as turns:
      assert next(turns) == 0
      assert set(threading.enumerate()) > before
      if ending:
        raise ending
  except (RuntimeError, KeyboardInterrupt):
    pass
  assert set(threading.enumerate()) == before
  assert len(makers) == 1 and len(made) < 100  # of the 200 that were to be made

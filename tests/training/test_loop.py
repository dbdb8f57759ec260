"""Tests of the training loop: order, resuming, numbers that are not finite, what it writes."""

import contextlib
import pathlib
import threading
from collections.abc import Callable

import jax
import numpy as np
import pytest

from emo_jax.training import loop, parallel


@parallel.train_step
def step(state: dict, batch: dict, key: jax.Array) -> tuple[dict, dict]:
  """x <- 0.9 x + mean of the batch + noise; rounding makes any change of the order of steps visible."""
  sums = parallel.total({'count': batch['params'].shape[0] * 1.0, 'value': batch['params'].sum()})
  noise = jax.random.normal(jax.random.fold_in(key, state['step']), (3,))
  x = 0.9 * state['params'] + sums['value'] / sums['count'] + noise
  return {'params': x, 'step': state['step'] + 1}, sums


def start() -> dict:
  return {'params': np.zeros(3, np.float32), 'step': np.asarray(0, np.int32)}


def batch_at(number: int) -> dict[str, np.ndarray]:
  return {'params': np.random.default_rng(number).normal(size=4 * parallel.device_count()).astype(np.float32)}


def fit(folder: pathlib.Path, watch: loop.Watch, batch_at: Callable = batch_at, **of: object) -> dict:
  key = jax.random.key(0)
  return loop.fit(step, start(), batch_at, key, steps=10, name='toy', folder=folder, watch=watch, **of)


def test_steps_are_taken_in_order_and_counted(tmp_path: pathlib.Path, watch: Callable, lines: Callable) -> None:
  ticks, asked = [], []

  def noted(number: int) -> dict[str, np.ndarray]:
    asked.append(number)
    return batch_at(number)

  state = fit(tmp_path / 'c', watch(ticks.append, log_every=4), batch_at=noted)
  assert asked == list(range(10))
  assert ticks == [0, 4, 4, 2]
  assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(state)) and state['step'] == 10
  x = np.zeros(3)
  for number in range(10):
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), number), (3,))
    x = 0.9 * x + batch_at(number)['params'].mean() + np.asarray(noise, np.float64)
  np.testing.assert_allclose(state['params'], x, rtol=1e-5)
  written = lines()
  assert [(line['train'], line['step']) for line in written] == [('toy', number) for number in range(10)]
  want = [batch_at(number)['params'].mean() for number in range(10)]
  np.testing.assert_allclose([line['value'] for line in written], want, rtol=1e-4, atol=1e-6)
  assert all(set(line) == {'train', 'step', 'value'} for line in written)


@pytest.mark.parametrize('broken_at', [2, 3, 5, 9])
def test_an_interrupted_run_ends_in_the_same_bytes(tmp_path: pathlib.Path, watch: Callable, broken_at: int) -> None:
  whole = fit(tmp_path / 'whole', watch(save_every=3))

  def breaks(number: int) -> dict[str, np.ndarray]:
    if number == broken_at:
      raise OSError('the disk is gone')
    return batch_at(number)

  with pytest.raises(OSError, match='the disk is gone'):
    fit(tmp_path / 'c', watch(save_every=3), batch_at=breaks)
  asked, ticks = [], []

  def noted(number: int) -> dict[str, np.ndarray]:
    asked.append(number)
    return batch_at(number)

  resumed = fit(tmp_path / 'c', watch(ticks.append, save_every=3), batch_at=noted)
  last_saved = broken_at // 3 * 3
  assert asked == list(range(last_saved, 10))
  assert ticks[0] == last_saved and sum(ticks) == 10
  for name in whole:
    assert resumed[name].tobytes() == whole[name].tobytes()


def test_the_next_batches_are_made_and_placed_while_a_step_runs(
  tmp_path: pathlib.Path, watch: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
  placed, shard, calls = [threading.Event() for _ in range(10)], parallel.shard, iter(range(10))

  def noted(batch: dict) -> dict:
    on_device = shard(batch)
    placed[next(calls)].set()
    return on_device

  def held_back(state: dict, batch: dict, key: jax.Array) -> tuple[dict, dict]:
    for later in placed[int(state['step']) :][:3]:
      assert later.wait(30), f'a batch did not come while step {state["step"]} was running'
    return step(state, batch, key)

  monkeypatch.setattr(parallel, 'shard', noted)
  key, of = jax.random.key(0), {'steps': 10, 'name': 'toy', 'folder': tmp_path / 'c', 'watch': watch()}
  assert loop.fit(held_back, start(), batch_at, key, **of)['step'] == 10


def test_steps_before_a_batch_that_cannot_be_made_are_done_and_kept(
  tmp_path: pathlib.Path, watch: Callable, lines: Callable
) -> None:
  broken, failed, done = OSError('the disk is gone'), threading.Event(), []

  def breaks(number: int) -> dict[str, np.ndarray]:
    if number == 7:
      failed.set()
      raise broken
    return batch_at(number)

  def noted(state: dict, batch: dict, key: jax.Array) -> tuple[dict, dict]:
    done.append(int(state['step']))
    assert done[-1] != 5 or failed.wait(30)  # the batch of step 7 has failed before step 5 is taken
    return step(state, batch, key)

  of = {'steps': 10, 'name': 'toy', 'folder': tmp_path / 'c', 'watch': watch(log_every=1, save_every=7)}
  with pytest.raises(OSError) as caught:
    loop.fit(noted, start(), breaks, jax.random.key(0), **of)
  assert caught.value is broken
  assert done == [line['step'] for line in lines()] == list(range(7))
  assert (tmp_path / 'c' / '7').is_dir()


@pytest.mark.parametrize('ending', [None, OSError, KeyboardInterrupt])
def test_no_thread_outlives_a_training(
  tmp_path: pathlib.Path, watch: Callable, ending: type[BaseException] | None
) -> None:
  readers = set()

  def noted(number: int) -> dict[str, np.ndarray]:
    readers.add(threading.current_thread())
    return batch_at(number)

  def ends(state: dict, batch: dict, key: jax.Array) -> tuple[dict, dict]:
    if ending and state['step'] == 4:
      raise ending
    return step(state, batch, key)

  of = {'steps': 10, 'name': 'toy', 'folder': tmp_path / 'c', 'watch': watch()}
  with pytest.raises(ending) if ending else contextlib.nullcontext():
    loop.fit(ends, start(), noted, jax.random.key(0), **of)
  (reader,) = readers
  assert reader is not threading.current_thread() and not reader.is_alive()


def test_the_initial_arrays_are_not_given_up(tmp_path: pathlib.Path, watch: Callable) -> None:
  state = jax.tree.map(jax.numpy.asarray, start())
  for run in ('first', 'second'):
    of = {'steps': 10, 'name': 'toy', 'folder': tmp_path / run, 'watch': watch()}
    loop.fit(step, state, batch_at, jax.random.key(0), **of)
  np.testing.assert_array_equal(state['params'], start()['params'])


def halved(done: int, state: dict) -> dict:
  return {**state, 'params': state['params'] / 2}


def test_after_each_epoch_the_state_goes_on_as_it_was_left(tmp_path: pathlib.Path, watch: Callable) -> None:
  calls = []

  def noted(done: int, state: dict) -> dict:
    calls.append((done, int(state['step'])))
    return halved(done, state)

  state = fit(tmp_path / 'c', watch(), epoch_steps=4, after_epoch=noted)
  assert calls == [(4, 4), (8, 8)]  # the last epoch was cut short
  x = np.zeros(3)
  for number in range(10):
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), number), (3,))
    x = 0.9 * x + batch_at(number)['params'].mean() + np.asarray(noise, np.float64)
    x = x / 2 if number in (3, 7) else x
  np.testing.assert_allclose(state['params'], x, rtol=1e-5)


@pytest.mark.parametrize('broken_at', [3, 5, 6, 9])
def test_an_epochs_end_is_lived_through_once_by_an_interrupted_run(
  tmp_path: pathlib.Path, watch: Callable, broken_at: int
) -> None:
  def breaks(number: int) -> dict[str, np.ndarray]:
    if number == broken_at:
      raise OSError('the disk is gone')
    return batch_at(number)

  # A checkpoint at 3 is also an epoch's end, one at 6 too: what was done there is in it.
  want = fit(tmp_path / 'whole', watch(save_every=3), epoch_steps=3, after_epoch=halved)
  with pytest.raises(OSError, match='the disk is gone'):
    fit(tmp_path / 'c', watch(save_every=3), breaks, epoch_steps=3, after_epoch=halved)
  got = fit(tmp_path / 'c', watch(save_every=3), epoch_steps=3, after_epoch=halved)
  assert got['params'].tobytes() == want['params'].tobytes()


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_a_number_that_is_not_finite_stops_the_training(
  tmp_path: pathlib.Path, watch: Callable, lines: Callable, bad: float
) -> None:
  def breaks(number: int) -> dict[str, np.ndarray]:
    batch = batch_at(number)
    batch['params'][0] = bad if number == 5 else batch['params'][0]
    return batch

  with pytest.raises(FloatingPointError, match=rf'toy: value became {bad} at step 5.*a lower learning rate'):
    fit(tmp_path / 'c', (watching := watch(log_every=4, save_every=6)), batch_at=breaks)
  watching.metrics.flush()
  assert [line['step'] for line in lines()] == [0, 1, 2, 3, 4]
  assert not [path for path in (tmp_path / 'c').iterdir() if path.name == '6']  # a broken state is never saved


def test_an_epochs_end_sees_no_broken_state(tmp_path: pathlib.Path, watch: Callable) -> None:
  def breaks(number: int) -> dict[str, np.ndarray]:
    return {'params': batch_at(number)['params'] * (np.nan if number == 5 else 1)}

  ends = []
  with pytest.raises(FloatingPointError, match='at step 5'):
    fit(
      tmp_path / 'c', watch(log_every=100), breaks, epoch_steps=3, after_epoch=lambda done, of: ends.append(done) or of
    )
  assert ends == [3]


def test_nothing_crosses_between_host_and_device_unasked(
  tmp_path: pathlib.Path, watch: Callable, no_silent_transfers: Callable
) -> None:
  key = jax.random.key(0)
  with no_silent_transfers():
    state = loop.fit(
      step, start(), batch_at, key, steps=5, name='toy', folder=tmp_path / 'c', watch=watch(log_every=2, save_every=2)
    )
  assert state['step'] == 5

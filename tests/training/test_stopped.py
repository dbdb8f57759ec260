"""A training that is asked to stop: what it saves, where it goes on, and what several processes agree on."""

import pathlib
from collections.abc import Callable

import jax
import numpy as np
import pytest

from emo_jax import processes, stopping
from emo_jax.training import loop, parallel


@parallel.train_step
def step(state: dict, batch: dict, key: jax.Array) -> tuple[dict, dict]:
  sums = parallel.total({'count': batch['x'].shape[0] * 1.0, 'value': batch['x'].sum()})
  noise = jax.random.normal(jax.random.fold_in(key, state['step']), (3,))
  params = 0.9 * state['params'] + sums['value'] / sums['count'] + noise
  return {'params': params, 'step': state['step'] + 1}, sums


def fit(folder: pathlib.Path, watch: loop.Watch) -> dict:
  batch_at = lambda n: {'x': np.random.default_rng(n).normal(size=4 * parallel.device_count()).astype(np.float32)}
  state = {'params': np.zeros(3, np.float32), 'step': np.asarray(0, np.int32)}
  return loop.fit(step, state, batch_at, jax.random.key(0), steps=8, name='toy', folder=folder, watch=watch)


def asked_after(steps: int) -> Callable[[], bool]:
  """In place of stopping.asked: yes from that step on."""
  calls = iter(range(100))
  return lambda: next(calls) + 1 >= steps


@pytest.mark.parametrize('at', [1, 5, 8])
def test_a_training_saves_itself_after_the_step_in_work_and_goes_on_from_there(
  tmp_path: pathlib.Path, watch: Callable, lines: Callable, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
  with monkeypatch.context() as patch:
    patch.setattr(stopping, 'asked', asked_after(at))
    with pytest.raises(stopping.Stopped) as stopped:
      fit(tmp_path / 'c', watch(log_every=3, save_every=100))
  assert (stopped.value.code, stopped.value.said.split('; ')[0]) == (
    143,
    f'stopped by SIGTERM: saved toy at step {at}',
  )
  assert [path.name for path in (tmp_path / 'c').iterdir() if path.name.isdigit()] == [str(at)]
  assert [line['step'] for line in lines()] == list(range(at))
  resumed = fit(tmp_path / 'c', watch(log_every=3, save_every=100))
  assert [line['step'] for line in lines()] == list(range(8))  # none is lost or made twice
  assert resumed['params'].tobytes() == fit(tmp_path / 'whole', watch())['params'].tobytes()


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
  """This process is the only one of two that is here: what it is told is what each would be."""
  monkeypatch.setattr(processes, 'team', lambda: (0, 1))
  monkeypatch.setattr(processes, 'exchange', lambda value: [value, value])


def test_of_several_processes_one_that_is_asked_stops_all_at_the_same_step(two: None) -> None:
  agreed = parallel.agreement()
  assert [agreed(wish) for wish in (False, True, False, True, True, False)] == [False, False, True, False, True, True]


def test_a_process_alone_waits_for_nobody() -> None:
  agreed = parallel.agreement()
  assert [agreed(wish) for wish in (False, True)] == [False, True]


def test_in_a_team_a_training_takes_one_step_more_before_it_stops(
  two: None, tmp_path: pathlib.Path, watch: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(stopping, 'asked', asked_after(4))
  with pytest.raises(stopping.Stopped) as stopped:
    fit(tmp_path / 'c', watch(save_every=100))
  assert 'saved toy at step 5' in stopped.value.said

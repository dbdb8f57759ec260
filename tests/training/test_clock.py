"""Tests of where a training's time goes, and of traces of its steps."""

import gzip
import json
import pathlib
from collections.abc import Callable, Iterator

import jax
import numpy as np
import pytest

from emo_jax.training import clock, loop


@pytest.fixture
def time_is(monkeypatch: pytest.MonkeyPatch) -> list[float]:
  """The time, in a list of one."""
  now = [100.0]
  monkeypatch.setattr('time.perf_counter', lambda: now[0])
  return now


def test_a_clock_tells_parts_and_what_is_in_none(time_is: list[float]) -> None:
  told: list[dict[str, float]] = []

  def slow() -> Iterator[int]:
    for number in range(2):
      time_is[0] += 0.5
      yield number
    time_is[0] += 0.25  # to find that there is no more takes time too

  with pytest.raises(OSError, match='the disk is gone'), clock.clocked(told.append) as spend:
    with spend('checkpoints'):
      time_is[0] += 3.0
    for number in spend.waiting(slow()):
      with spend('steps' if number else 'first_step'):
        time_is[0] += 2.0 - number
    time_is[0] += 0.125
    with spend('epochs'):
      time_is[0] += 8.0
      raise OSError('the disk is gone')
  want = {'first_step': 2.0, 'steps': 1.0, 'batches': 1.25, 'metrics': 0.0, 'epochs': 8.0, 'checkpoints': 3.0}
  assert told == [{'seconds': 15.375, **want, 'other': 0.125}]


def test_a_line_sums_up_all_stages_and_trainings() -> None:
  parts = {part: 0.0 for part in clock.PARTS}
  trainings = [{'seconds': 8.0, **parts, 'first_step': 6.0, 'steps': 2.0}, {'seconds': 2.0, **parts, 'steps': 2.0}]
  line = clock.summary({'prepare': 30.04, 'audio_net': 10.0}, trainings)
  assert line.startswith('time: 40.0 s: prepare 30.0 s (75%), audio_net 10.0 s (25%); trainings 10.0 s: ')
  assert 'first steps (compiling) 60%, steps 40%, waiting for batches 0%' in line
  assert clock.summary({'prepare': 0.0}, []) == 'time: 0.0 s: prepare 0.0 s (0%)'


def test_a_training_tells_its_seconds_whole(tmp_path: pathlib.Path, watch: Callable) -> None:
  told = {}
  watching = watch(log_every=2, save_every=2).__dict__ | {'spent': told.__setitem__}
  fit(tmp_path, 6, loop.Watch(**watching), epoch_steps=2, after_epoch=lambda done, state: state)
  (spent,) = told.values()
  assert list(told) == ['toy/fold_0/part'] and list(spent) == ['seconds', *clock.PARTS]
  assert spent['seconds'] == pytest.approx(sum(spent[part] for part in clock.PARTS))
  assert all(spent[part] > 0 for part in clock.PARTS)


def fit(folder: pathlib.Path, steps: int, watch: loop.Watch, **of: object) -> dict:
  """A training whose steps are one addition each."""
  add = jax.jit(lambda x: x + 1)

  def step(state: dict, batch: dict, key: jax.Array) -> tuple[dict, dict]:
    sums = {'count': np.float32(1), 'value': np.float32(0)}
    return {'params': add(state['params']), 'step': state['step'] + 1}, sums

  state = {'params': np.zeros(2, np.float32), 'step': np.asarray(0, np.int32)}
  of = {'steps': steps, 'name': 'toy/fold_0/part', 'folder': folder / 'c', 'watch': watch, **of}
  return loop.fit(step, state, lambda number: {}, jax.random.key(0), **of)


@pytest.mark.parametrize('steps, want', [(25, range(10, 20)), (12, [10, 11]), (3, [2]), (1, [0])])
def test_ten_steps_are_traced_and_of_a_short_training_the_last(
  tmp_path: pathlib.Path, watch: Callable, steps: int, want: list[int]
) -> None:
  watching = loop.Watch(**(watch().__dict__ | {'traces': tmp_path / 'profile'}))
  assert fit(tmp_path, steps, watching)['params'].tolist() == [steps, steps]
  (trace,) = (tmp_path / 'profile' / 'toy_part' / 'plugins' / 'profile').rglob('*.trace.json.gz')
  events = json.loads(gzip.decompress(trace.read_bytes()))['traceEvents']
  seen = {int(event['args']['step_num']) for event in events if event.get('name') == 'toy/fold_0/part'}
  assert seen == set(want)


def test_the_first_of_a_kind_is_traced_and_no_other(tmp_path: pathlib.Path) -> None:
  step = lambda state: (state + 1, {})
  for name in ('net/fold_3', 'net/fold_4', 'other/fold_4'):
    with clock.traced(step, name, steps=2, into=tmp_path) as traced:
      assert [traced(number)[0] for number in range(2)] == [1, 2]
      assert (traced is step) == (name == 'net/fold_4')
  assert sorted(path.name for path in tmp_path.iterdir()) == ['net', 'other']
  with clock.traced(step, 'third/fold_0', steps=2, into=None) as traced:
    assert traced is step


def test_a_training_that_breaks_off_leaves_no_trace_running(tmp_path: pathlib.Path) -> None:
  for name in ('first', 'second'):  # a trace that runs on would refuse the next one
    with pytest.raises(OSError), clock.traced(lambda state: (state, {}), name, steps=30, into=tmp_path) as traced:
      for number in range(12):
        traced(number)
      raise OSError
    assert list((tmp_path / name).rglob('*.trace.json.gz'))

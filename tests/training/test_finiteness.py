"""Tests of numbers that are not finite: what is looked at, what is named, what is left out."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emo_jax.training import finiteness


def rooted(state: dict, by: jax.Array) -> tuple[dict, dict]:
  """A state with all kinds of leaves; not finite where `by` is negative."""
  x = state['params']['x'] - jnp.sqrt(by)
  new = {'params': {'x': x}, 'best': state['best'] + 1, 'step': state['step'] + 1}
  return new, {'count': jnp.ones(()), 'loss': jnp.sum(x)}


STATE = {'params': {'x': np.ones(3, np.float32)}, 'best': np.int32(7), 'step': np.int32(4)}


def test_an_update_that_is_not_finite_moves_the_step_alone() -> None:
  update = jax.jit(finiteness.guarded(rooted, 'skip'))
  state, sums = update(STATE, jnp.float32(-1))
  assert sums['skipped'] == 1 and np.isnan(sums['loss'])
  assert state['step'] == 5 and state['best'] == 7
  np.testing.assert_array_equal(state['params']['x'], 1)
  state, sums = update(STATE, jnp.float32(4))
  assert sums['skipped'] == 0 and state['step'] == 5 and state['best'] == 8
  np.testing.assert_array_equal(state['params']['x'], -1)


def test_where_a_training_is_to_stop_nothing_is_added_to_its_step() -> None:
  assert finiteness.guarded(rooted, 'stop') is rooted


def test_norms_see_a_single_bad_number_anywhere() -> None:
  tree = {'a': jnp.ones((2, 2)), 'b': {'c': jnp.array([3.0, 4.0])}}
  fine = finiteness.norms(tree, {'x': jnp.array([-6.0, 8.0])})
  np.testing.assert_allclose([fine['gradient_norm'], fine['parameter_norm']], [29**0.5, 10], rtol=1e-6)
  for bad in (np.nan, np.inf, -np.inf):
    broken = {**tree, 'b': {'c': jnp.array([3.0, bad])}}
    norms = finiteness.norms(broken, tree)
    assert not np.isfinite(norms['gradient_norm']) and np.isfinite(norms['parameter_norm'])
    assert not np.isfinite(finiteness.norms(tree, broken)['parameter_norm'])


def test_what_is_broken_first_is_named_first() -> None:
  """A compiled step hands its numbers out by name."""
  sums = {'accuracy': 2.0, 'count': 4.0, 'gradient_norm': np.nan, 'loss': np.inf, 'parameter_norm': np.nan}
  means = finiteness.means(sums)
  assert means['accuracy'] == 0.5
  assert list(finiteness.broken(means)) == ['loss', 'gradient', 'parameters']
  assert finiteness.broken({'loss': 1.0, 'gradient_norm': 3.0, 'skipped': 0.0}) == {}


def test_norms_are_no_sums_over_rows() -> None:
  assert finiteness.means({'count': 4.0, 'loss': 8.0, 'gradient_norm': 3.0, 'skipped': 1.0}) == {
    'loss': 2.0,
    'gradient_norm': 3.0,
    'skipped': 1.0,
  }


@pytest.mark.parametrize(
  'skipped, steps, stops',
  [
    ([0], 100, False),
    (list(range(9)), 100, False),
    (list(range(10)), 100, True),
    ([0, *range(5, 15)], 100, True),
    ([*range(9), 10], 100, False),
    ([0, 1], 3, False),
    ([0, 1, 2], 3, True),
  ],
)
def test_ten_updates_in_a_row_are_too_many_or_all(skipped: list[int], steps: int, stops: bool) -> None:
  assert finiteness.too_many(skipped, steps) is stops


def items(rows: np.ndarray | slice) -> list[dict]:
  return [{'clip': f'clip_{place}', 'start': 30} for place in np.arange(5)[rows]]


def test_rows_are_told_with_their_clips_and_without_those_that_fill_up() -> None:
  batch = {'row': np.array([3, 1, 0, 0]), 'mask': np.array([1.0, 1, 0, 0]), 'input': np.ones((4, 2, 2), np.float32)}
  batch['input'][1, 0, 1] = np.inf
  told = finiteness.rows_of(batch, items)
  assert told == [
    {'clip': 'clip_3', 'start': 30, 'input_finite': True},
    {'clip': 'clip_1', 'start': 30, 'input_finite': False},
  ]
  batch['input'][2:] = np.nan  # 0 times NaN is NaN: now these count
  assert [row['clip'] for row in finiteness.rows_of(batch, items)] == ['clip_3', 'clip_1', 'clip_0', 'clip_0']
  batch['input'] = np.zeros((4, 2, 2), np.uint8)
  assert all(row['input_finite'] for row in finiteness.rows_of(batch, items))
  assert finiteness.rows_of({}, items) == items(slice(None))


def test_rows_that_are_not_finite_are_searched_for() -> None:
  data = np.ones((4, 3, 2), np.float32)
  data[1, 2, 0], data[3] = np.nan, np.inf
  assert finiteness.not_finite(data.__getitem__, 4).tolist() == [1, 3]
  assert finiteness.finite_rows(data).tolist() == [True, False, True, False]


def test_what_ends_a_training_is_written_down_and_said(tmp_path: pathlib.Path) -> None:
  rows = [{'clip': f'c{place // 2}', 'start': 30 * place, 'input_finite': True} for place in range(14)]
  with pytest.raises(FloatingPointError) as caught:
    finiteness.stop('net/fold_0', 'gradient', np.inf, rows, tmp_path, step=12)
  path = tmp_path / 'bad_batch.json'
  said = f'net/fold_0: gradient became inf at step 12, of c0, c1, c2, c3, c4 and 2 more ({path} has all). The input is'
  assert str(caught.value).startswith(said) and 'config.nonfinite=skip' in str(caught.value)
  known = {'train': 'net/fold_0', 'step': 12, 'what': 'gradient', 'value': 'inf', 'skipped': 0, 'rows': rows}
  assert json.loads(path.read_text()) == known


def test_a_broken_input_is_said_to_be_the_cause() -> None:
  rows = [{'clip': 'good', 'input_finite': True}, {'clip': 'bad', 'input_finite': False}]
  with pytest.raises(FloatingPointError, match=r'became nan, of good, bad\. Not finite is the very input of bad: mend'):
    finiteness.stop('net/fold_0', 'mean', np.nan, rows, None)

"""Tests of saving and restoring."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emo_jax.training import checkpoint


def tree(number: float) -> dict:
  return {
    'params': [{'kernel': jnp.full((2, 3), number)}, {'kernel': np.full(4, number, np.float32)}],
    'step': np.asarray(int(number), np.int32),
  }


def assert_same(one: dict, other: dict) -> None:
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def test_the_state_itself_comes_back_where_nothing_was_saved(tmp_path: pathlib.Path) -> None:
  state = tree(1)
  with checkpoint.checkpoints(tmp_path / 'c') as saved:
    assert saved.restore(state) is state


def test_the_newest_checkpoint_comes_back_as_numpy_and_is_the_only_one_kept(tmp_path: pathlib.Path) -> None:
  with checkpoint.checkpoints(tmp_path / 'c') as saved:
    for number in (3, 6, 9):
      saved.save(number, tree(number))
  with checkpoint.checkpoints(tmp_path / 'c') as saved:
    got = saved.restore(tree(0))
  assert_same(got, tree(9))
  assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(got))
  assert [path.name for path in (tmp_path / 'c').iterdir() if path.is_dir()] == ['9']


def test_a_saved_state_does_not_change_with_the_arrays_it_was_made_from(tmp_path: pathlib.Path) -> None:
  state = {'x': np.zeros(1000, np.float32)}
  with checkpoint.checkpoints(tmp_path / 'c') as saved:
    saved.save(1, jax.device_put(state))
    state['x'] += 1
  with checkpoint.checkpoints(tmp_path / 'c') as saved:
    assert not saved.restore(state)['x'].any()


def test_what_was_saved_before_an_exception_is_whole(tmp_path: pathlib.Path) -> None:
  with pytest.raises(KeyboardInterrupt), checkpoint.checkpoints(tmp_path / 'c') as saved:
    saved.save(5, tree(5))
    raise KeyboardInterrupt
  with checkpoint.checkpoints(tmp_path / 'c') as saved:
    assert_same(saved.restore(tree(0)), tree(5))


def test_a_finished_tree_is_read_back_and_replaces_an_older_one(tmp_path: pathlib.Path) -> None:
  for number in (1, 2):
    checkpoint.save(tmp_path / 'done', tree(number))
    like = jax.eval_shape(lambda: tree(0))
    assert_same(checkpoint.load(tmp_path / 'done', like), tree(number))


OTHERS = [{'x': np.zeros(5, np.float32)}, {'x': np.zeros(2, np.float32)}, {'y': np.zeros(3, np.float32)}]


@pytest.mark.parametrize('other', OTHERS)
def test_a_checkpoint_that_does_not_fit_the_state_is_refused(tmp_path: pathlib.Path, other: dict) -> None:
  with checkpoint.checkpoints(tmp_path / 'c') as saved:
    saved.save(1, {'x': np.zeros(3, np.float32)})
  with checkpoint.checkpoints(tmp_path / 'c') as saved, pytest.raises(ValueError):
    saved.restore(other)


@pytest.mark.parametrize('other', OTHERS)
def test_a_finished_tree_that_does_not_fit_is_refused(tmp_path: pathlib.Path, other: dict) -> None:
  checkpoint.save(tmp_path / 'done', {'x': np.zeros(3, np.float32)})
  with pytest.raises(ValueError):
    checkpoint.load(tmp_path / 'done', other)

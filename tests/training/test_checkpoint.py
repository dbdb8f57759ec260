"""Tests of saving and restoring."""

import contextlib
import errno
import os
import pathlib
import resource
import shutil
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from emo_jax.training import checkpoint

# Where a save or a restore fails, Orbax's other threads find its event loop closed, and say so at any time: launch.py
# keeps that from the user.
pytestmark = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')


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


def test_the_newest_checkpoint_comes_back_as_numpy_and_two_are_kept(tmp_path: pathlib.Path) -> None:
  with checkpoint.checkpoints(tmp_path / 'c') as saved:
    for number in (3, 6, 9):
      saved.save(number, tree(number))
  with checkpoint.checkpoints(tmp_path / 'c') as saved:
    got = saved.restore(tree(0))
  assert_same(got, tree(9))
  assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(got))
  assert sorted(path.name for path in (tmp_path / 'c').iterdir()) == ['6', '9']


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
  with (
    checkpoint.checkpoints(tmp_path / 'c') as saved,
    pytest.raises(checkpoint.Unfit, match=r'holds another model: [xy] is '),
  ):
    saved.restore(other)


@pytest.mark.parametrize('other', OTHERS)
def test_a_finished_tree_that_does_not_fit_is_refused(tmp_path: pathlib.Path, other: dict) -> None:
  checkpoint.save(tmp_path / 'done', {'x': np.zeros(3, np.float32)})
  with pytest.raises(checkpoint.Unfit, match=f'{tmp_path}/done holds another model: [xy] is '):
    checkpoint.load(tmp_path / 'done', other)


def checkpoint_of_three(folder: pathlib.Path) -> None:
  """Checkpoints of the steps 3, 6 and 9, of arrays that are large beside what describes them."""
  with checkpoint.checkpoints(folder) as saved:
    for number in (3, 6, 9):
      saved.save(number, large(number))


def large(number: int) -> dict:
  return {'x': np.random.default_rng(number).normal(size=(100, 100)).astype(np.float32), 'step': np.asarray(number)}


def largest(folder: pathlib.Path) -> pathlib.Path:
  """The file that the arrays are in."""
  return max((path for path in folder.rglob('*') if path.is_file()), key=lambda path: path.stat().st_size)


def cut_off(folder: pathlib.Path) -> None:
  os.truncate(largest(folder), largest(folder).stat().st_size // 2)


def flip_a_bit(folder: pathlib.Path) -> None:
  content = bytearray(largest(folder).read_bytes())
  content[len(content) // 2] ^= 1
  largest(folder).write_bytes(content)


def lose_the_arrays(folder: pathlib.Path) -> None:
  largest(folder).unlink()


def lose_all(folder: pathlib.Path) -> None:
  shutil.rmtree(folder)
  folder.mkdir()


def garble_the_description(folder: pathlib.Path) -> None:
  (next(folder.rglob('_METADATA'))).write_text('{"tree')


DAMAGES = [cut_off, flip_a_bit, lose_the_arrays, lose_all, garble_the_description]


@pytest.mark.parametrize('damage', DAMAGES)
def test_where_the_newest_checkpoint_is_damaged_the_one_before_is_used_and_that_is_said(
  tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], damage: Callable[[pathlib.Path], None]
) -> None:
  checkpoint_of_three(tmp_path / 'c')
  damage(tmp_path / 'c' / '9')
  for _ in range(2):  # the second time it is not even looked at
    with checkpoint.checkpoints(tmp_path / 'c') as saved:
      assert_same(saved.restore(large(0)), large(6))
      said = capsys.readouterr().err
  with checkpoint.checkpoints(tmp_path / 'c') as saved:
    saved.save(9, large(9))
  with checkpoint.checkpoints(tmp_path / 'c') as saved:
    assert_same(saved.restore(large(0)), large(9))
  assert not said


def test_what_is_said_of_a_damaged_checkpoint(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
  checkpoint_of_three(tmp_path / 'c')
  flip_a_bit(tmp_path / 'c' / '9')
  with checkpoint.checkpoints(tmp_path / 'c') as saved:
    saved.restore(large(0))
  wrong = 'is damaged (its checksum is wrong)'
  assert capsys.readouterr().err == (
    f'{tmp_path}/c/9.damaged: the checkpoint of step 9 {wrong}; training goes on from step 6\n'
  )
  flip_a_bit(tmp_path / 'c' / '6')
  with checkpoint.checkpoints(tmp_path / 'c') as saved:
    state = large(0)
    assert saved.restore(state) is state
  assert capsys.readouterr().err == (
    f'{tmp_path}/c/6.damaged: the checkpoint of step 6 {wrong}; training starts from the beginning\n'
  )


def test_a_half_written_checkpoint_is_passed_over_and_removed(
  tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  checkpoint_of_three(tmp_path / 'c')
  (tmp_path / 'c' / '9').rename(tmp_path / 'c' / '9.orbax-checkpoint-tmp')  # the name that Orbax writes it under
  with checkpoint.checkpoints(tmp_path / 'c') as saved:
    assert_same(saved.restore(large(0)), large(6))
    saved.save(9, large(9))
  assert sorted(path.name for path in (tmp_path / 'c').iterdir()) == ['6', '9']
  assert not capsys.readouterr().err


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_tree_is_refused_with_the_folder_to_delete(
  tmp_path: pathlib.Path, damage: Callable[[pathlib.Path], None]
) -> None:
  checkpoint.save(tmp_path / 'stage' / 'net', large(1))
  damage(tmp_path / 'stage' / 'net')
  sentence = f'^{tmp_path}/stage/net is damaged \\(.*\\): delete {tmp_path}/stage%s, then the same command'
  with pytest.raises(checkpoint.Unfit, match=sentence % '/net'):
    checkpoint.read(tmp_path / 'stage' / 'net')
  (tmp_path / 'stage' / 'key.json').touch()  # a stage that is whole is made again as a whole
  with pytest.raises(checkpoint.Unfit, match=sentence % ''):
    checkpoint.load(tmp_path / 'stage' / 'net', large(0))


def test_a_tree_saved_before_there_were_checksums_is_read(tmp_path: pathlib.Path) -> None:
  with ocp.StandardCheckpointer() as saver:
    saver.save(tmp_path / 'old', large(1))
  assert_same(checkpoint.load(tmp_path / 'old', large(0)), large(1))


def test_tuples_and_named_tuples_come_back_as_they_were(tmp_path: pathlib.Path) -> None:
  params = {'b': np.ones(2, np.float32), 'a': [np.zeros((2, 2), np.float32)]}
  state = {'params': params, 'opt': optax.chain(optax.clip(1.0), optax.adamw(1e-3)).init(params)}
  with checkpoint.checkpoints(tmp_path / 'c') as saved:
    saved.save(1, state)
  with checkpoint.checkpoints(tmp_path / 'c') as saved:
    assert_same(saved.restore(jax.tree.map(np.zeros_like, state)), state)


@contextlib.contextmanager
def files_end_at(size: int) -> Iterator[None]:
  """The system lets no file grow beyond so many bytes: an error that tensorstore meets as it meets a full disk."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_save_that_fails_in_the_background_is_an_error_of_the_machine(tmp_path: pathlib.Path) -> None:
  with (
    pytest.raises(OSError, match='File too large') as failure,
    files_end_at(10_000),
    checkpoint.checkpoints(tmp_path / 'c') as saved,
  ):
    saved.save(3, large(3))
  assert (failure.value.errno, failure.value.filename) == (errno.EFBIG, str(tmp_path / 'c'))
  with pytest.raises(OSError, match='File too large'), files_end_at(10_000):
    checkpoint.save(tmp_path / 'done', large(3))
  with checkpoint.checkpoints(tmp_path / 'c') as saved:
    state = large(0)
    assert saved.restore(state) is state
    saved.save(3, large(3))
    saved.wait()
    assert (tmp_path / 'c' / '3').exists()
  assert not (tmp_path / 'done').exists()


def test_a_save_that_fails_does_not_hide_why_a_training_ended(tmp_path: pathlib.Path) -> None:
  with pytest.raises(KeyError, match='why'), files_end_at(10_000), checkpoint.checkpoints(tmp_path / 'c') as saved:
    saved.save(3, large(3))
    raise KeyError('why')

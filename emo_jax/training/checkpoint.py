"""Saving and restoring: the one room where Orbax lives.

States are saved as numpy copies, so any topology restores them.
"""

import contextlib
import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

Tree = Any


def _on_host(tree: Tree) -> Tree:
  return jax.tree.map(np.asarray, jax.device_get(tree))


def _fitting(folder: pathlib.Path, found: Tree, like: Tree) -> Tree:
  """Orbax hands out whatever shapes it finds; refuses what is not as expected.

  Raises:
    ValueError: an array of another shape or type; the folder and the arrays are named.
  """
  pairs = zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(like), strict=True)
  other = [
    f'{jax.tree_util.keystr(path)} is {leaf.dtype}{list(leaf.shape)}, not {wanted.dtype}{list(wanted.shape)}'
    for (path, leaf), wanted in pairs
    if (leaf.shape, leaf.dtype) != (wanted.shape, wanted.dtype)
  ]
  if other:
    raise ValueError(f'{folder} holds another model: {"; ".join(other[:3])}; delete that folder, or mend the config')
  return found


class Checkpoints:
  """The checkpoints of one training run. Written in the background; half-written ones are never seen."""

  def __init__(self, manager: ocp.CheckpointManager, folder: pathlib.Path):
    self._manager, self._folder = manager, folder

  def restore(self, state: Tree) -> Tree:
    """The newest saved state, or `state` itself where there is none; `state` also says which shapes are expected."""
    step = self._manager.latest_step()
    if step is None:
      return state
    like = _on_host(state)
    return _fitting(self._folder, _on_host(self._manager.restore(step, args=ocp.args.StandardRestore(like))), like)

  def save(self, step: int, state: Tree) -> None:
    """Saves a state under its step. Only the newest is kept."""
    self._manager.save(step, args=ocp.args.StandardSave(_on_host(state)))


@contextlib.contextmanager
def checkpoints(folder: pathlib.Path) -> Iterator[Checkpoints]:
  """Opens the checkpoints in a folder; on leaving, waits until what was saved is on disk."""
  options = ocp.CheckpointManagerOptions(max_to_keep=1)
  with ocp.CheckpointManager(folder.absolute(), options=options) as manager:
    yield Checkpoints(manager, folder)
    manager.wait_until_finished()


def digest(tree: Tree) -> str:
  """16 hex digits that name a tree of arrays by its content."""
  content = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(_on_host(tree)):
    content.update(f'{jax.tree_util.keystr(path)} {leaf.dtype}{leaf.shape}'.encode())
    content.update(np.ascontiguousarray(leaf).data)
  return content.hexdigest()[:16]


def save(folder: pathlib.Path, tree: Tree) -> None:
  """Saves a finished tree of arrays; what an interrupted run left there is replaced."""
  with ocp.StandardCheckpointer() as saver:
    saver.save(folder.absolute(), _on_host(tree), force=True)


def load(folder: pathlib.Path, like: Tree) -> Tree:
  """Reads a tree that `save` wrote, as numpy arrays.

  Args:
    like: a tree of the same structure, of arrays or of shapes.
  """
  like = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
  with ocp.StandardCheckpointer() as loader:
    return _fitting(folder, _on_host(loader.restore(folder.absolute(), like)), like)


def read(folder: pathlib.Path) -> Tree:
  """Reads whatever tree `save` wrote, as numpy arrays."""
  with ocp.StandardCheckpointer() as loader:
    return _on_host(loader.restore(folder.absolute()))

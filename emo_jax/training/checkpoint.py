"""Saving and restoring: the one room where Orbax lives.

States are saved as numpy copies, so any topology restores them.
"""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

Tree = Any


def _on_host(tree: Tree) -> Tree:
  return jax.tree.map(np.asarray, jax.device_get(tree))


class Checkpoints:
  """The checkpoints of one training run. Written in the background; half-written ones are never seen."""

  def __init__(self, manager: ocp.CheckpointManager):
    self._manager = manager

  def restore(self, state: Tree) -> Tree:
    """The newest saved state, or `state` itself where there is none; `state` also says which shapes are expected."""
    step = self._manager.latest_step()
    if step is None:
      return state
    return _on_host(self._manager.restore(step, args=ocp.args.StandardRestore(_on_host(state))))

  def save(self, step: int, state: Tree) -> None:
    """Saves a state under its step. Only the newest is kept."""
    self._manager.save(step, args=ocp.args.StandardSave(_on_host(state)))


@contextlib.contextmanager
def checkpoints(folder: pathlib.Path) -> Iterator[Checkpoints]:
  """Opens the checkpoints in a folder; on leaving, waits until what was saved is on disk."""
  options = ocp.CheckpointManagerOptions(max_to_keep=1)
  with ocp.CheckpointManager(folder.absolute(), options=options) as manager:
    yield Checkpoints(manager)
    manager.wait_until_finished()


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
    return _on_host(loader.restore(folder.absolute(), like))

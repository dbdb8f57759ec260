"""Saving and restoring: the one room where Orbax lives.

States are saved as numpy copies, so any topology restores them, with a checksum, for tensorstore notices what is
missing or cut off, but no flipped bits in arrays. Of several processes the lead saves, and all read (processes.py).
"""

import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import sys
import textwrap
import zlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint._src.multihost import multihost
from orbax.checkpoint.checkpoint_manager import DEFAULT_ITEM_NAME

from emo_jax import processes

Tree = Any
KEPT = 2  # checkpoints of a training: should the newest be damaged, there is the one before

# Each process saves by itself. Orbax (0.12) has no public way to that: it lets process 0 alone write numpy arrays, and
# all processes signal to their own threads under the same names in JAX's key-value store.
for _name, _answer in (('process_index', 0), ('process_count', 1), ('is_jax_distributed_client_initialized', False)):
  setattr(multihost, _name, lambda answer=_answer: answer)
_BY_ITSELF = ocp.options.MultiprocessingOptions(
  primary_host=0, active_processes={0}, barrier_sync_key_prefix='by_itself'
)


class Unfit(ValueError):
  """What was saved cannot be used: it is damaged, or another model's. The message names the folder to delete."""


class _Damaged(Exception):
  """What is read is not what was saved."""


def _on_host(tree: Tree) -> Tree:
  return jax.tree.map(np.asarray, jax.device_get(tree))


def by_name(tree: Tree) -> dict[str, Any]:
  """The leaves of a tree; Orbax gives tuples back as lists, and named ones as dicts, which have the same names here."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in leaves}


def _crc32(tree: Tree) -> np.ndarray:
  """uint32 []: the checksum of all arrays and their names."""
  crc = 0
  for name, array in sorted(by_name(tree).items()):
    crc = zlib.crc32(f'{name} {array.dtype}{array.shape}'.encode(), crc)
    crc = zlib.crc32(np.ascontiguousarray(array).data, crc)
  return np.asarray(crc, np.uint32)


def _sealed(tree: Tree) -> Tree:
  """As trees are saved: on the host, with their checksum."""
  tree = _on_host(tree)
  return {'tree': tree, 'crc32': _crc32(tree)}


def _unsealed(folder: pathlib.Path) -> Tree:
  """The tree in a folder, if it is what `_sealed` gave.

  Raises:
    _Damaged: it is not, or cannot be read.
    OSError: it cannot be read, and that is the machine's fault.
  """
  try:
    with _plain_errors(folder), ocp.StandardCheckpointer(multiprocessing_options=_BY_ITSELF) as loader:
      found = _on_host(loader.restore(folder.absolute()))
  except Exception as error:  # Orbax, JSON and tensorstore each have many of their own
    if isinstance(error, OSError | MemoryError) and not isinstance(error, FileNotFoundError):
      raise
    raise _Damaged(textwrap.shorten(str(error) or type(error).__name__, 120)) from error
  if found.keys() != {'tree', 'crc32'}:  # as folders were saved that had no checksum
    return found
  if found['crc32'] != _crc32(found['tree']):
    raise _Damaged('its checksum is wrong')
  return found['tree']


@contextlib.contextmanager
def _plain_errors(folder: pathlib.Path) -> Iterator[None]:
  """Errors of the machine as OSError, which tensorstore hides in the words of a ValueError."""
  try:
    yield
  except ValueError as error:
    code = re.search(r"os_error_code='(\d+)'", str(error))
    if not code:
      raise
    raise OSError(int(code[1]), os.strerror(int(code[1])), str(folder)) from error


def differences(found: Tree, like: Tree) -> list[str]:
  """The arrays of a tree that are missing, too many, or of another shape or type than those of `like`, in words."""
  there, here = (
    {name: f'{leaf.dtype}{list(leaf.shape)}' for name, leaf in by_name(tree).items()} for tree in (found, like)
  )
  return [
    f'{name} is {there.get(name, "absent")}, not {here.get(name, "absent")}'
    for name in here | there
    if here.get(name) != there.get(name)
  ]


def _fitting(folder: pathlib.Path, found: Tree, like: Tree) -> Tree:
  """The arrays found, in the structure of `like`.

  Raises:
    Unfit: an array that is missing, too many, or of another shape or type; the folder and the arrays are named.
  """
  if other := differences(found, like):
    raise Unfit(f'{folder} holds another model: {"; ".join(other[:3])}; delete that folder, or mend the config')
  arrays = by_name(found)
  return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in by_name(like)])


class Checkpoints:
  """The checkpoints of one training run. Written in the background; half-written ones are never seen."""

  def __init__(self, manager: ocp.CheckpointManager, folder: pathlib.Path):
    self._manager, self._folder = manager, folder

  def restore(self, state: Tree) -> Tree:
    """The newest saved state that is whole, or `state` itself where there is none.

    Damaged ones are put aside, and said. In several processes all call it, and restore what the lead has found.

    Args:
      state: says which structure and which shapes are expected.

    Raises:
      Unfit: the checkpoint of another model.
    """
    step = processes.by_lead(self._newest_whole)
    return state if step is None else _fitting(self._folder, self._read(step), state)

  def _read(self, step: int) -> Tree:
    return _unsealed(self._folder / str(step) / DEFAULT_ITEM_NAME)  # a manager that has met a damaged one reads no more

  def _newest_whole(self) -> int | None:
    steps, damaged = sorted(self._manager.all_steps()), {}
    while steps and (wrong := self._damage(steps[-1])):
      damaged[steps.pop()] = wrong
    for step, wrong in damaged.items():
      aside = self._folder / f'{step}.damaged'  # deleted with the others when the training is done
      shutil.rmtree(aside, ignore_errors=True)
      (self._folder / str(step)).rename(aside)
      going_on = f'goes on from step {steps[-1]}' if steps else 'starts from the beginning'
      print(f'{aside}: the checkpoint of step {step} is damaged ({wrong}); training {going_on}', file=sys.stderr)
    self._manager.reload()
    return steps[-1] if steps else None

  def _damage(self, step: int) -> str:
    """What is wrong with a checkpoint; '' for nothing."""
    try:
      self._read(step)
    except _Damaged as error:
      return str(error)
    return ''

  def save(self, step: int, state: Tree) -> None:
    """Saves a state under its step; the newest two are kept. Of several processes the lead does it.

    Raises:
      OSError: this one, or the one before, which was written in the background, could not be saved.
    """
    if processes.lead():
      with _plain_errors(self._folder):
        self._manager.save(step, args=ocp.args.StandardSave(_sealed(state)))

  def wait(self) -> None:
    """Until what was saved is on disk.

    Raises:
      OSError: it could not be saved.
    """
    with _plain_errors(self._folder):
      self._manager.wait_until_finished()


@contextlib.contextmanager
def checkpoints(folder: pathlib.Path) -> Iterator[Checkpoints]:
  """Opens the checkpoints in a folder; on leaving, waits until what was saved is on disk.

  In several processes all of a team open it.

  Raises:
    OSError: what was saved is not on disk.
  """
  folder = folder.absolute()
  lead = processes.lead()
  if lead:
    folder.mkdir(parents=True, exist_ok=True)
  processes.together()
  options = ocp.CheckpointManagerOptions(
    max_to_keep=KEPT,
    create=False,
    cleanup_tmp_directories=lead,  # of runs that were killed
    multiprocessing_options=_BY_ITSELF,
  )
  manager = ocp.CheckpointManager(folder, options=options)
  saved = Checkpoints(manager, folder)
  try:
    yield saved
    saved.wait()
  finally:
    with contextlib.suppress(Exception):  # it waits too; what brought us here says more than what else goes wrong
      manager.close()


def digest(tree: Tree) -> str:
  """16 hex digits that name a tree of arrays by its content."""
  content = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(_on_host(tree)):
    content.update(f'{jax.tree_util.keystr(path)} {leaf.dtype}{leaf.shape}'.encode())
    content.update(np.ascontiguousarray(leaf).data)
  return content.hexdigest()[:16]


def save(folder: pathlib.Path, tree: Tree) -> None:
  """Saves a finished tree of arrays; what an interrupted run left there is replaced. Of a team the lead does it.

  Raises:
    OSError: it could not be saved.
  """
  if processes.lead():
    with _plain_errors(folder), ocp.StandardCheckpointer(multiprocessing_options=_BY_ITSELF) as saver:
      saver.save(folder.absolute(), _sealed(tree), force=True)
      saver.wait_until_finished()


def load(folder: pathlib.Path, like: Tree) -> Tree:
  """Reads a tree that `save` wrote, as numpy arrays.

  Args:
    like: a tree of the same structure, of arrays or of shapes.

  Raises:
    Unfit: it is damaged, or another model's.
  """
  return _fitting(folder, read(folder), like)


def read(folder: pathlib.Path) -> Tree:
  """Reads whatever tree `save` wrote, as numpy arrays.

  Raises:
    Unfit: it is damaged.
  """
  try:
    return _unsealed(folder)
  except _Damaged as error:
    whole = folder.parent if (folder.parent / 'key.json').exists() else folder  # the stage's
    raise Unfit(f'{folder} is damaged ({error}): delete {whole}, then the same command makes it again') from error

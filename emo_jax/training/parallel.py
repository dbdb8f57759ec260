"""Many devices: the one room where pmap, meshes and shardings live.

The recipe: state unstacked and replicated, batch [D, B, ...] sharded, key shared. Everything that a step returns must
have been summed over the devices (`total`): pmap with out_axes=None silently returns the first device's value.

With several processes (processes.py) the devices are those of the team: each process holds the state on its own ones
and gives the rows of its own ones, and what is summed or gathered is the same in all.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from emo_jax import processes

AXIS = 'batch'
Tree = Any


def device_count() -> int:
  """Devices of this process, D."""
  return jax.local_device_count()


def rows_a_step(batch: int, *, parts: int = 1) -> int:
  """The global batch, rounded up to whole rows in every part of every device's batch (the rows added are masked).

  The devices are those of all processes of the team.
  """
  whole = device_count() * len(processes.team()) * parts
  return -(-batch // whole) * whole


def own(rows: Tree) -> Tree:
  """This process's part of arrays that have all rows of a step: [G, ...] -> [G / processes, ...], contiguous."""
  team = processes.team()
  place, parts = team.index(processes.number()), len(team)
  return jax.tree.map(lambda of: of[len(of) // parts * place : len(of) // parts * (place + 1)], rows)


def _mapped(step: Callable[..., Tree], **options: Any) -> Callable[..., Tree]:
  """pmap over the devices of the team that calls."""

  @functools.cache
  def of_team(team: tuple[int, ...]) -> Callable[..., Tree]:
    if len(team) > 1:
      _meet(team)
    return jax.pmap(step, axis_name=AXIS, devices=_devices(team), **options)

  return lambda *arrays: of_team(processes.team())(*arrays)


def _devices(team: tuple[int, ...]) -> list[jax.Device] | None:
  everybody = len(team) == processes.count()
  return None if everybody else [device for device in jax.devices() if device.process_index in team]


@functools.cache
def _meet(team: tuple[int, ...]) -> None:
  """A team's first collective, as soon as all are here: on CPU it waits 30 s for who is late, later ones any time."""
  processes.together()
  count = jax.pmap(total, axis_name=AXIS, devices=_devices(team))
  jax.block_until_ready(count(np.zeros(device_count(), np.float32)))


def _place(tree: Tree, spec: PartitionSpec, devices: int | None = None) -> Tree:
  return jax.device_put(tree, NamedSharding(Mesh(np.array(jax.local_devices()[:devices]), (AXIS,)), spec))


def replicate(tree: Tree) -> Tree:
  """The same arrays on every device."""
  return _place(tree, PartitionSpec())


def shard(batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
  """Deals the rows of host arrays to the devices of this process, whose rows they are (`own`): [D, B, ...].

  Raises:
    ValueError: the rows do not divide evenly (pmap itself would quietly use fewer devices).
  """
  devices = device_count()
  uneven = {name: len(rows) for name, rows in batch.items() if len(rows) % devices}
  if uneven:
    raise ValueError(f'rows {uneven} do not divide by {devices} devices; pad them to rows_a_step')
  split = {name: np.reshape(rows, (devices, len(rows) // devices, *rows.shape[1:])) for name, rows in batch.items()}
  return _place(split, PartitionSpec(AXIS))


def spread_rows(rows: np.ndarray) -> tuple[jax.Array, jax.Array]:
  """All rows [N, ...] dealt to the devices for a program that sees them as one array: jit, not pmap.

  Of several processes, each has all rows and does all of the work.

  Returns:
    rows [G, ...], filled up with zeros to whole rows a device; mask float32 [G].
  """
  size = -(-len(rows) // device_count()) * device_count()
  mask = (np.arange(size) < len(rows)).astype(np.float32)
  filled = np.concatenate([rows, np.zeros((size - len(rows), *rows.shape[1:]), rows.dtype)])
  return _place((filled, mask), PartitionSpec(AXIS))


def total(tree: Tree) -> Tree:
  """Sums over the devices; for use within a step.

  Between processes all arrays go as one: on CPUs, each collective of a step costs some milliseconds, whatever its size.
  """
  if len(processes.team()) == 1:
    return jax.lax.psum(tree, AXIS)
  flat, as_before = jax.flatten_util.ravel_pytree(tree)
  return as_before(jax.lax.psum(flat, AXIS))


def train_step(step: Callable[[Tree, Tree, jax.Array], tuple[Tree, Tree]]) -> Callable[..., tuple[Tree, Tree]]:
  """Maps a per-replica step (state, batch, key) -> (state, sums) over the devices. The old state is given up."""
  return _mapped(step, in_axes=(None, 0, None), out_axes=(None, None), donate_argnums=(0,))


def folds_step(step: Callable[[Tree, Tree, jax.Array], tuple[Tree, Tree]]) -> Callable[..., tuple[Tree, Tree]]:
  """Maps a per-replica step over folds: one program, states, batches, keys and sums with a leading axis [K, ...].

  Each fold's rows are together, as on one device. A fold whose rows are all masked is done: its state stays as it is.
  The old states are given up.
  """
  alone = jax.vmap(step, in_axes=(None, 0, None), out_axes=(None, None), axis_name=AXIS)

  def of_fold(state: Tree, batch: Tree, key: jax.Array) -> tuple[Tree, Tree]:
    new, sums = alone(state, jax.tree.map(lambda rows: rows[None], batch), key)
    goes_on = jnp.any(batch['mask'] > 0)
    return jax.tree.map(lambda after, before: jnp.where(goes_on, after, before), new, state), sums

  return jax.jit(jax.vmap(of_fold), donate_argnums=0)


def place_folds(tree: Tree) -> Tree:
  """Deals the folds of arrays [K, ...] evenly to the devices; to fewer, where K does not divide by all of them."""
  folds = len(jax.tree.leaves(tree)[0])
  used = max(count for count in range(1, device_count() + 1) if folds % count == 0)
  return _place(tree, PartitionSpec(AXIS), used)


def predict_step(step: Callable[[Tree, Tree], Tree]) -> Callable[[Tree, Tree], Tree]:
  """Maps (variables, batch) -> outputs [B, ...] over the devices; the outputs of all come to every host as [G, ...]."""
  mapped = _mapped(step, in_axes=(None, 0))
  gathering = _mapped(lambda *given: jax.lax.all_gather(step(*given), AXIS), in_axes=(None, 0), out_axes=None)

  def gathered(variables: Tree, batch: Tree) -> Tree:
    run = mapped if len(processes.team()) == 1 else gathering
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.device_get(run(variables, batch)))

  return gathered


def sum_step(step: Callable[[Tree, Tree], Tree]) -> Callable[[Tree, Tree], Tree]:
  """Maps (shared, batch) -> sums over the devices and adds them up."""
  return _mapped(lambda shared, batch: total(step(shared, batch)), in_axes=(None, 0), out_axes=None)


def agreement() -> Callable[[bool], bool]:
  """A vote of the team, once a step: whether any of its processes has said yes.

  With several processes the answer is that of the call before, which is there without waiting for the devices: the
  same in all of them at the same step.
  """
  if len(processes.team()) == 1:
    return lambda wish: wish
  count = _mapped(total, in_axes=0, out_axes=None)
  said = [np.zeros((), np.int32)]

  def vote(wish: bool) -> bool:
    said.append(count(shard({'wish': np.full(device_count(), wish, np.int32)})['wish'])[0])
    return bool(said.pop(0))

  return vote


def describe() -> dict[str, Any]:
  """What the run ran on, for its provenance."""
  first = jax.local_devices()[0]
  of_all = {'devices': jax.device_count(), 'processes': processes.count()}
  return {'platform': first.platform, 'kind': first.device_kind, **of_all}

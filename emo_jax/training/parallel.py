"""Many devices: the one room where pmap, meshes and shardings live.

The recipe: state unstacked and replicated, batch [D, B, ...] sharded, key shared. Everything that a step returns must
have been summed over the devices (`total`): pmap with out_axes=None silently returns the first device's value.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = 'batch'
Tree = Any


def device_count() -> int:
  """Devices of this process, D."""
  return jax.local_device_count()


def rows_a_step(batch: int, *, parts: int = 1) -> int:
  """The global batch, rounded up to whole rows in every part of every device's batch (the rows added are masked)."""
  whole = device_count() * parts
  return -(-batch // whole) * whole


def _place(tree: Tree, spec: PartitionSpec, devices: int | None = None) -> Tree:
  return jax.device_put(tree, NamedSharding(Mesh(np.array(jax.local_devices()[:devices]), (AXIS,)), spec))


def replicate(tree: Tree) -> Tree:
  """The same arrays on every device."""
  return _place(tree, PartitionSpec())


def shard(batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
  """Deals the rows of host arrays [G, ...] to the devices: [D, B, ...].

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

  Returns:
    rows [G, ...], filled up with zeros to whole rows a device; mask float32 [G].
  """
  size = rows_a_step(len(rows))
  mask = (np.arange(size) < len(rows)).astype(np.float32)
  filled = np.concatenate([rows, np.zeros((size - len(rows), *rows.shape[1:]), rows.dtype)])
  return _place((filled, mask), PartitionSpec(AXIS))


def total(tree: Tree) -> Tree:
  """Sums over the devices; for use within a step."""
  return jax.lax.psum(tree, AXIS)


def train_step(step: Callable[[Tree, Tree, jax.Array], tuple[Tree, Tree]]) -> Callable[..., tuple[Tree, Tree]]:
  """Maps a per-replica step (state, batch, key) -> (state, sums) over the devices. The old state is given up."""
  return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0, None), out_axes=(None, None), donate_argnums=(0,))


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
  """Maps (variables, batch) -> outputs [B, ...] over the devices; the outputs come back on the host as [G, ...]."""
  mapped = jax.pmap(step, axis_name=AXIS, in_axes=(None, 0))

  def gathered(variables: Tree, batch: Tree) -> Tree:
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.device_get(mapped(variables, batch)))

  return gathered


def sum_step(step: Callable[[Tree, Tree], Tree]) -> Callable[[Tree, Tree], Tree]:
  """Maps (shared, batch) -> sums over the devices and adds them up."""
  return jax.pmap(lambda shared, batch: total(step(shared, batch)), axis_name=AXIS, in_axes=(None, 0), out_axes=None)


def describe() -> dict[str, Any]:
  """What the run ran on, for its provenance."""
  devices = jax.local_devices()
  return {'platform': devices[0].platform, 'kind': devices[0].device_kind, 'devices': jax.device_count()}

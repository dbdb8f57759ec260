"""Many devices: the one room where pmap, meshes and shardings live.

The recipe: state unstacked and replicated, batch [D, B, ...] sharded, key shared. Everything that a step returns must
have been summed over the devices (`total`): pmap with out_axes=None silently returns the first device's value.
"""

from collections.abc import Callable
from typing import Any

import jax
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


def _place(tree: Tree, spec: PartitionSpec) -> Tree:
  return jax.device_put(tree, NamedSharding(Mesh(np.array(jax.local_devices()), (AXIS,)), spec))


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

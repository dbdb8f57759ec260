"""Fine-tuning without labels: the DBN unrolled to an autoencoder (pipeline step: fusion; method.md A4).

The author's script runs scaled conjugate gradients on all rows at once; here it is L-BFGS, on all rows at once.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from emo_jax.models import dbn
from emo_jax.training import finiteness, loop, parallel

Tree = Any
MEMORY = 10  # pairs of updates that L-BFGS remembers, the customary number


@functools.cache
def build(
  kinds: dbn.Kinds, nonfinite: str
) -> tuple[optax.GradientTransformationExtraArgs, Callable[..., tuple[Tree, Tree]]]:
  """The optimiser and its compiled iteration, (state, data [G, V], mask [G]) -> (state, sums); once for all folds."""
  optimiser = optax.lbfgs(memory_size=MEMORY)

  def iteration(state: Tree, data: jax.Array, mask: jax.Array) -> tuple[Tree, Tree]:
    def loss(params: Tree) -> jax.Array:
      error = jnp.mean(jnp.square(dbn.autoencode(params, data, kinds) - data), -1)
      return jnp.sum(error * mask) / jnp.sum(mask)

    value, gradient = optax.value_and_grad_from_state(loss)(state['params'], state=state['opt'])
    updates, opt = optimiser.update(gradient, state['opt'], state['params'], value=value, grad=gradient, value_fn=loss)
    params = optax.apply_updates(state['params'], updates)
    sums = {'count': jnp.ones(()), 'reconstruction_error': value, **finiteness.norms(gradient, params)}
    return {'params': params, 'opt': opt, 'step': state['step'] + 1}, sums

  return optimiser, jax.jit(finiteness.guarded(iteration, nonfinite), donate_argnums=0)


def train(
  stack: dbn.Stack, kinds: dbn.Kinds, data: np.ndarray, *, iterations: int, nonfinite: str = 'stop', **fit: Any
) -> list[Tree]:
  """Fine-tunes a stack to reconstruct its training rows, by mean squared error, and returns the way up.

  Args:
    stack: the lowest RBM first.
    kinds: units of each.
    data: float32 [N, V]; all of it lies on the devices at once.
    iterations: of L-BFGS.
    nonfinite: 'skip' leaves out iterations that are not finite; the next one is the same again, so they end in a stop.
    fit: name, folder and watch, as loop.fit has them.
  """
  optimiser, iteration = build(tuple(kinds), nonfinite)
  rows, mask = parallel.spread_rows(data)
  params = jax.tree.map(jnp.asarray, dbn.unroll(stack))
  # Each array for itself: what L-BFGS starts from shares some, and an iteration gives its state up.
  state = jax.tree.map(jnp.array, {'params': params, 'opt': optimiser.init(params), 'step': np.int32(0)})
  step = lambda state, batch, key: iteration(state, rows, mask)
  state = loop.fit(step, state, lambda step: {}, jax.random.key(0), steps=iterations, **fit)
  return state['params']['stack']

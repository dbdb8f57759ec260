"""The deep belief network that fuses sound and face: RBMs in a stack, and its softmax head (pipeline step: fusion).

The paper's section on fusion; method.md A4. A stack is a list of RBM parameters, the lowest first.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from emo_jax.models import rbm
from emo_jax.models.dropout import dropout


def scaler(features: np.ndarray) -> dict[str, np.ndarray]:
  """Min and max over all training features of one modality [N, F]: two scalars (contract.md, DBN input)."""
  return {'low': np.asarray(features.min()), 'high': np.asarray(features.max())}


def scale(statistics: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
  """Features [N, F] to [0, 1] by training statistics, clipped: what a visible unit's probability can be."""
  spread = max(float(statistics['high'] - statistics['low']), 1e-12)
  return np.clip((features - statistics['low']) / spread, 0, 1).astype(np.float32)


def joint_feature(stack: Sequence[rbm.Params], visible: jax.Array) -> jax.Array:
  """Probabilities of the last hidden layer, each layer fed with those of the one below: [B, V] -> [B, H]."""
  for layer in stack:
    visible = rbm.hidden_probability(layer, visible)
  return visible


def init_head(stack: Sequence[rbm.Params], *, classes: int) -> dict[str, jax.Array]:
  """The softmax layer on top starts at 0: at first only the head learns, from what the RBMs found."""
  return {'kernel': jnp.zeros((stack[-1]['weights'].shape[1], classes)), 'bias': jnp.zeros(classes)}


def classify(
  params: dict, visible: jax.Array, keys: jax.Array | None, *, dropout_rate: float
) -> tuple[jax.Array, jax.Array]:
  """The stack as a feed-forward network with a softmax head, for fine-tuning.

  Args:
    params: 'stack', a list of RBM parameters, and 'head'.
    visible: [B, V].
    keys: [B] for dropout after each hidden layer; None to predict.

  Returns:
    logits [B, C], joint features [B, H_last] (without dropout).
  """
  x = visible
  for number, layer in enumerate(params['stack']):
    hidden = rbm.hidden_probability(layer, x)
    x = dropout(hidden, dropout_rate, keys, number)
  return x @ params['head']['kernel'] + params['head']['bias'], hidden

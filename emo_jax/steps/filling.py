"""Half a clip is still a clip: the DBN's features of segments that lack a half (after step 5, fusion)."""

import functools
from typing import NamedTuple

import jax
import numpy as np

from emo_jax.context import Experiment
from emo_jax.models import dbn, rbm
from emo_jax.steps.fusion import BOTH
from emo_jax.training import checkpoint, rngs

BY_DBN = ('gibbs', 'mean_field')
HOWS = (*BY_DBN, 'zero', 'mean')
ROWS = 64  # that are computed at a time, whatever comes: everything is compiled once

_joint_feature = jax.jit(dbn.joint_feature, static_argnames='kinds')


@functools.partial(jax.jit, static_argnames=('kinds', 'how', 'steps'))
def _filled(
  greedy: dbn.Stack,
  key: jax.Array,
  visible: jax.Array,
  known: jax.Array,
  numbers: jax.Array,
  *,
  kinds: dbn.Kinds,
  how: str,
  steps: int,
) -> jax.Array:
  keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
  return dbn.fill_in(greedy, visible, known, keys, kinds, how=how, steps=steps)


class Fused(NamedTuple):
  """A DBN and what stands before it.

  Attributes:
    scaler: from dbn.fit_scaler.
    greedy: its RBMs as the greedy training left them, a generative model: they fill in.
    stack: the same after fine-tuning, which may have cost them that: they make the joint features.
    kinds: the units of each.
  """

  scaler: dict[str, np.ndarray]
  greedy: list[rbm.Params]
  stack: list[rbm.Params]
  kinds: tuple[rbm.Units, ...]


def load(x: Experiment, number: int) -> Fused:
  """The DBN of a fold of a finished experiment, with config.fusion.kind='dbn'."""
  config, folder = x.config.fusion, x.made['fusion'][number]
  with np.load(folder / 'scaler.npz') as file:
    scaler = dict(file)
  greedy = [checkpoint.read(folder / f'rbm{layer}') for layer in range(len(config.units))]
  kinds = dbn.stack_units(len(greedy), visible=config.visible, top=config.top)
  return Fused(scaler, greedy, checkpoint.read(folder / 'dbn')['stack'], kinds)


def joint(
  fused: Fused,
  parts: dict[str, np.ndarray],
  has: np.ndarray,
  numbers: np.ndarray,
  *,
  how: str,
  steps: int,
  seed: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Joint features of segments of which some lack a half.

  Args:
    parts: 'audio' [n, Fa] and 'visual' [n, Fv], features before scaling; anything stands where a half lacks.
    has: bool [n, 2], which halves a segment has, audio and visual; one at least.
    numbers: int [n], which segment each is: what is drawn hangs on that and on the seed, not on its neighbours.
    how: what stands for a half that lacks: 'gibbs' or 'mean_field', the DBN's own (dbn.fill_in); 'zero', features of 0;
      'mean', those of the mean training segment.
    steps: rounds of 'gibbs' and 'mean_field'.
    seed: of what is drawn.

  Returns:
    float32 [n, H], and bool [n] which segments have been filled in.
  """
  lacking, key = np.any(~has, axis=1), rngs.stream(seed, 'filling')
  features = np.zeros((len(has), fused.stack[-1]['weights'].shape[1]), np.float32)
  for rows in [*_blocks(lacking), *_blocks(~lacking)]:
    visible, known = _visible(fused.scaler, [parts[name][rows] for name in BOTH], has[rows], how=how)
    if how in BY_DBN and not known.all():
      visible = _filled(
        fused.greedy[:1], key, visible, known, numbers[rows], kinds=fused.kinds[:1], how=how, steps=steps
      )
    features[rows] = _joint_feature(fused.stack, visible, kinds=fused.kinds)
  return features, lacking


def _blocks(chosen: np.ndarray) -> list[np.ndarray]:
  """The rows of bool [n] that are chosen, ROWS at a time; in the last block the last row stands for those it lacks."""
  rows = np.flatnonzero(chosen)
  return [rows[np.minimum(np.arange(first, first + ROWS), len(rows) - 1)] for first in range(0, len(rows), ROWS)]


def _visible(
  scaler: dict[str, np.ndarray], parts: list[np.ndarray], has: np.ndarray, *, how: str
) -> tuple[np.ndarray, np.ndarray]:
  """Visible units [n, V], 0 or the mean where a half lacks, and which of them are there, bool [n, V]."""
  known = np.repeat(has, [part.shape[1] for part in parts], axis=1)
  visible = dbn.scale(scaler, [np.where(has[:, [half]], part, 0) for half, part in enumerate(parts)])
  return visible if how == 'zero' else np.where(known, visible, scaler['mean']), known

"""Step 5, fusion, by a network that stands in the DBN's place: models/fusion.py in every fold (method.md A5, C)."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import numpy as np

from emo_jax import processes
from emo_jax.context import Experiment
from emo_jax.evaluation import pooling
from emo_jax.models import fusion
from emo_jax.training import checkpoint, loop, rngs, supervised

VERSION = 1  # raised when this code changes its result
LEARNING = ('dropout', 'batch', 'epochs', 'select', 'optim')
READS = {  # beside these, what each kind reads of config.fusion.head
  'fc': (),
  'mlp': ('width',),
  'attention': ('width', 'blocks', 'heads'),
  'encoding': ('width', 'blocks', 'heads', 'primary'),
}
Items = tuple[np.ndarray, np.ndarray]  # what a network takes, float32 [n, ...], and the clip of each, int [n]


class Joined(NamedTuple):
  """What fusion sees of a fold: the segments that have both halves, train, held and test.

  Attributes:
    rows: int [N], ascending.
    visible: float32 [N, Va + Vv], features scaled by the training segments.
    sound: Va, how many of them are the sound's; they come first.
  """

  rows: np.ndarray
  visible: np.ndarray
  sound: int


# (the fold's folder, its number, what fusion sees of it, watch): trains, and saves all but the scaler.
Learn = Callable[[pathlib.Path, int, Joined, loop.Watch], None]


def check(config: Any) -> None:
  """Refuses what the configured kind would stumble over.

  Args:
    config: config.fusion, of a kind in READS.

  Raises:
    ValueError: a field, its value and what it may be.
  """
  head = config.head
  for field in READS[config.kind]:
    value = head[field]
    if field == 'primary' and value not in fusion.PRIMARY:
      raise ValueError(f'config.fusion.head.primary={value!r}: use {" or ".join(fusion.PRIMARY)}')
    if field != 'primary' and (not isinstance(value, int) or value < 1):
      raise ValueError(f'config.fusion.head.{field}={value!r}: a whole number of at least 1 is needed')
  if 'heads' in READS[config.kind] and head.width % head.heads:
    raise ValueError(
      f'config.fusion.head.heads={head.heads!r} with config.fusion.head.width={head.width!r}: heads share the width '
      'evenly; use a number that divides it'
    )


def settings(config: Any) -> dict[str, Any]:
  """What the stage's key says of config.fusion: what the kind reads, and no more."""
  head = config.head.to_dict()
  of_kind = {'units': list(config.units)} if config.kind == 'fc' else {}
  return {
    'kind': config.kind,
    'scaling': config.scaling,
    **of_kind,
    'head': {field: head[field] for field in (*LEARNING, *READS[config.kind])},
  }


def items_of(kind: str, visible: np.ndarray, clip: np.ndarray) -> Items:
  """What a kind of network takes: segments, clips' means, or clips' sequences.

  Args:
    kind: of READS.
    visible: float32 [N, V], scaled features of segments that have both halves.
    clip: int [N], which clip each is of, ascending.

  Returns:
    [N, V] for 'fc', [clips, V] for 'mlp', else [clips, T, V + 1]; and the clip of each.
  """
  if kind == 'fc':
    return visible, clip
  return pooling.pool(visible, clip, kind='mean') if kind == 'mlp' else sequences(visible, clip)


def sequences(visible: np.ndarray, clip: np.ndarray) -> Items:
  """Each clip's segments in the order of time, as models/fusion.py takes them; T is the most that a clip has.

  Args:
    visible, clip: as `items_of` has them.

  Returns:
    float32 [clips, T, V + 1], int [clips].
  """
  clips, first, counts = np.unique(clip, return_index=True, return_counts=True)
  made = np.zeros((len(clips), max(counts, default=0), visible.shape[1] + 1), np.float32)
  place = np.repeat(np.arange(len(clips)), counts), np.arange(len(clip)) - np.repeat(first, counts)
  made[place] = np.concatenate([visible, np.ones((len(visible), 1), np.float32)], axis=1)
  return made, clips


def model_of(config: Any, *, classes: int, sound: int) -> nn.Module:
  """The network of a kind.

  Args:
    config: config.fusion.
    classes: C.
    sound: Va, how many of the features are the sound's.
  """
  head = config.head
  if config.kind == 'fc':
    return fusion.FullyConnected(classes, tuple(config.units), dropout=head.dropout)
  models = {'mlp': fusion.ConcatMLP, 'attention': fusion.CrossModalAttention, 'encoding': fusion.JointEncoding}
  shape = {field: head[field] for field in READS[config.kind]}
  return models[config.kind](classes, sound, dropout=head.dropout, **shape)


def learner(x: Experiment) -> Learn:
  """How a fold learns; the network is compiled once, when the first fold has told the features' sizes."""
  config, head = x.config.fusion, x.config.fusion.head
  labels = x.truth()

  @functools.cache
  def built(sound: int) -> tuple[Callable[..., Any], supervised.Network]:
    model = model_of(config, classes=len(x.classes), sound=sound)
    forward = lambda variables, data, keys: cast(Any, model.apply({'params': variables['params']}, data, keys))
    return jax.jit(model.init), supervised.build(forward, lambda data: data, head.optim, nonfinite=x.config.nonfinite)

  def learn(folder: pathlib.Path, number: int, halves: Joined, watch: loop.Watch) -> None:
    init, network = built(halves.sound)
    items, clips = items_of(config.kind, halves.visible, x.segments.clip[halves.rows])
    sides, key = x.sides(x.folds[number])[clips], rngs.stream(x.config.seed, 'fusion', config.kind, 'init')
    of = lambda side: (items[sides == side].__getitem__, labels[clips[sides == side]])
    variables = supervised.train(
      network,
      {**init(key, items[:1]), 'statistics': {}},
      *of('train'),
      held=of('held') if head.select == 'held' else None,
      batch=head.batch,
      epochs=head.epochs,
      optim_config=head.optim,
      seed=x.config.seed,
      names=('fusion', config.kind),
      name=f'fusion/fold_{number}',
      folder=folder / 'scratch' / 'head',
      watch=watch,
    )
    checkpoint.save(folder / 'head', variables['params'])
    logits, features = supervised.predict(network, variables, items.__getitem__, len(items), batch=head.batch)
    of_segments, of_clips = {'rows': halves.rows, 'joint': features}, {'clips': clips, 'logits': logits}
    for what, array in (of_segments if config.kind == 'fc' else of_clips).items() if processes.lead() else ():
      np.save(folder / f'{what}.npy', array)

  return learn

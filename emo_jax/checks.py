"""What a config may say, looked at before anything runs (part of setting up an experiment).

Words, numbers, and wishes that contradict each other; what only the clips or a network can tell is looked at in
experiment.set_up.
"""

import functools
import importlib.util
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from emo_jax import contenders
from emo_jax.evaluation import normalise, pooling
from emo_jax.evaluation.folds import Fold
from emo_jax.frontend import mtcnn
from emo_jax.steps import filling, fusion
from emo_jax.training import modalities, optim

NETWORKS = ('audio', 'visual')
TRAINED = ('audio', 'visual', 'fusion.finetune', 'fusion.head')


def _choosing(config: Any) -> list[str]:
  """The parts that are trained and keep the epoch that is best on held speakers."""
  unused = 'fusion.head' if config.fusion.kind == 'dbn' else 'fusion.finetune'
  return [part for part in TRAINED if part != unused and _value(config, part).select == 'held']


def _value(config: Any, field: str) -> Any:
  """The value of 'a.b.c' in a config."""
  return functools.reduce(lambda part, key: part[key], field.split('.'), config)


def check(config: Any, *, stages: Sequence[str], corpora: Sequence[str]) -> None:
  """Refuses words and numbers that a stage would stumble over hours later.

  Args:
    config: the whole ConfigDict.
    stages, corpora: the names that there are.

  Raises:
    ValueError: a field and what it may be.
    ModuleNotFoundError: a package that the config asks for is not installed.
  """
  known = (
    ('until', stages),
    ('data.corpus', corpora),
    ('data.judge', ('test', 'held')),
    ('handcrafted.sound', ('librosa', 'egemaps', 'compare')),
    ('data.held', (0, 1)),
    ('data.cremad.label', ('acted', 'crowd')),
    ('frontend.faces.detector', ('haar', 'mtcnn')),
    ('frontend.short', ('pad', 'refuse')),
    ('audio.deltas', (0, 5, 9)),
    ('visual.pool5', ('caffe', 'symmetric')),
    ('visual.grid', (0, 4)),
    ('visual.inflate', ('', 'mean', 'centre')),
    *((f'{part}.network', names) for part, names in modalities.NETWORKS.items()),
    *((f'{part}.trained', ('all', 'last', 'head')) for part in NETWORKS),
    *((f'{part}.precision', ('float32', 'bfloat16')) for part in NETWORKS),
    *((f'{part}.init_order', ('', 'rgb', 'bgr')) for part in NETWORKS),
    ('audio.z_score', ('before', 'after')),
    *((f'{part}.select', ('last', 'held')) for part in TRAINED),
    ('fusion.finetune.kind', ('softmax', 'autoencoder', 'none')),
    *((f'missing.{what}', (*filling.HOWS, 'leave_out')) for what in ('part', 'whole')),
    ('pool', tuple(pooling.POOLS)),
    ('normalise', tuple(normalise.PROTOCOLS)),
    ('executor.backend', ('threading', 'loky', 'dask')),
    ('nonfinite', ('stop', 'skip')),
  )
  for field, values in known:
    value = _value(config, field)
    if value not in values:
      raise ValueError(f'config.{field}={value!r}: use {" or ".join(map(str, values))}')
  unknown = [method for method in config.methods if method not in contenders.CONTENDERS]
  if unknown or not config.methods or len(set(config.methods)) < len(config.methods):
    raise ValueError(
      f'config.methods={config.methods!r}: use one or more, each once, of {", ".join(contenders.CONTENDERS)}'
    )
  if config.handcrafted.sound != 'librosa' and importlib.util.find_spec('opensmile') is None:
    raise ModuleNotFoundError(
      f'config.handcrafted.sound={config.handcrafted.sound} needs openSMILE, whose licence is for research: '
      "pip install -e '.[opensmile]', or use librosa"
    )
  if config.frontend.faces.detector == 'mtcnn':
    mtcnn.weights()
  _check_counts(config)
  fusion.check(config.fusion)
  _check_ranges(config)
  _check_executor(config.executor)
  _check_masks(config)
  _check_initial(config)
  _check_penalties(config)
  _check_selection(config)
  for part in (_value(config, name) for name in TRAINED):
    optim.direction(part.optim)
    optim.learning_rate(part.optim, jnp.zeros(()), jnp.ones(()))


def _check_counts(config: Any) -> None:
  batches = ('audio', 'visual', 'fusion.rbm', 'fusion.finetune', 'fusion.head')
  fields = [f'{part}.{name}' for part in batches for name in ('batch', 'epochs')] + ['log.every', 'save.every']
  fields += [f'{part}.accumulate' for part in NETWORKS]
  fields += [f'frontend.{name}' for name in ('segments.length', 'segments.shift', 'faces.every')]
  for field in [*fields, 'fusion.rbm.cd_steps', 'parallel.folds', 'missing.steps']:
    value = _value(config, field)
    if not isinstance(value, int) or value < 1:
      raise ValueError(f'config.{field}={value!r}: a whole number of at least 1 is needed')
  if not config.fusion.units or min(config.fusion.units) < 1:
    raise ValueError(f'config.fusion.units={config.fusion.units!r}: at least one layer of at least one unit is needed')


def _check_ranges(config: Any) -> None:
  ranges = (
    ('executor.limit', 1, 86400),
    ('fusion.rbm.ais.temperatures', 1, math.inf),
    *((f'{part}.dropout', 0, 0.999) for part in TRAINED),
    ('fusion.finetune.drop_half', 0, 1),
    ('frontend.faces.min_face', 0.01, 1),
    ('audio.level', 0, math.inf),
    ('visual.shift', 0, config.visual.size),
    ('visual.brightness', 0, math.inf),
    ('fusion.rbm.lr', 0, math.inf),
    ('fusion.rbm.real_lr', 0, math.inf),
    ('fusion.rbm.ais.chains', 0, math.inf),
    ('score.sound', 0, 1),
    ('handcrafted.size', 16, 1024),
  )
  for field, low, high in ranges:
    if not low <= _value(config, field) <= high:
      raise ValueError(f'config.{field}={_value(config, field)!r}: a number from {low} to {high} is needed')
  if not config.fusion.rbm.momentum:
    raise ValueError('config.fusion.rbm.momentum=(): at least one number is needed; the last one holds')


def _check_executor(executor: Any) -> None:
  if executor.workers != -1 and executor.workers < 1:
    raise ValueError(f'config.executor.workers={executor.workers!r}: use -1 (one for each core), or 1 and more')
  if executor.address and executor.backend != 'dask':
    raise ValueError(f'config.executor.address with config.executor.backend={executor.backend}: set backend=dask')
  if executor.backend == 'dask' and importlib.util.find_spec('distributed') is None:
    raise ModuleNotFoundError("config.executor.backend=dask needs Dask: pip install -e '.[dask]', or use threading")


def _check_masks(config: Any) -> None:
  for field, most in (('mask_mel', 64), ('mask_time', config.frontend.segments.length), ('shift_mel', 63)):
    if not 0 <= config.audio[field] <= most:
      raise ValueError(f'config.audio.{field}={config.audio[field]!r}: use 0 to {most}')
    if config.audio[field] and config.audio.z_score == 'after':
      raise ValueError(
        f'config.audio.{field}={config.audio[field]!r} with config.audio.z_score=after: it is in frames or bands, '
        'of which the resized images have none; use 0, or z_score=before'
      )


def _check_initial(config: Any) -> None:
  augmentation = {
    'audio': ('mask_time', 'mask_mel', 'shift_mel', 'level'),
    'visual': ('flip', 'shift', 'brightness'),
  }
  for part, fields in augmentation.items():
    trained, changing = config[part].trained, [field for field in fields if config[part][field]]
    if trained != 'all' and config[part].init == 'random':
      raise ValueError(f'config.{part}.trained={trained} freezes random weights: set config.{part}.init, or all')
    if trained != 'all' and changing:
      raise ValueError(
        f'config.{part}.trained={trained} runs the frozen part once, without augmentation: set '
        f'{", ".join(f"config.{part}.{field}" for field in changing)} to 0, or trained=all'
      )
  if config.visual.scaling == 'published' and config.visual.init == 'random':
    raise ValueError('config.visual.scaling=published needs published weights: set config.visual.init, or fixed')


def _check_selection(config: Any) -> None:
  for part in _choosing(config):
    if config.data.judge == 'held':
      raise ValueError(
        f'config.{part}.select=held with config.data.judge=held: an epoch chosen on the very clips that are then '
        'scored flatters; use config.data.judge=test, or select=last'
      )


def _check_penalties(config: Any) -> None:
  for c in (config.svm.c, *config.svm.candidates):
    if not isinstance(c, int | float) or not 0 < c < math.inf:
      raise ValueError(f'config.svm: {c!r} in c or candidates; a penalty is a number above 0')
  if not all(isinstance(weight, int | float) and 0 <= weight <= 1 for weight in config.score.candidates):
    raise ValueError(f'config.score.candidates={config.score.candidates!r}: weights of the sound are from 0 to 1')
  for field, fixed in (('svm', 'c'), ('score', 'sound')):
    if config[field].candidates and config.data.judge == 'held':
      raise ValueError(
        f'config.{field}.candidates with config.data.judge=held: a value chosen on the very clips that are then scored '
        f'flatters; use config.data.judge=test, or a fixed config.{field}.{fixed}'
      )


def check_held(config: Any, folds: Sequence[Fold]) -> None:
  """Refuses to choose on held speakers where a fold holds nobody.

  Raises:
    ValueError: the field that needs them.
  """
  wishes = (
    ('data.judge=held', config.data.judge == 'held'),
    ('svm.candidates', config.svm.candidates),
    ('score.candidates', config.score.candidates),
    *((f'{part}.select=held', True) for part in _choosing(config)),
  )
  for field, needs in wishes:
    if needs and not all(fold.held for fold in folds):
      raise ValueError(f'config.{field}: a fold holds nobody; set config.data.held=1, or split=held in the CSV')

"""The experiment, top to bottom: prepare -> audio net -> visual net -> features -> fusion -> decide -> report.

Each stage is made fold by fold, a folder each, named by what it depends on (stages.py). A network's folder hangs on
its training clips alone, so nothing of a test speaker can reach it.
"""

import functools
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from emo_jax import provenance
from emo_jax.context import Experiment, Unusable
from emo_jax.corpora import clip as clip_list
from emo_jax.corpora import demo, java_sed, manifest
from emo_jax.evaluation import folds
from emo_jax.report import report
from emo_jax.steps import decide, fusion, networks, prepare
from emo_jax.training import optim
from emo_jax.training.metrics import Metrics

READERS: dict[str, Callable[[Any], list[clip_list.Clip]]] = {
  'java_sed': lambda data: java_sed.read(data.root, takes=data.java_sed.takes),
  'manifest': lambda data: manifest.read(data.root),
  'demo': lambda data: demo.read(data.root, **data.demo),
}
STAGES: dict[str, Callable[[Experiment], None]] = {
  'prepare': prepare.prepare,
  'audio_net': lambda x: networks.train_networks(x, 'audio'),
  'visual_net': lambda x: networks.train_networks(x, 'visual'),
  'features': networks.extract_features,
  'fusion': fusion.fuse,
  'decide': decide.decide,
  'report': report.write,
}


def check(config: Any) -> None:
  """Refuses words and numbers that a stage would stumble over hours later.

  Raises:
    ValueError: a field and what it may be.
  """
  known = (
    ('until', tuple(STAGES)),
    ('data.corpus', tuple(READERS)),
    ('data.judge', ('test', 'held')),
    ('data.held', (0, 1)),
    ('frontend.short', ('pad', 'refuse')),
    ('fusion.finetune.kind', ('softmax', 'none')),
    ('pool', ('mean',)),
    ('parallel.folds', (1,)),
  )
  for field, values in known:
    value = functools.reduce(lambda part, key: part[key], field.split('.'), config)
    if value not in values:
      raise ValueError(f'config.{field}={value!r}: use {" or ".join(map(str, values))}')
  counts = ('audio', 'visual', 'fusion.rbm', 'fusion.finetune')
  fields = [f'{part}.{name}' for part in counts for name in ('batch', 'epochs')] + ['log.every', 'save.every']
  for field in [*fields, 'frontend.segments.length', 'frontend.segments.shift', 'fusion.rbm.cd_steps']:
    value = functools.reduce(lambda part, key: part[key], field.split('.'), config)
    if not isinstance(value, int) or value < 1:
      raise ValueError(f'config.{field}={value!r}: a whole number of at least 1 is needed')
  for field, most in (('mask_mel', 64), ('mask_time', config.frontend.segments.length)):
    if not 0 <= config.audio[field] <= most:
      raise ValueError(f'config.audio.{field}={config.audio[field]!r}: use 0 to {most}')
  if not config.fusion.units or min(config.fusion.units) < 1:
    raise ValueError(f'config.fusion.units={config.fusion.units!r}: at least one layer of at least one unit is needed')
  for part in (config.audio, config.visual, config.fusion.finetune):
    optim.direction(part.optim)
    optim.learning_rate(part.optim, jnp.zeros(()), jnp.ones(()))


def set_up(config: Any, workdir: str) -> Experiment:
  """Checks what the user gave and fixes the split; nothing is trained yet (the demo corpus makes its clips here).

  Raises:
    Unusable: a config value, a corpus or a split that cannot be run, or a work directory of another experiment.
  """
  try:
    check(config)
    clips = READERS[config.data.corpus](config.data)
    clip_list.check(clips)
    split = folds.make_folds(
      clips, rule=config.data.rule, held=bool(config.data.held), allow_leaks=config.data.allow_leaks
    )
    if config.data.judge == 'held' and not all(fold.held for fold in split):
      raise ValueError('config.data.judge=held: a fold holds nobody; set config.data.held=1, or split=held in the CSV')
    folder = pathlib.Path(workdir).absolute()
    cache = pathlib.Path(config.cache).absolute() if config.cache else folder / 'stages'
    x = Experiment(config, folder, cache, clips, clip_list.classes(clips), split)
    for modality in networks.NETWORKS:
      networks.check(x, modality)
    folder.mkdir(parents=True, exist_ok=True)
    provenance.claim(folder, config.to_dict())
  except ValueError as error:
    raise Unusable(str(error)) from error
  (folder / 'split.json').write_text(json.dumps(report.split_record(x), indent=1) + '\n')
  return x


def run(x: Experiment) -> None:
  """Runs the stages in order, up to config.until. What is done is not done again."""
  provenance.note(x.workdir, event='start', **provenance.facts())
  x.metrics = Metrics(x.workdir)
  try:
    for name, stage in STAGES.items():
      started = time.monotonic()
      stage(x)
      provenance.note(x.workdir, event='stage', stage=name, seconds=round(time.monotonic() - started, 2))
      if name == x.config.until:
        break
  finally:
    x.metrics.close()

"""The experiment, top to bottom: prepare -> audio net -> visual net -> features -> fusion -> decide -> report.

Each stage is made fold by fold, a folder each, named by what it depends on (stages.py). A network's folder hangs on
its training clips alone (and held ones, where the epoch is chosen), so nothing of a test speaker can reach it.
"""

import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

from emo_jax import checks, provenance
from emo_jax.context import Experiment, Unusable
from emo_jax.corpora import clip as clip_list
from emo_jax.corpora import demo, java_sed, manifest
from emo_jax.evaluation import folds
from emo_jax.report import report
from emo_jax.steps import decide, fusion, networks, prepare
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


def set_up(config: Any, workdir: str) -> Experiment:
  """Checks what the user gave and fixes the split; nothing is trained yet (the demo corpus makes its clips here).

  Raises:
    Unusable: a config value, a corpus or a split that cannot be run, or a work directory of another experiment.
  """
  try:
    checks.check(config, stages=tuple(STAGES), corpora=tuple(READERS))
    clips = READERS[config.data.corpus](config.data)
    clip_list.check(clips)
    split = folds.make_folds(
      clips, rule=config.data.rule, held=bool(config.data.held), allow_leaks=config.data.allow_leaks
    )
    checks.check_held(config, split)
    folder = pathlib.Path(workdir).absolute()
    cache = pathlib.Path(config.cache).absolute() if config.cache else folder / 'stages'
    x = Experiment(config, folder, cache, clips, clip_list.classes(clips), split)
    for modality in networks.NETWORKS:
      networks.check(x, modality)
    folder.mkdir(parents=True, exist_ok=True)
    provenance.claim(folder, config.to_dict())
  except (ValueError, ModuleNotFoundError) as error:
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

"""The experiment, top to bottom: prepare -> audio net -> visual net -> features -> fusion -> decide -> report.

Each stage is made fold by fold, a folder each, named by what it depends on (stages.py). A network's folder hangs on
its training clips alone (and held ones, where the epoch is chosen), so nothing of a test speaker can reach it.
"""

import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from emo_jax import checks, contenders, faults, files, processes, provenance
from emo_jax.context import Experiment, Unusable, by_lead, explained
from emo_jax.corpora import baum1s, cremad, demo, enterface05, java_sed, manifest, ravdess, rml, savee
from emo_jax.corpora import clip as clip_list
from emo_jax.evaluation import leaks, splits
from emo_jax.report import report
from emo_jax.steps import decide, fusion, handcrafted, networks, prepare
from emo_jax.training import clock
from emo_jax.training.metrics import Metrics

READERS: dict[str, Callable[[Any], clip_list.Listing]] = {
  'rml': lambda data: rml.read(data.root),
  'enterface05': lambda data: enterface05.read(data.root),
  'baum1s': lambda data: baum1s.read(data.root),
  'ravdess': lambda data: ravdess.read(data.root),
  'cremad': lambda data: cremad.read(data.root, label=data.cremad.label),
  'savee': lambda data: savee.read(data.root),
  'java_sed': lambda data: java_sed.read(data.root, takes=data.java_sed.takes),
  'manifest': lambda data: manifest.read(data.root),
  'demo': lambda data: demo.read(data.root, **data.demo),
}
STAGES: dict[str, Callable[[Experiment], None]] = {
  'prepare': prepare.prepare,
  'audio_net': lambda x: networks.train_networks(x, 'audio'),
  'visual_net': lambda x: networks.train_networks(x, 'visual'),
  'features': networks.extract_features,
  'handcrafted': handcrafted.extract,
  'fusion': fusion.fuse,
  'decide': decide.decide,
  'report': report.write,
}
BY_LEAD = ('decide', 'report')  # of several processes one does these; the others wait for it


def look_over(config: Any, workdir: str) -> Experiment:
  """Checks what the user gave and deals the split; writes nothing (but the demo corpus makes its clips here).

  Raises:
    Unusable: a config value, a corpus or a split that cannot be run.
  """
  try:
    checks.check(config, stages=tuple(STAGES), corpora=tuple(READERS))
    listing = _listing(config)
    listing = listing.narrowed(emotions=config.data.emotions, exclude_speakers=config.data.exclude_speakers)
    clip_list.check(listing.clips)
    clips, folds, split = splits.deal(listing.clips, config.data)
    checks.check_held(config, folds)
    processes.teams(config.parallel.folds)
    folder = pathlib.Path(workdir).absolute()
    cache = pathlib.Path(config.cache).absolute() if config.cache else folder / 'stages'
    classes = clip_list.classes(clips)
    x = Experiment(config, folder, cache, clips, classes, folds, listing.left_out, listing.warnings, split)
    balance = leaks.balance(clips, np.array([x.sides(fold) for fold in folds]))
    if balance.examples:
      x.warnings.append('; '.join((balance.said, *balance.examples)))
    for modality in networks.MODALITIES if 'features' in stages_of(config) else ():
      networks.check(x, modality)
  except (ValueError, ModuleNotFoundError) as error:
    raise Unusable(str(error)) from error
  return x


def _listing(config: Any) -> clip_list.Listing:
  """What the corpus's reader finds; of several processes the lead reads first, for the demo's one makes its clips."""
  read = READERS[config.data.corpus]
  if len(processes.team()) > 1:
    processes.by_lead(lambda: read(config.data) and None)
  return read(config.data)


def set_up(config: Any, workdir: str) -> Experiment:
  """Looks over what the user gave, and claims the work directory; nothing is trained yet.

  Raises:
    Unusable: a config value, a corpus or a split that cannot be run, or a work directory of another experiment.
  """
  x = look_over(config, workdir)

  def claim() -> None:
    x.workdir.mkdir(parents=True, exist_ok=True)
    provenance.claim(x.workdir, _recorded(x))
    splits.write(x.workdir / 'split.json', x.split)

  by_lead(x.workdir, claim)
  return x


def _recorded(x: Experiment) -> dict[str, Any]:
  """The config with whole paths, for who looks at the work directory from elsewhere."""
  config = x.config.to_dict()
  if config['cache']:
    config['cache'] = str(x.cache)
  if config['data']['root']:
    config['data']['root'] = str(pathlib.Path(config['data']['root']).absolute())
  return config


def stages_of(config: Any) -> list[str]:
  """The stages that an experiment runs: up to config.until, without those that nobody in config.methods needs."""
  names, unused = list(STAGES), contenders.unused_stages(config.methods)
  return [name for name in names[: names.index(config.until) + 1] if name not in unused]


def plan(x: Experiment) -> list[tuple[str, pathlib.Path, bool]]:
  """What `run` would make, and nothing is made: stage, its folder in the cache, whether that is there.

  The keys of what comes after prepare hang on what it finds: where clips are not prepared, prepare is all there is.
  """
  x.planning = True
  wanted = stages_of(x.config)
  if prepare.plan(x):
    for name in wanted[1:]:
      if name != 'report':
        STAGES[name](x)
  return [(name, folder, folder.exists()) for name, folders in x.made.items() for folder in folders]


def run(x: Experiment) -> None:
  """Runs the stages in order, up to config.until. What is done is not done again.

  Raises:
    Unusable: the machine has to be seen to (a full disk), or something that was saved is damaged.
  """
  with explained(x.cache, x.workdir):
    _run(x)


def _run(x: Experiment) -> None:
  for warning in x.warnings if processes.lead() else ():
    print(f'{x.config.data.corpus}: {warning}', file=sys.stderr)
  provenance.note(x.workdir, event='start', **provenance.facts(), warnings=x.warnings)
  x.metrics = Metrics(x.workdir if processes.leading(x.config.parallel.folds) else None)
  spent: dict[str, float] = {}
  try:
    for name in stages_of(x.config):
      started = time.monotonic()
      with faults.told(name, x.config, x.cache):
        if name in BY_LEAD:
          processes.only_lead(lambda: STAGES[name](x))  # noqa: B023
        else:
          STAGES[name](x)
      spent[name] = round(time.monotonic() - started, 2)
      provenance.note(x.workdir, event='stage', stage=name, seconds=spent[name])
    if processes.lead():
      _note_stages(x)
      print(clock.summary(spent, x.spent), file=sys.stderr)
  finally:
    x.metrics.close()


def _note_stages(x: Experiment) -> None:
  """stages.json: each stage's folders in the cache, a run up to an earlier stage keeping those of the later ones."""
  path = x.workdir / 'stages.json'
  made = json.loads(path.read_text()) if path.exists() else {}
  made |= {name: [str(folder.relative_to(x.cache)) for folder in folders] for name, folders in x.made.items()}
  with files.whole(path) as file:
    file.write(json.dumps(made, indent=1) + '\n')

"""An experiment of an earlier run, opened again: its config, split, clips, and the stages it has made.

For whoever looks at what was trained, or uses it: the audit, the report's page, the export of a model.
"""

import dataclasses
import json
import pathlib
from typing import Any

import ml_collections

from emo_jax import experiment, provenance
from emo_jax.context import Experiment, Unusable
from emo_jax.corpora import demo
from emo_jax.evaluation import splits
from emo_jax.steps import prepare


def _recorded(config: Any, workdir: str) -> Any:
  """The config of a work directory.

  Raises:
    Unusable: it has none, or `config` is given and is another one.
  """
  folder = pathlib.Path(workdir)
  try:
    saved = json.loads((folder / 'config.json').read_text())
    splits.load(folder / 'split.json')
    if not isinstance(saved, dict):
      raise ValueError('config.json holds no object')
    if config is None:
      return ml_collections.ConfigDict(saved)
    provenance.claim(folder, config.to_dict())
  except (OSError, ValueError) as error:
    raise Unusable(f'{workdir} is no work directory of this experiment: {error}') from error
  return config


def open_experiment(config: Any, workdir: str | None) -> Experiment:
  """The experiment of a config, or with its recorded split the one of a work directory, leaks or not.

  Raises:
    Unusable: neither can be used. Its cause is a folds.Leak where that is why.
  """
  config = _recorded(config, workdir) if workdir else config
  free = ml_collections.ConfigDict(config.to_dict()).lock()
  try:
    free.data.allow_leaks = True
    if workdir:
      free.data.update({'rule': 'file', 'split': str(pathlib.Path(workdir, 'split.json'))})
    _refuse_unmade(free.data)
    x = experiment.look_over(free, workdir or '.')
  except (AttributeError, KeyError, TypeError) as error:  # a field that is not there, or holds something else
    told = f'made by another version of this project: its config does not fit this one ({error})'
    raise Unusable(f'{workdir or "--config"}: {told}') from error
  except Unusable as error:
    if not workdir or pathlib.Path(config.data.root).is_absolute():
      raise
    told = f'{error} (config.data.root={config.data.root} is relative to the folder of that run: start from there)'
    raise Unusable(told) from error.__cause__
  return dataclasses.replace(x, config=config)


def _refuse_unmade(data: Any) -> None:
  """Refuses a demo corpus that is not there: reading it would make it."""
  wanted = data.demo.speakers * data.demo.takes * len(demo.EMOTIONS)
  if data.corpus == 'demo' and (there := len([*pathlib.Path(data.root).glob('*/*.mp4')])) < wanted:
    raise Unusable(f'{data.root} holds {there} of the {wanted} films of the demo corpus: run the experiment first')


def reopen(x: Experiment) -> None:
  """Finds the folders and the store that a finished experiment has used.

  Raises:
    Unusable: it is not finished, or not whole any more.
  """
  try:
    made = json.loads((x.workdir / 'stages.json').read_text())
    x.made = {stage: [x.cache / folder for folder in folders] for stage, folders in made.items()}
    for stage, folders in x.made.items():
      if len(folders) != (1 if stage in ('prepare', 'handcrafted') else len(x.folds)):
        raise ValueError(f'stages.json has {len(folders)} folders of {stage}')
      if gone := [str(folder) for folder in folders if not folder.is_dir()]:
        raise ValueError(f'{gone[0]} is gone')
    x.records = json.loads((x.made['prepare'][0] / 'index.json').read_text())
    prepare.open_store(x)
  except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
    cache = x.config.cache
    here = (
      f'; config.cache={cache} is relative to the folder of that run'
      if cache and not pathlib.Path(cache).is_absolute()
      else ''
    )
    told = f'{x.workdir} holds no finished experiment ({type(error).__name__}: {error}{here})'
    raise Unusable(f'{told}: run the experiment again, to its end') from error

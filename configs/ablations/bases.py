"""What the ablations start from: another corpus's config, with a group held in each fold to choose on."""

import importlib
import pathlib
from typing import Any

import ml_collections

NO_BASES = ('default', 'sizes')  # without a corpus


def get_config(base: str, sweep: dict[str, Any]) -> ml_collections.ConfigDict:
  """The config of `base` (as 'rml', or 'rml:slim') with one group held in each fold, and this sweep.

  Raises:
    ValueError: no such config.
  """
  name, *size = base.split(':', 1)
  known = sorted(path.stem for path in pathlib.Path(__file__).parents[1].glob('*.py') if path.stem not in NO_BASES)
  if name not in known:
    raise ValueError(f'{name!r} is no config to start from: use {", ".join(known)}')
  config = importlib.import_module(f'configs.{name}').get_config(*size)
  config.data.held = 1
  config.sweep.update(sweep)
  return config

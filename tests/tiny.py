"""The whole method, as small as it goes: a config for tests that run launch.py for real."""

import ml_collections

from configs import demo


def get_config() -> ml_collections.ConfigDict:
  """A few tiny clips of three speakers, networks of a few channels, one epoch."""
  config = demo.get_config()
  config.data.update({'rule': 'loso'})
  config.data.demo.update({'speakers': 3, 'takes': 1, 'seconds': 0.9})
  config.frontend.faces.update({'every': 2, 'size': (32, 32)})
  config.audio.update({'width': 1 / 32, 'size': 64, 'epochs': 2, 'batch': 6})
  config.visual.update({'width': 1 / 64, 'size': 32, 'epochs': 2, 'batch': 6})
  config.fusion.update({'units': (16, 8)})
  config.fusion.rbm.update({'epochs': 2, 'batch': 6, 'average_epochs': 1})
  config.fusion.finetune.update({'epochs': 2, 'batch': 6})
  config.page = False
  config.save.every = 2
  config.log.every = 1
  config.executor.workers = 1
  return config

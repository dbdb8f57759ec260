"""Java-SED, 192 films of 8 speakers, 6 emotions: slim networks from scratch that two cores can train.

Chosen on held speakers (docs/accuracy_search.md), with the DBN left as its RBMs found it.

python launch.py --config=configs/java_sed.py --config.data.root=<the unpacked Java-SED> --workdir=runs/java_sed
"""

import ml_collections

from configs import default


def get_config() -> ml_collections.ConfigDict:
  """What differs from the paper's experiment."""
  config = default.get_config()
  config.data.update({'corpus': 'java_sed', 'rule': 'groups:4', 'held': 0})
  config.frontend.faces.update({'hold': 0.5, 'size': (64, 64)})
  adamw = {'name': 'adamw', 'lr': 1e-3, 'weight_decay': 1e-2, 'schedule': 'cosine'}
  config.audio.update({'width': 0.25, 'size': 112, 'norm': 'group', 'epochs': 30, 'mask_time': 12, 'mask_mel': 10})
  config.audio.update({'shift_mel': 4, 'level': 0.3})
  config.audio.optim.update(adamw)
  config.visual.update({'width': 0.125, 'size': 56, 'norm': 'group', 'epochs': 10, 'batch': 10, 'scaling': 'clip'})
  config.visual.update({'flip': True, 'shift': 3, 'brightness': 0.2, 'dropout': 0.3})
  config.visual.optim.update({**adamw, 'lr': 4e-4})
  config.fusion.update({'units': (1024, 512), 'scaling': 'standard', 'visible': 'gaussian'})
  config.fusion.rbm.update({'epochs': 50})
  config.fusion.finetune.update({'kind': 'none'})
  return config

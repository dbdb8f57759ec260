"""The first author's published script, as it really runs (method.md A1 to A5), where that differs from the paper.

  python launch.py --config=configs/author_code.py --config.data.root=clips.csv --workdir=runs/author_code

The same switches on Java-SED, networks and epochs small enough for two cores:

  python launch.py --config=configs/author_code.py:slim --config.data.root=<Java-SED> --workdir=runs/author_code

What is not the script's: networks start at random here (its ImageNet and Sports-1M weights are not read yet); training
statistics scale everything, where it scales test features by their own; L-BFGS stands for scaled conjugate gradients;
mel filters sit at their true bins, not one low. The visual net keeps its dropout: it was trained in Caffe with the
stock recipe.

Slim, on Java-SED, 22 minutes on two cores: audio 0.474, visual 0.354, concat 0.531, hybrid 0.406 (fusion seed 0).
"""

import ml_collections

from configs import default


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """What differs from the paper's experiment; `size` is full or slim.

  Raises:
    ValueError: another size.
  """
  config = default.get_config()
  config.data.held = 0
  config.frontend.short = 'refuse'
  config.audio.update({'form': 'caffe', 'size': 227, 'deltas': 9, 'z_score': 'after', 'dropout': 0.0})
  config.audio.optim.head_rate = 1e-3
  config.fusion.update({'units': (4096, 1024), 'scaling': 'joint', 'top': 'linear'})
  config.fusion.rbm.shuffled = False
  config.fusion.finetune.update({'kind': 'autoencoder', 'epochs': 200})
  if size == 'slim':
    config.data.update({'corpus': 'java_sed', 'rule': 'groups:4'})
    config.frontend.faces.size = (64, 64)
    config.audio.update({'width': 0.25, 'size': 112, 'epochs': 10})
    config.visual.update({'width': 0.125, 'size': 56, 'epochs': 3})
    config.fusion.update({'units': (1024, 256)})
    config.fusion.rbm.epochs = 30
    config.fusion.finetune.epochs = 50
  elif size != 'full':
    raise ValueError(f'configs/author_code.py:{size}: use full or slim')
  return config

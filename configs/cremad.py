"""CREMA-D, films of 91 actors, 6 emotions (no surprise, but neutral): the published 5 folds of actors (method.md B5).

  python launch.py --config=configs/cremad.py --config.data.root=<CREMA-D> --workdir=runs/cremad

The paper's networks, for a GPU; slim ones for two cores: --config=configs/cremad.py:slim. Labels are the emotions that
were acted; those of the crowd that saw and heard the clips: --config.data.cremad.label=crowd.
"""

import ml_collections

from configs import sizes


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """What differs from the paper's experiment; `size` is full or slim."""
  config = sizes.get_config(size)
  config.data.update({'corpus': 'cremad', 'rule': 'groups'})
  return config

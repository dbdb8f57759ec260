"""SAVEE, 480 films of 4 speakers, 7 emotions: leave one speaker out.

  python launch.py --config=configs/savee.py --config.data.root=<the unpacked SAVEE> --workdir=runs/savee

The paper's networks, for a GPU; slim ones for two cores: --config=configs/savee.py:slim. Without neutral:
--config.data.emotions='("anger","disgust","fear","happiness","sadness","surprise")'.
"""

import ml_collections

from configs import sizes


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """What differs from the paper's experiment; `size` is full or slim."""
  config = sizes.get_config(size)
  config.data.update({'corpus': 'savee', 'rule': 'loso'})
  return config

"""eNTERFACE05, 1287 films of 43 speakers, 6 emotions: leave one of 5 groups of speakers out (method.md A6).

  python launch.py --config=configs/enterface05.py --config.data.root=<the unpacked archive> --workdir=runs/enterface05

The paper's networks, for a GPU; slim ones for two cores: --config=configs/enterface05.py:slim. The paper says 0.8597,
of groups that it does not name.
"""

import ml_collections

from configs import sizes


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """What differs from the paper's experiment; `size` is full or slim."""
  config = sizes.get_config(size)
  config.data.update({'corpus': 'enterface05', 'rule': 'groups:5'})
  return config

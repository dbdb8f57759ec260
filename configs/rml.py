"""RML, 720 films of 8 speakers in six languages, 6 emotions: leave one speaker out (method.md A6).

  python launch.py --config=configs/rml.py --config.data.root=<the unpacked RML> --workdir=runs/rml

The paper's networks, for a GPU; slim ones for two cores: --config=configs/rml.py:slim. The paper says 0.8036.
"""

import ml_collections

from configs import sizes


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """What differs from the paper's experiment; `size` is full or slim."""
  config = sizes.get_config(size)
  config.data.update({'corpus': 'rml', 'rule': 'loso'})
  return config

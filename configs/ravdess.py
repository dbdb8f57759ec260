"""RAVDESS, films of 24 actors: the six basic emotions (1152 clips), 6 published folds of four actors (method.md B4).

  python launch.py --config=configs/ravdess.py --config.data.root=<the unpacked RAVDESS> --workdir=runs/ravdess

The paper's networks, for a GPU; slim ones for two cores: --config=configs/ravdess.py:slim. All 8 emotions, neutral and
calm too (1440 clips): --config.data.emotions='()'.
"""

import ml_collections

from configs import sizes


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """What differs from the paper's experiment; `size` is full or slim."""
  config = sizes.get_config(size)
  basic = ('anger', 'disgust', 'fear', 'happiness', 'sadness', 'surprise')
  config.data.update({'corpus': 'ravdess', 'rule': 'groups', 'emotions': basic})
  return config

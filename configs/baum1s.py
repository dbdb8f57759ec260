"""BAUM-1s, spontaneous films: the six basic emotions (521 clips, says the paper), 5 groups of speakers (method.md A6).

  python launch.py --config=configs/baum1s.py --config.data.root=<the unpacked BAUM-1s> --workdir=runs/baum1s

The paper's networks, for a GPU; slim ones for two cores: --config=configs/baum1s.py:slim. The paper says 0.5457; who
was in which of its groups is not published, so groups differ (here sorted speakers are dealt round robin).
All 13 states: --config.data.emotions='()'.
"""

import ml_collections

from configs import sizes


def get_config(size: str = 'full') -> ml_collections.ConfigDict:
  """What differs from the paper's experiment; `size` is full or slim."""
  config = sizes.get_config(size)
  basic = ('anger', 'disgust', 'fear', 'happiness', 'sadness', 'surprise')
  config.data.update({'corpus': 'baum1s', 'rule': 'groups:5', 'emotions': basic})
  return config

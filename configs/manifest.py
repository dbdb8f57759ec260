"""The user's own clips, listed in a CSV (emo_jax/corpora/manifest.py says which columns): java_sed's slim networks.

  python launch.py --config=configs/manifest.py --config.data.root=clips.csv --workdir=runs/mine

The face net sees what moves (visual.scaling=clip); films of one fixed expression: --config.visual.scaling=segment.
The paper's full-size networks on the same list: --config=configs/default.py.
"""

import ml_collections

from configs import java_sed


def get_config() -> ml_collections.ConfigDict:
  """What differs from java_sed."""
  config = java_sed.get_config()
  config.data.corpus = 'manifest'
  config.data.rule = 'loso'
  return config

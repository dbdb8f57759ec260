"""How to make one vector of a clip's segments: the paper's mean against four others.

  python launch.py --config=configs/ablations/pooling.py --config.data.root=<Java-SED> --workdir=runs/pooling

On another corpus: --config=configs/ablations/pooling.py:rml, or :rml:slim for two cores.
"""

import ml_collections

from configs.ablations import bases

POOLS = ('mean', 'max', 'mean_std', 'mean_std_deltas', 'pyramid')
VARIANTS = {pool: {'methods': ('audio', 'visual', 'concat', 'hybrid'), 'pool': pool} for pool in POOLS}
# Before looking.
CONTRASTS = tuple(('mean: hybrid', f'{pool}: hybrid') for pool in POOLS[1:])


def get_config(base: str = 'java_sed') -> ml_collections.ConfigDict:
  """The sweep on the networks and DBN of configs/<base>.py; only the SVMs are fitted anew."""
  return bases.get_config(base, {'variants': VARIANTS, 'seeds': (0, 1, 2), 'contrasts': CONTRASTS})

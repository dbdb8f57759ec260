"""How deep a DBN: one to five layers, each half as wide as the one below, beside joining without any.

  python launch.py --config=configs/ablations/depth.py --config.data.root=<Java-SED> --workdir=runs/depth

On another corpus: --config=configs/ablations/depth.py:rml, where they are the paper's 4096-2048-1024-512-256.
"""

import ml_collections

from configs.ablations import bases

DEPTHS = (1, 2, 3, 4, 5)
# Before looking: the depth the paper's figure shows against the shallowest, the script's, and none.
CONTRASTS = (('layers_3', 'layers_1'), ('layers_3', 'layers_2'), ('layers_3', 'concat'))


def get_config(base: str = 'java_sed') -> ml_collections.ConfigDict:
  """The sweep from the lowest layer of configs/<base>.py up (method.md A4)."""
  config = bases.get_config(base, {})
  lowest = config.fusion.units[0]
  variants = {
    f'layers_{depth}': {
      'methods': ('hybrid',),
      'fusion': {'units': tuple(lowest // 2**layer for layer in range(depth))},
    }
    for depth in DEPTHS
  }
  variants['concat'] = {'methods': ('concat',)}
  config.sweep.update({'variants': variants, 'seeds': (0, 1, 2), 'contrasts': CONTRASTS})
  return config

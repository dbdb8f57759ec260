"""How to fine-tune a DBN: not at all, as an autoencoder (the author's script), by the labels (the paper).

  python launch.py --config=configs/ablations/finetune.py --config.data.root=<Java-SED> --workdir=runs/finetune

On another corpus: --config=configs/ablations/finetune.py:rml, or :rml:slim for two cores.
"""

import ml_collections

from configs.ablations import bases

VARIANTS = {
  kind: {'methods': ('hybrid',), 'fusion': {'kind': 'dbn', 'finetune': {'kind': kind}}}
  for kind in ('none', 'autoencoder', 'softmax')
}
VARIANTS['concat'] = {'methods': ('concat',)}
# Before looking.
CONTRASTS = (('softmax', 'none'), ('softmax', 'autoencoder'), ('autoencoder', 'none'))


def get_config(base: str = 'java_sed') -> ml_collections.ConfigDict:
  """The sweep on the RBMs of configs/<base>.py."""
  return bases.get_config(base, {'variants': VARIANTS, 'seeds': (0, 1, 2), 'contrasts': CONTRASTS})

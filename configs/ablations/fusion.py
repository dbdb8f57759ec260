"""Does fusion by the DBN help, and by how much: all contenders in the same folds.

  python launch.py --config=configs/ablations/fusion.py --config.data.root=<Java-SED> --workdir=runs/fusion

On another corpus: --config=configs/ablations/fusion.py:rml, or :rml:slim for two cores. --dry_run tells what it takes.
"""

import ml_collections

from configs.ablations import bases

VARIANTS = {
  'single': {'methods': ('audio', 'visual', 'audio_softmax', 'visual_softmax')},
  'handcrafted': {'methods': ('sound_features', 'face_features', 'handcrafted')},
  'concat': {'methods': ('concat',)},
  'mlp': {'methods': ('hybrid',), 'fusion': {'kind': 'mlp'}},
  'decision': {'methods': ('max', 'min', 'mean', 'product', 'majority')},
  'score': {'methods': ('score',), 'score': {'candidates': tuple(tenth / 10 for tenth in range(11))}},
  'fc': {'methods': ('hybrid',), 'fusion': {'kind': 'fc'}},
  'dbn': {'methods': ('hybrid',), 'fusion': {'kind': 'dbn'}},
  'attention': {'methods': ('hybrid',), 'fusion': {'kind': 'attention'}},
  'encoding': {'methods': ('hybrid',), 'fusion': {'kind': 'encoding'}},
}
# Before looking: the better modality is the one that is better on each fold's held clips; mean averages the verdicts.
CONTRASTS = (('dbn', ('audio', 'visual')), ('dbn', 'concat'), ('dbn', 'mean'))


def get_config(base: str = 'java_sed') -> ml_collections.ConfigDict:
  """The sweep on the networks, folds and DBN of configs/<base>.py."""
  return bases.get_config(
    base,
    {'variants': VARIANTS, 'normalise': ('none', 'speaker'), 'seeds': (0, 1, 2), 'contrasts': CONTRASTS},
  )

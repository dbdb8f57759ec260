"""A sweep of the tiny config: what needs the networks alone, the DBN, and one variant that cannot be trained."""

import ml_collections

from tests import tiny


def get_config() -> ml_collections.ConfigDict:
  """Two protocols and two fusion seeds."""
  config = tiny.get_config()
  config.data.held = 1
  variants = {
    'nets': {'methods': ('audio', 'visual', 'concat', 'mean')},
    'dbn': {'methods': ('hybrid',)},
    'broken': {'methods': ('hybrid',), 'fusion': {'rbm': {'lr': 1e30}}},
  }
  contrasts = (('dbn', ('audio', 'visual')), ('dbn', 'concat'), ('dbn', 'mean'))
  config.sweep.update({'variants': variants, 'normalise': ('none', 'speaker'), 'seeds': (0, 1), 'contrasts': contrasts})
  return config

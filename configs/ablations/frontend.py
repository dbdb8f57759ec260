"""What the network hears: deltas, the window's length, and the paper's images against the author's script's.

  python launch.py --config=configs/ablations/frontend.py --config.data.root=<Java-SED> --workdir=runs/frontend

On another corpus: --config=configs/ablations/frontend.py:rml, or :rml:slim for two cores. Every variant trains a sound
network, other windows one for the face too. The script's images cannot be masked, so `paper` is without masks as well.
"""

import ml_collections

from configs.ablations import bases

METHODS = {'methods': ('audio', 'visual', 'concat', 'hybrid')}
NO_MASKS = {'mask_time': 0, 'mask_mel': 0, 'shift_mel': 0}
VARIANTS = {
  **{f'deltas_{width}': {**METHODS, 'audio': {'deltas': width}} for width in (5, 9, 0)},
  **{f'window_{frames}': {**METHODS, 'frontend': {'segments': {'length': frames}}} for frames in (32, 96)},
  'paper': {**METHODS, 'audio': {**NO_MASKS, 'deltas': 5, 'z_score': 'before'}},
  'z_score_after': {**METHODS, 'audio': {**NO_MASKS, 'deltas': 5, 'z_score': 'after'}},
  'script': {**METHODS, 'audio': {**NO_MASKS, 'deltas': 9, 'z_score': 'after'}},
}
# Before looking; deltas_5 has the windows of 64 frames.
CONTRASTS = (
  ('deltas_5: audio', 'deltas_9: audio'),
  ('deltas_5: audio', 'deltas_0: audio'),
  ('deltas_5: audio', 'window_32: audio'),
  ('deltas_5: audio', 'window_96: audio'),
  ('paper: audio', 'script: audio'),
)


def get_config(base: str = 'java_sed') -> ml_collections.ConfigDict:
  """The sweep on the folds and DBN of configs/<base>.py."""
  return bases.get_config(base, {'variants': VARIANTS, 'seeds': (0, 1, 2), 'contrasts': CONTRASTS})

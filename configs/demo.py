"""What `make demo` runs: the whole method on clips that it makes itself, on two cores, in minutes.

  python launch.py --config=configs/demo.py --workdir=runs/demo

The emotion is a pair (voice bit, face bit), so one modality alone is right in at most half of the clips.
"""

import ml_collections

from configs import java_sed


def get_config() -> ml_collections.ConfigDict:
  """What differs from java_sed's slim networks."""
  config = java_sed.get_config()
  config.data.update({'corpus': 'demo', 'root': 'runs/demo_clips', 'rule': 'groups:4'})
  config.data.demo.update({'voice_noise': 0.4, 'face_noise': 0.4})
  config.frontend.faces.size = (40, 40)
  config.audio.update({'epochs': 12, 'batch': 10, 'shift_mel': 0, 'level': 0.0})
  config.visual.update({'size': 40, 'shift': 2, 'epochs': 16, 'batch': 10, 'scaling': 'segment'})
  config.audio.optim.lr = 3e-4
  config.visual.optim.lr = 5e-4
  config.fusion.update({'units': (256, 128), 'scaling': 'modality', 'visible': 'probability'})
  config.fusion.finetune.update({'kind': 'softmax', 'epochs': 20})
  return config

"""Every field once, with its unit. The values are the paper's where they are known (TCSVT 2018; the design's method.md
says how surely), else the first author's published script's.

Expects clips listed in a CSV (see emo_jax/corpora/manifest.py) and hardware for the full-size networks (a GPU):

  python launch.py --config=configs/default.py --config.data.root=clips.csv --workdir=runs/mine
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """The paper's experiment, but for `held`: a group is kept to choose on until every value is fixed."""
  return ml_collections.ConfigDict(
    {
      # Seeds: `nets_seed` for the two networks (as `seed`, unless set), `seed` for fusion and what follows.
      'seed': 0,
      'nets_seed': config_dict.placeholder(int),
      # Where stages lie; <workdir>/stages unless set. Experiments may share one.
      'cache': config_dict.placeholder(str),
      # The last stage to run: prepare, audio_net, visual_net, features, fusion, decide, report.
      'until': 'report',
      'data': {
        'corpus': 'manifest',  # manifest, java_sed, demo
        'root': '',  # the corpus's folder, or the manifest's CSV
        'java_sed': {'takes': False},  # learn from the sound-only takes as well
        'demo': {'speakers': 8, 'takes': 4, 'seconds': 1.6, 'voice_noise': 0.5, 'face_noise': 0.5, 'seed': 0},
        'rule': 'loso',  # loso, groups:K, groups (the clips' own), fixed (the clips' own split)
        'held': 1,  # keep the next speaker or group out of training, to choose on; 0: the paper's protocol
        'judge': 'test',  # who is predicted at the end: test, or held while choosing
        'allow_leaks': False,  # accept a speaker on both sides; marks every result
      },
      'frontend': {
        'sound': {'low_hz': 20.0, 'high_hz': 8000.0},  # edges of the 64 mel bands
        'faces': {
          'every': 1,  # detect in every n-th frame, interpolate between
          'min_face': 0.2,  # smallest face, as a share of the frame's height
          'hold': 1.0,  # seconds from the nearest detection after which a frame counts as without a face
          'size': (150, 110),  # stored height and width in px; 150 x 110 has the eyes 55 px apart
        },
        'segments': {'length': 64, 'shift': 30},  # log-mel frames of 10 ms: 655 ms windows every 300 ms
        'short': 'pad',  # a clip shorter than a window: pad, or refuse (the author's script)
      },
      'audio': {
        'form': 'single',  # single (one tower) or caffe (the grouped original, for 227 px)
        'width': 1.0,  # scales all channels; features are 4096 * width
        'size': 224,  # px
        'norm': 'none',  # none, or group normalisation after each convolution
        'dropout': 0.5,
        'mask_time': 0,  # augmentation: widest hidden stretch, in frames
        'mask_mel': 0,  # and in mel bands
        'batch': 30,  # global
        'epochs': 40,  # the script's; the paper's own number is not known for sure
        'optim': {'name': 'sgd', 'lr': 1e-3, 'momentum': 0.9, 'weight_decay': 5e-4, 'schedule': 'constant'},
      },
      'visual': {
        'width': 1.0,
        'size': 112,  # px; the published weights fit no other
        'norm': 'none',
        'dropout': 0.5,
        'scaling': 'fixed',  # fixed: 0..255 to -1..1; segment: each segment's channels to mean 0, deviation 1
        'flip': False,  # augmentation: mirror half of the clips
        'shift': 0,  # farthest shift, in px of the network's input
        'brightness': 0.0,  # widest relative change of gain
        'batch': 30,
        'epochs': 40,
        'optim': {'name': 'sgd', 'lr': 1e-3, 'momentum': 0.9, 'weight_decay': 5e-4, 'schedule': 'constant'},
      },
      'fusion': {
        'units': (4096, 2048, 1024),  # hidden units of each RBM, the lowest first
        'rbm': {
          'lr': 0.1,
          'momentum': (0.5, 0.4, 0.3, 0.2, 0.1, 0.0),  # of each epoch; the last one holds
          'weight_decay': 2e-4,
          'batch': 100,
          'epochs': 100,  # a layer
          'average_epochs': 5,  # parameters averaged over the last epochs
          'cd_steps': 1,
          'sample_visible': False,  # False: probabilities stand for the visible units (the script)
          'init_scale': 0.01,
        },
        'finetune': {
          'kind': 'softmax',  # softmax, or none
          'dropout': 0.3,
          'batch': 30,
          'epochs': 40,
          'optim': {'name': 'sgd', 'lr': 1e-2, 'momentum': 0.9, 'weight_decay': 5e-4, 'schedule': 'constant'},
        },
      },
      'pool': 'mean',  # over a clip's segments
      'svm': {'c': 1.0},
      'executor': {'backend': 'loky', 'workers': -1},  # joblib's; -1: a process for each core
      'parallel': {'folds': 1},  # folds trained side by side; 1 is all there is so far
      'log': {'every': 10},  # steps between fetches of metrics
      'save': {'every': 200},  # steps between checkpoints
    }
  )

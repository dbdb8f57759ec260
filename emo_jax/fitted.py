"""What a finished experiment has fitted, fitted again to the training clips alone (part of the audit).

Whatever was fitted to other clips as well, a scaler, an SVM or a network, is a leak that no split file shows. Not seen
here: what the weights of networks and of the DBN have learnt from, for they are not trained again (whose clips a
network saw, its key.json is trusted to say); a penalty of svm.candidates that was not chosen on held clips; and what
comes out the same with other clips, as a scaler where they do not reach beyond the training clips.
"""

import functools
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from emo_jax.context import Experiment
from emo_jax.evaluation import svm
from emo_jax.evaluation.leaks import EXAMPLES, Finding, counted
from emo_jax.models import dbn
from emo_jax.steps import decide, fusion, networks, start
from emo_jax.training import checkpoint

Arrays = dict[str, np.ndarray]
EXACT, SUMMED = 1e-6, 1e-4  # of the largest value; sums over clips hang on the number of devices
SOLVED = 5e-3  # LIBSVM ends near the optimum: features off by 1e-7 move it by 6e-4, one more of 1000 clips by 2e-2


def findings(x: Experiment) -> Iterator[Finding]:
  """What was fitted, fold by fold, and to whom. An experiment that ended early has less to look at."""
  for modality in networks.MODALITIES:
    if f'{modality}_net' in x.made:
      yield trained_on(x, modality)
      yield _compared(f'{modality} statistics', x, SUMMED, functools.partial(network_statistics, modality=modality))
  if 'fusion' in x.made:
    yield _compared('fusion scaler', x, EXACT, fusion_scaler)
  for method in decide.by_machine(x.config):
    if f'decide/{method}' in x.made:
      yield _compared(f'{method} scaler', x, EXACT, functools.partial(svm_scaler, method=method))
      yield _compared(f'{method} svm', x, SOLVED, functools.partial(machine, method=method))


def trained_on(x: Experiment, modality: str) -> Finding:
  """A leak where a network's key names clips as training clips that are none in this fold, or as held ones."""
  wrong, chosen = [], False
  for number, (fold, folder) in enumerate(zip(x.folds, x.made[f'{modality}_net'], strict=True)):
    key = json.loads((folder / 'key.json').read_text())
    side = dict(zip((clip.id for clip in x.clips), x.sides(fold), strict=True))
    for wanted, named in (('train', key['clips']), ('held', key.get('held', []))):
      others = (name for name, *_ in named if side.get(name) != wanted)
      wrong += [f'{name} ({side.get(name) or "no side"}) as {wanted}, fold {number}' for name in others]
    chosen |= 'held' in key
  check = f'{modality} net'
  if wrong:
    return Finding(
      check, 'LEAK', f'trained or chosen on {counted(len(wrong), "clip")} of other sides', tuple(wrong[:EXAMPLES])
    )
  on_held = '; its epoch was chosen on held clips alone' if chosen else ''
  return Finding(check, 'OK', f'trained on training clips alone in {counted(len(x.folds), "fold")}{on_held}')


def network_statistics(x: Experiment, number: int, *, modality: str) -> tuple[Arrays, Arrays]:
  """The statistics that standardise a network's images: as saved, and of the fold's training segments."""
  folder = x.made[f'{modality}_net'][number] / 'network'
  saved = checkpoint.load(folder, start.variables_like(x, modality))['statistics']
  rows = x.rows(x.folds[number], (modality,), 'train')
  read = start.reader(x, modality, x.segments.take(rows))
  return saved, start.statistics(x, modality, read, len(rows))


def fusion_scaler(x: Experiment, number: int) -> tuple[Arrays, Arrays]:
  """The scaler before the DBN: as saved, and of the fold's training segments."""
  rows = x.rows(x.folds[number], fusion.BOTH, 'train')
  features = [networks.load_features(x, number, rows, modality) for modality in fusion.BOTH]
  return _load(x.made['fusion'][number] / 'scaler.npz'), dbn.fit_scaler(features, kind=x.config.fusion.scaling)


def svm_scaler(x: Experiment, number: int, *, method: str) -> tuple[Arrays, Arrays]:
  """The scaler before a method's SVM: as saved, and of the fold's training clips."""
  features, clips = decide.method_features(x, number, method)
  saved = _load(x.made[f'decide/{method}'][number] / f'{method}_svm.npz')
  own = svm.fit_scaler(features[x.sides(x.folds[number])[clips] == 'train'], decide.weights(x, method))
  return {name: saved[name] for name in own}, own


def machine(x: Experiment, number: int, *, method: str) -> tuple[Arrays, Arrays]:
  """A method's SVM: as saved, and fitted to the fold's training clips (with the penalty that was chosen there)."""
  features, clips = decide.method_features(x, number, method)
  training = x.sides(x.folds[number])[clips] == 'train'
  labels = np.array([x.classes.index(x.clips[clip].emotion) for clip in clips[training]])
  saved = _load(x.made[f'decide/{method}'][number] / f'{method}_svm.npz')
  c = float(saved['c']) if x.config.svm.candidates else x.config.svm.c
  weight = decide.weights(x, method)
  return _planes(saved), _planes(svm.fit(features[training], labels, c=c, classes=len(x.classes), weight=weight))


def _planes(arrays: Arrays) -> Arrays:
  """What an SVM has learnt; a margin of 1 beside the intercepts, which may all be near 0."""
  own = {name: arrays[name] for name in ('coefficients', 'present', 'c')}
  return {**own, 'intercepts': np.append(arrays['intercepts'], 1)}


def _load(path: pathlib.Path) -> Arrays:
  with np.load(path, allow_pickle=False) as file:
    return dict(file)


def _compared(check: str, x: Experiment, tolerance: float, both: Callable[..., tuple[Arrays, Arrays]]) -> Finding:
  """A leak where saved arrays are not what the training clips give."""
  other = []
  for number in range(len(x.folds)):
    saved, own = both(x, number)
    for name, array in own.items():
      apart = _distance(saved[name], array)
      if not apart <= tolerance:
        other.append(f'fold {number}: {name} is off by {apart:.2g} of its largest value')
  if other:
    return Finding(check, 'LEAK', 'fitted to other clips than the training clips', tuple(other[:EXAMPLES]))
  return Finding(check, 'OK', f'what the training clips alone give, in {counted(len(x.folds), "fold")}')


def _distance(saved: Any, own: Any) -> float:
  """The largest difference of two arrays, as a share of the largest value; infinite for other shapes."""
  saved, own = np.asarray(saved, np.float64), np.asarray(own, np.float64)
  if saved.shape != own.shape:
    return np.inf
  return float(np.max(np.abs(saved - own), initial=0) / max(np.max(np.abs(own), initial=0), 1e-12))

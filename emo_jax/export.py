"""Packs a finished experiment into a model folder, which predicts by itself (after all steps of the pipeline).

  python -m emo_jax.export --workdir=W --out=M [--fold=K]

Without --fold the networks, the DBN and the SVMs are trained once more, on all speakers of the experiment, with its
config and seeds; what is trained lies in the experiment's cache and is trained once. With --fold=K (from 0) the model
is that of one fold, nothing is trained, and that fold's test speakers are strangers to it. How sure it may be of
strangers, two numbers for each contender, is fitted to clips of speakers that the folds' models have not learnt from:
held ones, and where nobody was held, the test speakers (no figure of the experiment hangs on it).

Exit status: 0 done, 1 for an experiment that cannot be exported, 2 for flags.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Collection
from typing import Any

import numpy as np
from absl import app, flags, logging

from emo_jax import checks, command_line, context, finished, memory, model, provenance, stopping
from emo_jax.context import Experiment, Unusable
from emo_jax.evaluation import calibration, pooling, svm
from emo_jax.evaluation.folds import Fold
from emo_jax.frontend import halves
from emo_jax.report import model_card, report
from emo_jax.steps import decide, filling, fusion, networks, start
from emo_jax.training import checkpoint
from emo_jax.training.metrics import Metrics


def check(x: Experiment) -> None:
  """Refuses an experiment that comes to no model that could judge a single clip.

  Raises:
    Unusable: the field, and what it must be.
  """
  config = x.config
  if config.fusion.kind != 'dbn':
    raise Unusable(f'config.fusion.kind={config.fusion.kind}: only a model with a DBN can be exported')
  if config.normalise != 'none':
    raise Unusable(f"config.normalise={config.normalise} needs all of a speaker's clips at once: export one with none")
  if lacking := [method for method in model.METHODS if f'decide/{method}' not in x.made]:
    methods = f'config.methods has no {" and no ".join(lacking)}'
    raise Unusable(f'{x.workdir}: {methods}, or the run did not come to its end: run it with them, to its end')


def everybody(x: Experiment) -> Experiment:
  """The experiment with one fold in which all speakers are learnt from and nobody is judged; trains what is missing.

  Raises:
    Unusable: it chooses on held speakers, of whom there are none then.
  """
  config = x.config.copy_and_resolve_references().unlock()
  config.data.update({'held': 0, 'judge': 'test'})
  config.update({'methods': model.METHODS})
  fold = Fold(tuple(sorted({clip.speaker for clip in x.clips})), (), ())
  try:
    checks.check_held(config, [fold])
  except ValueError as error:
    raise Unusable(f'{error}. A model of all speakers can choose nothing on held ones: or export --fold=K') from error
  clips = [dataclasses.replace(clip, split=None) for clip in x.clips]  # a fixed split's sides are of its own fold
  workdir = x.workdir / 'all_speakers'
  workdir.mkdir(exist_ok=True)
  made = {'prepare': x.made['prepare']}
  of_all = dataclasses.replace(x, config=config, folds=[fold], clips=clips, workdir=workdir, made=made)
  of_all.metrics = Metrics(workdir)
  try:
    for modality in networks.MODALITIES:
      networks.train_networks(of_all, modality)
    networks.extract_features(of_all)
    fusion.fuse(of_all)
    decide.make(of_all)
  finally:
    of_all.metrics.close()
  return of_all


def arrays(x: Experiment, number: int) -> dict[str, Any]:
  """What a fold has learnt, as model.write takes it."""
  networks_of = {
    modality: checkpoint.load(x.made[f'{modality}_net'][number] / 'network', start.variables_like(x, modality))
    for modality in model.MODALITIES
  }
  fused = filling.load(x, number)
  machines = {method: _machine(x, number, method) for method in model.METHODS}
  return {**networks_of, 'scaler': fused.scaler, 'greedy': fused.greedy, 'stack': fused.stack, 'svm': machines}


def _machine(x: Experiment, number: int, method: str) -> dict[str, np.ndarray]:
  path = x.made[f'decide/{method}'][number] / f'{method}_svm.npz'
  with np.load(path, allow_pickle=False) as file:
    return dict(file)


def calibrated(x: Experiment, method: str, *, apart: Collection[str] = ()) -> dict[str, Any]:
  """How sure a contender may be, from what all folds say of clips that they have not learnt from.

  Args:
    method: of model.METHODS.
    apart: speakers who have no say in it, as the test speakers of a fold that is exported.

  Returns:
    'clip' and 'segment', what calibration.coupled takes for whole clips and for single segments; 'side', 'held' or what
    the experiment judged; 'clips', how many; 'accuracy' of the most probable class; 'ece', the expected calibration
    error over these before (nothing fitted) and after.

  Raises:
    Unusable: there are no such clips.
  """
  side = 'held' if all(fold.held for fold in x.folds) else x.config.data.judge
  heard = np.array([clip.speaker not in apart for clip in x.clips])
  margins: dict[str, list[np.ndarray]] = {'clip': [], 'segment': []}
  truths: dict[str, list[np.ndarray]] = {'clip': [], 'segment': []}
  for number, fold in enumerate(x.folds):
    machine = _machine(x, number, method)
    features, rows = decide.segment_features(x, number, method)
    clip = x.segments.clip[rows]
    own = (x.sides(fold)[clip] == side) & heard[clip]
    for of, groups in (('clip', clip[own]), ('segment', np.arange(own.sum()))):
      vectors, _ = pooling.pool(features[own], groups, kind=x.config.pool)
      margins[of].append(svm.margins(machine, vectors))
      truths[of].append(x.truth()[np.unique(groups) if of == 'clip' else clip[own]])
  given = {of: (np.concatenate(margins[of]), np.concatenate(truths[of])) for of in margins}
  if not len(given['clip'][1]):
    raise Unusable(
      f'no {side} clip of anybody but the test speakers of this fold tells how sure {method} may be: set '
      'config.data.held=1 and run again, or export without --fold'
    )
  fitted = {of: calibration.fit_coupling(*given[of]) for of in given}
  of_clips, truth = given['clip']
  plain = {'sharpness': 1.0, 'temperature': 1.0}
  found = [calibration.reliability(calibration.coupled(of_clips, **how), truth) for how in (plain, fitted['clip'])]
  right = calibration.coupled(of_clips, **fitted['clip']).argmax(1) == truth
  ece = [round(of['ece'], 4) for of in found]
  return {**fitted, 'side': side, 'clips': len(truth), 'accuracy': round(float(right.mean()), 4), 'ece': ece}


def facts(x: Experiment, fold: int | None) -> dict[str, Any]:
  """model.json, but for the digest of the weights.

  Args:
    x: the experiment, with its own folds.
    fold: whose model it is; None: one of all speakers.
  """
  config, now = x.config.to_dict(), provenance.facts()
  strangers = () if fold is None else x.folds[fold].test
  learnt = sorted({clip.speaker for clip in x.clips}) if fold is None else list(x.folds[fold].train)
  scores = report.load_scores(x, x.config.data.judge)
  figures = {method: report.judge_method(x, scores, method) for method in model.METHODS}
  return {
    'format': model.FORMAT,
    'front_end': halves.VERSIONS,
    'classes': x.classes,
    'features': {method: _size(x, 0, method) for method in model.MODALITIES},
    'config': {field: config[field] for field in model.CONFIG},
    'calibration': {method: calibrated(x, method, apart=strangers) for method in model.METHODS},
    'figures': {
      'judged': x.config.data.judge,
      'leaks_allowed': x.config.data.allow_leaks,
      'folds': len(x.folds),
      **{method: {name: figures[method][name] for name in ('accuracy', 'uar')} for method in figures},
    },
    'trained_on': {
      'said': f'{x.config.data.corpus}, {len(learnt)} speakers',
      'corpus': x.config.data.corpus,
      'speakers': learnt,
      'fold': fold,
      'seed': x.config.seed,
      'nets_seed': x.nets_seed,
      'split': x.split['digest'],
    },
    'licences': model_card.licences(x.config),
    'provenance': {name: now[name] for name in ('time', 'git', 'changed', 'python', 'versions')},
  }


def _size(x: Experiment, number: int, modality: str) -> int:
  return int(np.load(x.made['features'][number] / f'{modality}_features.npy', mmap_mode='r').shape[1])


def export(workdir: str, out: str, *, fold: int | None = None) -> None:
  """Writes the model folder of a finished experiment.

  Raises:
    Unusable: the experiment is not finished, or of a kind that comes to no model; what to do.
    model.Unfit: `out` holds other things.
  """
  x = finished.open_experiment(None, workdir)
  finished.reopen(x)
  check(x)
  if fold is not None and not 0 <= fold < len(x.folds):
    raise Unusable(f'--fold={fold}: the experiment has folds 0 to {len(x.folds) - 1}')
  folder = pathlib.Path(out)
  with context.explained(folder):
    model.claim(folder)
  known = facts(x, fold)
  with context.explained(x.cache), context.holding(x.workdir):
    packed = arrays(everybody(x), 0) if fold is None else arrays(x, fold)
  with context.explained(folder):
    model.write(folder, packed, known, model_card.readme(known))


def main(argv: list[str]) -> int:
  """Flags to model folder."""
  if len(argv) > 1:
    print(f'export: unknown arguments {argv[1:]}', file=sys.stderr)
    return 2
  given = flags.FLAGS
  memory.keep_freed_memory()
  logging.set_verbosity(logging.FATAL)  # Orbax tells of every load
  try:
    with stopping.saying():
      export(given.workdir, given.out, fold=given.fold)
  except (Unusable, model.Unfit) as error:
    print(f'export: {error}', file=sys.stderr)
    return 1
  print(f'python -m emo_jax.predict --model={given.out} CLIP')
  return 0


if __name__ == '__main__':
  flags.DEFINE_string('workdir', None, 'A finished experiment.')
  flags.DEFINE_string('out', None, 'The model folder to write.')
  flags.DEFINE_integer('fold', None, 'The model of this fold, from 0; unless set, one trained on all speakers.')
  flags.mark_flags_as_required(['workdir', 'out'])
  stopping.watch()
  app.run(main, flags_parser=command_line.parser('export', status=2))

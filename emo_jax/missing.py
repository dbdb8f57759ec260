"""What half a clip is worth: a finished experiment's clips judged again, with halves taken away (after step 6, decide).

  python -m emo_jax.missing --workdir=W [--workdir=W2 ...] [--side=held|test] [--steps=N] [--out=FILE]

Fold by fold, the clips of a side that have sound and face throughout are judged as hybrid judges them, but without
their sound, without their picture, and with one half of a random third of their segments gone. What stands for that is
each of steps/filling.py's, or it is left out: then the segments that are complete judge alone, and where there is none,
the SVM of the half that is there. Work directories that differ in their seeds are averaged. Every time that test
speakers are asked is a look at them, and is counted with the experiments'.

Prints a table in markdown; --out has all of it as JSON. Exit status: 0 done, 1 for what cannot be judged so, 2 for
flags.
"""

import json
import pathlib
import sys
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags, logging

from emo_jax import command_line, files, finished, provenance
from emo_jax.context import Experiment, Unusable, explained
from emo_jax.evaluation import pooling, significance, svm
from emo_jax.report import pairs, report
from emo_jax.steps import filling
from emo_jax.steps.fusion import BOTH
from emo_jax.steps.networks import load_features

LOST = ('sound', 'picture', 'third')
LEFT_OUT = 'leave_out'
HOWS = ('zero', 'mean', 'mean_field', 'gibbs', LEFT_OUT)
NEEDED = (*BOTH, 'hybrid')
SEED = 0  # of the segments that lose a half: the same ones in all runs


class Judged(NamedTuple):
  """The clips of a side that have both halves throughout, fold by fold, and who was right on which.

  Attributes:
    clip: ids.
    speaker: [clips], names.
    complete: bool [clips], whether the whole clip is judged rightly.
    without: (what was lost, what stood for it) -> bool [clips].
  """

  clip: list[str]
  speaker: np.ndarray
  complete: np.ndarray
  without: dict[tuple[str, str], np.ndarray]


def open_run(workdir: str) -> Experiment:
  """A finished experiment that can be asked what half a clip is worth.

  Raises:
    Unusable: it is none, has no DBN or no SVM of each half, or judges a speaker's clips together.
  """
  x = finished.open_experiment(None, workdir)
  finished.reopen(x)
  if x.config.fusion.kind != 'dbn':
    raise Unusable(f'{workdir}: config.fusion.kind={x.config.fusion.kind} has no DBN that could fill in; use dbn')
  if x.config.normalise != 'none':
    raise Unusable(f"{workdir}: config.normalise={x.config.normalise} needs a speaker's clips whole; use none")
  if lacking := [method for method in NEEDED if f'decide/{method}' not in x.made]:
    raise Unusable(f'{workdir}: nobody was judged as {", ".join(lacking)}: add that to config.methods, run to the end')
  return x


def taken(lost: str, clip: np.ndarray, names: Sequence[str]) -> np.ndarray:
  """Which halves are left to segments: bool [n, 2], sound and face.

  Args:
    lost: of LOST. Of a third of a clip's segments, at least one, each loses one half; which, the clip's name decides.
    clip: int [n], the clip of each.
    names: of all clips.
  """
  has = np.ones((len(clip), 2), bool)
  if lost != 'third':
    has[:, LOST.index(lost)] = False
    return has
  for number in np.unique(clip):
    rng, own = np.random.default_rng([SEED, zlib.crc32(names[number].encode())]), np.flatnonzero(clip == number)
    chosen = rng.choice(own, max(1, round(len(own) / 3)), replace=False)
    has[chosen, rng.integers(2, size=len(chosen))] = False
  return has


def judge(x: Experiment, side: str, *, steps: int) -> Judged:
  """Judges the clips of a side with everything and without halves, by what was trained in each fold.

  Args:
    x: from `open_run`.
    side: 'held' or 'test'.
    steps: rounds of filling in.

  Raises:
    Unusable: no clip has both halves throughout; what was saved is damaged.
  """
  with explained(x.cache, x.workdir):
    of_folds = [_judge_fold(x, number, side, steps=steps) for number in range(len(x.folds))]
  clips = np.concatenate([clips for clips, _ in of_folds])
  if not len(clips):
    raise Unusable(
      f'{x.workdir}: no {side} clip has sound and face throughout; where nobody is held (config.data.held), --side=test'
    )
  right = {name: np.concatenate([right[name] for _, right in of_folds]) for name in of_folds[0][1]}
  own = [x.clips[clip] for clip in clips]
  return Judged([clip.id for clip in own], np.array([clip.speaker for clip in own]), right.pop(('', '')), right)


def _whole(x: Experiment, number: int, side: str) -> np.ndarray:
  """int [n]: the segments of those clips of a side all of whose segments have both halves."""
  rows = x.rows(x.folds[number], BOTH, side)
  lacking = x.segments.clip[~(x.segments.has_audio & x.segments.has_face)]
  return rows[~np.isin(x.segments.clip[rows], lacking)]


def _judge_fold(
  x: Experiment, number: int, side: str, *, steps: int
) -> tuple[np.ndarray, dict[tuple[str, str], np.ndarray]]:
  """The clips of a fold, int [clips], and for each thing lost and what stands for it who is judged rightly."""
  rows = _whole(x, number, side)
  clip, clips = x.segments.clip[rows], np.unique(x.segments.clip[rows])
  truth, names, fused = x.truth()[clips], [of.id for of in x.clips], filling.load(x, number)
  parts = {half: load_features(x, number, rows, half) for half in BOTH}
  fill = lambda has, how: filling.joint(fused, parts, has, rows, how=how, steps=steps, seed=x.config.seed)[0]
  everything = np.ones((len(rows), 2), bool)
  features = {**parts, 'hybrid': fill(everything, 'zero')}
  right = {('', ''): _verdicts(x, number, features, everything, clip) == truth}
  for lost in LOST:
    has = taken(lost, clip, names)
    right[lost, LEFT_OUT] = _verdicts(x, number, features, has, clip) == truth
    for how in filling.HOWS:
      right[lost, how] = _verdicts(x, number, {'hybrid': fill(has, how)}, everything, clip) == truth
  return clips, right


def _verdicts(
  x: Experiment, number: int, features: dict[str, np.ndarray], has: np.ndarray, clip: np.ndarray
) -> np.ndarray:
  """The classes of clips, int [clips], by their complete segments; where there is none, by the half that is there.

  Args:
    features: [n, F] of segments, of 'hybrid' and perhaps 'audio' and 'visual'.
    has: bool [n, 2].
    clip: int [n].
  """
  usable = {'audio': has[:, 0], 'visual': has[:, 1], 'hybrid': has[:, 0] & has[:, 1]}
  verdict = np.zeros(len(x.clips), int)
  for method, rows in usable.items():  # the last word is hybrid's
    if method in features:
      vectors, clips = pooling.pool(features[method][rows], clip[rows], kind=x.config.pool)
      with np.load(x.made[f'decide/{method}'][number] / f'{method}_svm.npz') as machine:
        verdict[clips] = svm.scores(dict(machine), vectors).argmax(1)
  return verdict[np.unique(clip)]


def compare(runs: Sequence[Judged]) -> dict[str, Any]:
  """What --out holds: accuracies over the clips of all folds, averaged over runs, with intervals over speakers.

  Raises:
    Unusable: the runs have not judged the same clips.
  """
  if any(run.clip != runs[0].clip for run in runs):
    raise Unusable('the work directories have other clips or another split: only their seeds and training may differ')

  def told(rights: list[np.ndarray]) -> dict[str, Any]:
    right, speaker = np.mean(rights, axis=0), runs[0].speaker
    each = pairs.sums(right, speaker), pairs.sums(np.ones(len(right)), speaker)
    return {
      'accuracy': float(right.mean()),
      'accuracy_runs': [float(of_run.mean()) for of_run in rights],
      'interval': pairs.ends(significance.bootstrap_interval(*each)),
    }

  return {
    'clips': len(runs[0].clip),
    'speakers': len(set(runs[0].speaker.tolist())),
    'complete': told([run.complete for run in runs]),
    'without': {lost: {how: told([run.without[lost, how] for run in runs]) for how in HOWS} for lost in LOST},
  }


def markdown(found: dict[str, Any]) -> str:
  """The table, for people; `found` from `compare`."""
  said = {'zero': 'features of 0', 'mean': 'training mean', 'mean_field': 'DBN, mean field', 'gibbs': 'DBN, Gibbs'}
  said[LEFT_OUT] = 'left out (the segments, or the half, that is there)'
  rows = [[said[how], *(_share(found['without'][lost][how]) for lost in LOST)] for how in HOWS]
  head = ['what stands for it', 'no sound', 'no picture', 'a third of the segments without one half']
  return '\n'.join(report.table(head, [*rows, ['nothing is missing', *[_share(found['complete'])] * 3]]))


def _share(of: dict[str, Any]) -> str:
  low, high = of['interval']
  return f'{of["accuracy"]:.3f}' if low is None else f'{of["accuracy"]:.3f} ({low:.3f} to {high:.3f})'


def main(argv: list[str]) -> int:
  """Flags to table."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  given = flags.FLAGS
  logging.set_verbosity(logging.FATAL)  # Orbax tells of every load
  try:
    runs = [open_run(workdir) for workdir in given.workdir]
    judged, steps = [], given.steps or runs[0].config.missing.steps
    for x in runs:
      judged.append(judge(x, given.side, steps=steps))
      config = x.config.to_dict()
      provenance.note_look(x.cache, x.clips, {**config, 'data': {**config['data'], 'judge': given.side}})
    found = {'side': given.side, 'steps': steps, 'workdirs': given.workdir, **compare(judged)}
    counted = f'{found["clips"]} {given.side} clips of {found["speakers"]} speakers, {len(runs)} runs'
    print(f'Accuracy of {counted}; in brackets 95 % intervals over speakers:\n\n{markdown(found)}')
    if given.out:
      with files.whole(pathlib.Path(given.out)) as file:
        file.write(json.dumps(found, indent=1) + '\n')
  except (Unusable, OSError) as error:
    print(f'missing: {error}', file=sys.stderr)
    return 1
  return 0


if __name__ == '__main__':
  flags.DEFINE_multi_string('workdir', None, 'A finished experiment; of several, which differ in seeds, the mean.')
  flags.DEFINE_enum('side', 'held', ['held', 'test'], 'Who is judged.')
  flags.DEFINE_integer(
    'steps', None, 'Rounds of filling in; unless set, config.missing.steps of the first.', lower_bound=1
  )
  flags.DEFINE_string('out', None, 'A JSON file to write.')
  flags.mark_flags_as_required(['workdir'])
  app.run(main, flags_parser=command_line.parser('missing', status=2))

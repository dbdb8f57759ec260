"""What half a clip is worth, as a user asks it of a finished run: against what the run itself has written."""

import csv
import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from emo_jax import experiment, finished, missing, provenance
from emo_jax.context import Experiment, Unusable
from emo_jax.evaluation import svm
from emo_jax.steps import filling
from emo_jax.steps.networks import load_features
from emo_jax.training import checkpoint

REPO = pathlib.Path(__file__).parents[1]
Ask = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope='module')
def ask(environment: dict[str, str], strict: list[str]) -> Ask:
  """Runs python -m emo_jax.missing."""

  def run(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *strict, '-m', 'emo_jax.missing', *flags]
    return subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False, timeout=600)

  return run


def predicted_rightly(workdir: pathlib.Path, method: str) -> dict[str, bool]:
  """Of each clip, by the run's own predictions."""
  with open(workdir / 'predictions.csv', newline='') as file:
    return {row['clip']: row[method] == row['truth'] for row in csv.DictReader(file)}


def test_what_a_run_is_told_without_halves(unbroken: pathlib.Path, ask: Ask, tmp_path: pathlib.Path) -> None:
  """Its clips have one segment each: who loses a half of that has lost it altogether."""
  x = missing.open_run(str(unbroken))
  before = provenance.looks(x.cache)
  assert [look['judge'] for look in before] == ['test']
  (x.cache / 'looks.jsonl').unlink()
  done = ask(f'--workdir={unbroken}', '--side=test', f'--out={tmp_path}/found.json')
  assert done.returncode == 0, done.stderr
  assert provenance.looks(x.cache) == before  # one more of the run's own
  found = json.loads((tmp_path / 'found.json').read_text())
  assert (found['side'], found['steps'], found['clips'], found['speakers']) == ('test', x.config.missing.steps, 12, 3)
  audio, visual, hybrid = (predicted_rightly(unbroken, method) for method in ('audio', 'visual', 'hybrid'))
  accuracy = lambda right: pytest.approx(np.mean([*right.values()]))
  assert found['complete']['accuracy'] == accuracy(hybrid)
  without = found['without']
  assert without['sound']['leave_out']['accuracy'] == accuracy(visual)
  assert without['picture']['leave_out']['accuracy'] == accuracy(audio)
  heard = missing.taken('third', np.arange(12), [clip.id for clip in x.clips])[:, 0]
  left = {clip.id: (audio if sound else visual)[clip.id] for clip, sound in zip(x.clips, heard, strict=True)}
  assert without['third']['leave_out']['accuracy'] == accuracy(left)
  table = [[cell.strip() for cell in line.split('|')[1:-1]] for line in done.stdout.splitlines()[-8:]]
  assert [row[0].split(' ')[0] for row in table[2:]] == ['features', 'training', 'DBN,', 'DBN,', 'left', 'nothing']
  for row, how in zip(table[2:], missing.HOWS, strict=False):
    for cell, lost in zip(row[1:], missing.LOST, strict=True):
      of = without[lost][how]
      assert cell == '{:.3f} ({:.3f} to {:.3f})'.format(of['accuracy'], *of['interval'])


def test_runs_are_asked_together_and_who_is_not_there_is_not_looked_at(
  unbroken: pathlib.Path, ask: Ask, tmp_path: pathlib.Path
) -> None:
  x, runs = missing.open_run(str(unbroken)), [f'--workdir={unbroken}'] * 2
  done = ask(*runs, '--side=test', '--steps=1', f'--out={tmp_path}/found.json')
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith('Accuracy of 12 test clips of 3 speakers, 2 runs')
  of_one = missing.judge(x, 'test', steps=1)
  found = json.loads((tmp_path / 'found.json').read_text())
  assert found['complete']['accuracy_runs'] == [of_one.complete.mean()] * 2
  assert found['without']['sound']['gibbs']['accuracy_runs'] == [of_one.without['sound', 'gibbs'].mean()] * 2
  done = ask(*runs)
  assert done.returncode == 1 and 'no held clip has sound and face throughout' in done.stderr
  assert [look['judge'] for look in provenance.looks(x.cache)] == ['test']


def longer(x: Experiment) -> Experiment:
  """The experiment as if its 12 clips of one segment were three clips of four."""
  x.segments = dataclasses.replace(x.segments, clip=np.arange(12, dtype=np.int32) // 4)
  return x


def test_each_fold_judges_by_what_it_has_trained(unbroken: pathlib.Path) -> None:
  x = longer(missing.open_run(str(unbroken)))
  x.config = x.config.copy_and_resolve_references()
  x.config.seed = 3  # of what is drawn
  assert len(x.segments.clip) == 12 and {clip.speaker for clip in x.clips[:3]} == {'s01'}
  number = next(number for number, fold in enumerate(x.folds) if fold.test == ('s01',))
  judged = missing.judge(x, 'test', steps=5)
  assert judged.clip == [clip.id for clip in x.clips[:3]] and judged.speaker.tolist() == ['s01'] * 3
  rows, clip, truth = np.arange(12), np.arange(12) // 4, x.truth()[:3]
  joint = np.load(x.made['fusion'][number] / 'joint.npy')
  audio = load_features(x, number, rows, 'audio')

  def right(method: str, features: np.ndarray, of: np.ndarray) -> list[bool]:
    with np.load(x.made[f'decide/{method}'][number] / f'{method}_svm.npz') as machine:
      means = np.array([features[of == clip].mean(0) for clip in range(3)])
      return (svm.scores(dict(machine), means).argmax(1) == truth).tolist()

  assert judged.complete.tolist() == right('hybrid', joint, clip)
  assert judged.without['picture', 'leave_out'].tolist() == right('audio', audio, clip)
  has = missing.taken('third', clip, [clip.id for clip in x.clips])
  whole = has.all(1)
  assert whole.sum() == 9
  assert judged.without['third', 'leave_out'].tolist() == right('hybrid', joint[whole], clip[whole])
  parts = {'audio': audio, 'visual': load_features(x, number, rows, 'visual')}
  fused = filling.load(x, number)
  for array, saved in ((fused.greedy[0], 'rbm0'), (fused.greedy[1], 'rbm1'), (fused.stack, 'dbn')):
    want = checkpoint.read(x.made['fusion'][number] / saved)
    jax.tree.map(np.testing.assert_array_equal, array, want['stack'] if saved == 'dbn' else want)
  for how in filling.HOWS:
    settings = {'how': how, 'steps': 5, 'seed': x.config.seed}
    filled, _ = filling.joint(fused, parts, has, rows, **settings)
    assert judged.without['third', how].tolist() == right('hybrid', filled, clip), how


def test_only_clips_that_have_both_halves_throughout_are_judged(unbroken: pathlib.Path) -> None:
  x = longer(missing.open_run(str(unbroken)))
  has_face = np.ones(12, bool)
  has_face[5] = False
  x.segments = dataclasses.replace(x.segments, has_face=has_face)
  assert missing.judge(x, 'test', steps=1).clip == [x.clips[0].id, x.clips[2].id]
  x.segments = dataclasses.replace(x.segments, has_audio=np.zeros(12, bool))
  with pytest.raises(Unusable, match='no test clip has sound and face throughout'):
    missing.judge(x, 'test', steps=1)


def test_a_damaged_run_gets_a_sentence(unbroken: pathlib.Path, tmp_path: pathlib.Path) -> None:
  x = missing.open_run(str(unbroken))
  x.made['fusion'] = [shutil.copytree(folder, tmp_path / folder.name) for folder in x.made['fusion']]
  shutil.rmtree(x.made['fusion'][2] / 'rbm0')
  with pytest.raises(Unusable, match=r'rbm0 is damaged'):
    missing.judge(x, 'test', steps=1)


def test_a_third_of_each_clips_segments_loses_one_half_by_a_coin() -> None:
  clip = np.repeat([0, 1, 2, 3], [1, 2, 9, 300])
  names = ['a', 'b', 'c', 'd']
  has = missing.taken('third', clip, names)
  assert has.any(1).all()
  assert np.bincount(clip, ~has.all(1)).tolist() == [1, 1, 3, 100]
  assert 30 < (~has[clip == 3, 0]).sum() < 70
  alone = missing.taken('third', clip[clip == 3], names)
  np.testing.assert_array_equal(alone, has[clip == 3])  # its neighbours do not matter
  assert (missing.taken('third', clip[clip == 3], ['a', 'b', 'c', 'other']) != alone).any()
  assert missing.taken('sound', clip, names).tolist() == [[False, True]] * 312
  assert missing.taken('picture', clip, names).tolist() == [[True, False]] * 312


def judged(*complete: bool, names: str = 'abcd') -> missing.Judged:
  right, wrong = np.array(complete), np.zeros(4, bool)
  without = {(lost, how): wrong for lost in missing.LOST for how in missing.HOWS} | {('sound', 'gibbs'): ~right}
  return missing.Judged([*names], np.array(['s', 's', 't', 't']), right, without)


def test_runs_are_averaged_before_speakers_are_resampled() -> None:
  found = missing.compare([judged(True, True, False, False), judged(True, True, True, False)])
  assert found['complete'] == {'accuracy': 0.625, 'accuracy_runs': [0.5, 0.75], 'interval': [0.25, 1.0]}
  assert found['without']['sound']['gibbs']['accuracy'] == 0.375
  assert found['without']['third']['zero'] == {'accuracy': 0, 'accuracy_runs': [0, 0], 'interval': [0, 0]}
  assert (found['clips'], found['speakers']) == (4, 2)
  with pytest.raises(Unusable, match='other clips or another split'):
    missing.compare([judged(True, True, True, True), judged(True, True, True, True, names='abce')])


@pytest.mark.parametrize(
  ('changes', 'made', 'said'),
  [
    ({'fusion': {'kind': 'fc'}}, missing.NEEDED, 'fusion.kind=fc has no DBN'),
    ({'normalise': 'speaker'}, missing.NEEDED, 'normalise=speaker needs a speaker'),
    ({}, ('audio', 'hybrid'), 'nobody was judged as visual: add that to config.methods'),
  ],
)
def test_what_cannot_be_asked_is_said(
  unbroken: pathlib.Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], made: tuple[str, ...], said: str
) -> None:
  x = finished.open_experiment(None, str(unbroken))
  x.config = x.config.copy_and_resolve_references().unlock()
  x.config.update(changes)
  monkeypatch.setattr(finished, 'open_experiment', lambda config, workdir: x)
  monkeypatch.setattr(finished, 'reopen', lambda x: x.made.update({f'decide/{method}': [] for method in made}))
  with pytest.raises(Unusable, match=said):
    missing.open_run(str(unbroken))


@pytest.mark.parametrize(('flags', 'status'), [(['--workdir=/nowhere'], 1), (['--side=test'], 2), (['--steps=0'], 2)])
def test_what_is_no_run_gets_a_sentence(ask: Ask, flags: list[str], status: int) -> None:
  done = ask(*flags)
  assert done.returncode == status and not done.stdout
  assert 'missing: ' in done.stderr and 'Traceback' not in done.stderr


def test_what_stands_for_a_half_is_no_part_of_what_a_run_computes(unbroken: pathlib.Path) -> None:
  """Another `missing` neither claims another work directory nor makes any stage anew."""
  x = finished.open_experiment(None, str(unbroken))
  other = x.config.copy_and_resolve_references()
  other.missing.update({'part': 'zero', 'whole': 'mean', 'steps': 3})
  provenance.claim(unbroken, other.to_dict())
  planned = experiment.plan(experiment.look_over(other, str(unbroken)))
  assert {name for name, *_ in planned} >= {'features', 'fusion', 'decide/hybrid'}
  assert all(there for *_, there in planned)

"""A model folder is what a finished experiment has learnt, as plain data, and nothing else is taken for one."""

import json
import pathlib
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import emo_jax
from emo_jax import export, finished, inference, model
from emo_jax.context import Unusable
from emo_jax.evaluation import calibration, svm
from emo_jax.steps import decide

REPO = pathlib.Path(__file__).parents[1]


@pytest.fixture
def changed(model_folder: pathlib.Path, tmp_path: pathlib.Path) -> Callable[..., pathlib.Path]:
  """(what to do with model.json's content) -> a copy of the model with that done, as if it had been exported so."""

  def change(edit: Callable[[dict], object], *, sealed: bool = True) -> pathlib.Path:
    folder = shutil.copytree(model_folder, tmp_path / 'model')
    facts = json.loads((folder / 'model.json').read_text())
    edit(facts)
    if sealed:
      facts.pop('sha256', None)
      model.write(folder, model.nested(load_file(folder / 'weights.safetensors')), facts, '')
    else:
      (folder / 'model.json').write_text(json.dumps(facts))
    return folder

  return change


def test_a_folder_holds_three_files_and_no_pickle(model_folder: pathlib.Path) -> None:
  assert sorted(path.name for path in model_folder.iterdir()) == ['README.md', 'model.json', 'weights.safetensors']
  for path in model_folder.iterdir():
    with pytest.raises((pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, AttributeError)):
      pickle.loads(path.read_bytes())
  facts = json.loads((model_folder / 'model.json').read_text())
  assert facts['trained_on']['speakers'] == ['s02', 's03']
  assert facts['licences'][-1] == 'the code: Apache 2.0'
  assert str(REPO) not in (model_folder / 'model.json').read_text()


def test_a_model_says_of_a_file_what_its_experiment_knew(
  model_folder: pathlib.Path, unbroken: pathlib.Path, clips: pathlib.Path
) -> None:
  """Every test clip of the fold, from the file anew, against the features and the SVMs of the experiment's stages."""
  loaded = emo_jax.load(model_folder)
  x = finished.open_experiment(None, str(unbroken))
  finished.reopen(x)
  judged = np.flatnonzero(x.sides(x.folds[0]) == 'test')
  assert len(judged)
  results = [loaded.predict(clips / f'{x.clips[clip].id}.mp4') for clip in judged]
  for method in model.METHODS:
    features, of = decide.method_features(x, 0, method)
    with np.load(x.made[f'decide/{method}'][0] / f'{method}_svm.npz') as machine:
      margins = svm.margins(dict(machine), features[np.searchsorted(of, judged)])
    expected = calibration.coupled(margins, **loaded.facts['calibration'][method]['clip'])
    found = [list(result['methods'][method]['probabilities'].values()) for result in results]
    np.testing.assert_allclose(found, expected, atol=2e-4)
    verdicts = [result['methods'][method]['verdict'] for result in results]
    assert verdicts == [x.classes[number] for number in expected.argmax(1)]
  assert {result['by'] for result in results} == {'hybrid'}


def test_arrays_come_back_as_they_went(tmp_path: pathlib.Path) -> None:
  tree = {'a': {'b': np.arange(6, dtype=np.float32).reshape(2, 3).T}, 'stack': [{'w': np.float64(3)}, {'w': np.True_}]}
  save_file(model.flat(tree), tmp_path / 'x.safetensors')
  back = model.nested(load_file(tmp_path / 'x.safetensors'))
  np.testing.assert_array_equal(back['a']['b'], tree['a']['b'])
  assert back['stack']['0']['w'].shape == () and back['stack']['0']['w'] == 3 and back['stack']['1']['w']


def test_the_calibration_is_fitted_to_clips_of_others(unbroken: pathlib.Path) -> None:
  """Those of the folds' strangers, by an oracle that searches a grid."""
  x = finished.open_experiment(None, str(unbroken))
  finished.reopen(x)
  fitted = export.calibrated(x, 'hybrid')
  assert fitted['side'] == ('held' if x.folds[0].held else 'test')
  given, truths = [], []
  for number, fold in enumerate(x.folds):
    features, clips = decide.method_features(x, number, 'hybrid')
    own = np.isin([x.clips[clip].speaker for clip in clips], fold.held or fold.test)
    with np.load(x.made['decide/hybrid'][number] / 'hybrid_svm.npz') as machine:
      given.append(svm.margins(dict(machine), features[own]))
    truths.append(x.truth()[clips[own]])
  margins, truth = np.concatenate(given), np.concatenate(truths)

  def loss(sharpness: float, temperature: float) -> float:
    shares = calibration.coupled(margins, sharpness=sharpness, temperature=temperature)
    likelihood = np.maximum(shares[np.arange(len(truth)), truth], 1e-12)
    return (np.log(sharpness) ** 2 + np.log(temperature) ** 2) / 2 - np.log(likelihood).sum()

  assert fitted['clips'] == len(truth)
  grid = np.geomspace(0.01, 100, 40)
  assert loss(**fitted['clip']) <= min(loss(s, t) for s in grid for t in grid) + 1e-3


def test_the_test_speakers_of_an_exported_fold_have_no_say_in_its_calibration(unbroken: pathlib.Path) -> None:
  """Also where they are held in another fold."""
  x = finished.open_experiment(None, str(unbroken))
  finished.reopen(x)
  of_all, of_fold = (export.facts(x, fold)['calibration']['hybrid'] for fold in (None, 0))
  speaker = [clip.speaker for clip in x.clips]
  assert of_all['clips'] == len(speaker)
  assert of_fold['clips'] == sum(name not in x.folds[0].test for name in speaker) < of_all['clips']
  with pytest.raises(Unusable, match='without --fold'):
    export.calibrated(x, 'audio', apart=speaker)


def test_a_folder_of_other_things_is_left_alone(unbroken: pathlib.Path, tmp_path: pathlib.Path) -> None:
  (tmp_path / 'README.md').write_text('mine')
  with pytest.raises(model.Unfit, match='other things'):
    export.export(str(unbroken), str(tmp_path), fold=0)
  assert (tmp_path / 'README.md').read_text() == 'mine'


def test_a_model_of_all_speakers_has_learnt_from_all(unbroken: pathlib.Path, tmp_path: pathlib.Path) -> None:
  export.export(str(unbroken), str(tmp_path / 'm'))
  facts = json.loads((tmp_path / 'm' / 'model.json').read_text())
  x = finished.open_experiment(None, str(unbroken))
  assert facts['trained_on']['speakers'] == sorted({clip.speaker for clip in x.clips})
  assert facts['trained_on']['fold'] is None
  keys = [json.loads(path.read_text()) for path in (x.cache / 'audio_net').glob('*/key.json')]
  assert max(len(key['clips']) for key in keys) == len(x.clips)
  assert not (unbroken / 'all_speakers' / 'predictions.csv').exists()
  looks = (x.cache / 'looks.jsonl').read_text()
  export.export(str(unbroken), str(tmp_path / 'again'))  # trains nothing, looks at nothing
  assert (x.cache / 'looks.jsonl').read_text() == looks
  first, again = (load_file(tmp_path / name / 'weights.safetensors') for name in ('m', 'again'))
  assert first.keys() == again.keys() and all((first[name] == again[name]).all() for name in first)


@pytest.mark.parametrize(
  ('edit', 'said'),
  [
    (lambda facts: facts.update(format=99), 'format 99'),
    (lambda facts: facts.update(front_end={'audio': 0, 'faces': 0}), 'version'),
    (lambda facts: facts['classes'].append('joy'), 'does not fit together'),
    (lambda facts: facts['config']['audio'].update(width=0.5), 'does not fit together'),
    (lambda facts: facts['config']['fusion'].update(units=[4, 4, 4]), 'no whole model'),
    (lambda facts: facts['config'].pop('visual'), 'no whole model'),
    (lambda facts: facts['calibration']['audio'].update(clip=1.0), 'no whole model'),
    (lambda facts: facts['calibration'].pop('hybrid'), 'no whole model'),
    (lambda facts: facts.pop('format'), 'cannot be read'),
  ],
)
def test_what_is_no_whole_model_is_refused_in_a_sentence(changed, edit, said: str) -> None:
  with pytest.raises(model.Unfit, match=said):
    inference.load(changed(edit))


@pytest.mark.parametrize(
  ('edit', 'said'),
  [
    (lambda facts: facts.pop('sha256'), 'sha256'),
    (lambda facts: facts.update(sha256='0' * 64), 'damaged'),
    (lambda facts: facts['classes'].reverse(), 'not as it was written'),
    (lambda facts: facts['config']['missing'].update(part='mean'), 'not as it was written'),
    (lambda facts: facts.pop('trained_on'), 'not as it was written'),
  ],
)
def test_a_model_json_that_was_changed_is_refused(changed, edit, said: str) -> None:
  with pytest.raises(model.Unfit, match=said):
    inference.load(changed(edit, sealed=False))


@pytest.mark.parametrize('content', [b'', b'[]', b'{', b'\xff\xfe', b'{"format": 1}', b'[' * 100_000])
def test_what_is_no_model_json_is_refused_in_a_sentence(tmp_path: pathlib.Path, content: bytes) -> None:
  (tmp_path / 'model.json').write_bytes(content)
  with pytest.raises(model.Unfit, match=r'model\.json cannot be read'):
    inference.load(tmp_path)


def test_a_folder_without_model_json_is_none(tmp_path: pathlib.Path) -> None:
  with pytest.raises(model.Unfit, match=r'no model folder.*emo_jax\.export'):
    inference.load(tmp_path)


@pytest.mark.parametrize('cut', [0, 7, 100, -1])
def test_weights_that_are_cut_off_are_refused(model_folder: pathlib.Path, tmp_path: pathlib.Path, cut: int) -> None:
  """Even where whoever cut them has mended the digest."""
  folder = shutil.copytree(model_folder, tmp_path / 'model')
  weights = folder / 'weights.safetensors'
  weights.write_bytes(weights.read_bytes()[:cut])
  with pytest.raises(model.Unfit, match='damaged'):
    inference.load(folder)
  facts = json.loads((folder / 'model.json').read_text())
  (folder / 'model.json').write_text(json.dumps({**facts, 'sha256': model._sha256(weights)}))
  with pytest.raises(model.Unfit, match='cannot be read'):
    inference.load(folder)


@pytest.mark.parametrize(
  ('change', 'said'),
  [
    ({'fusion': {'kind': 'fc'}}, 'only a model with a DBN'),
    ({'normalise': 'speaker'}, "all of a speaker's clips"),
  ],
)
def test_what_comes_to_no_model_is_refused(unbroken: pathlib.Path, change: dict, said: str) -> None:
  x = finished.open_experiment(None, str(unbroken))
  finished.reopen(x)
  x.config.unlock().update(change)
  with pytest.raises(Unusable, match=said):
    export.check(x)


def test_a_choice_on_held_speakers_is_no_choice_of_a_model_of_all(unbroken: pathlib.Path) -> None:
  x = finished.open_experiment(None, str(unbroken))
  finished.reopen(x)
  x.config.unlock().update({'svm': {'candidates': (0.1, 1.0)}})
  with pytest.raises(Unusable, match='--fold=K'):
    export.everybody(x)


def test_the_program_says_in_a_sentence_what_it_cannot_do(unbroken, tmp_path, strict, environment) -> None:
  def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *strict, '-m', 'emo_jax.export', *arguments]
    return subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False, timeout=300)

  none = run(f'--workdir={tmp_path}', f'--out={tmp_path}/m')
  assert none.returncode == 1 and none.stderr.startswith('export: ') and 'Traceback' not in none.stderr
  beyond = run(f'--workdir={unbroken}', f'--out={tmp_path}/m', '--fold=7')
  assert beyond.returncode == 1 and 'folds 0 to 2' in beyond.stderr
  done = run(f'--workdir={unbroken}', f'--out={tmp_path}/m', '--fold=1')
  assert done.returncode == 0, done.stderr
  assert emo_jax.load(tmp_path / 'm').facts['trained_on']['fold'] == 1

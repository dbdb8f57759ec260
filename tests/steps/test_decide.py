"""The decide step on made features of five speakers, and what the report's files say of it."""

import csv
import json
import pathlib
from typing import Any

import numpy as np
import pytest
from sklearn.svm import SVC

from configs import default
from emo_jax import provenance
from emo_jax.context import Experiment
from emo_jax.corpora.clip import Clip, classes
from emo_jax.evaluation import folds, splits
from emo_jax.frontend.segments import Segments
from emo_jax.report import pictures, report
from emo_jax.steps import decide

METHODS = ('audio', 'visual', 'concat', 'hybrid')
EMOTIONS = ('anger', 'fear', 'joy')
CANDIDATES = (0.003, 0.1, 10)
PER_SPEAKER, WIDTH = 6, 4


def made(folder: pathlib.Path, *, spoil: Any = None, turn: Any = None, **config: Any) -> Experiment:
  """An experiment whose networks and DBN are done: two segments a clip, features that hold a little of the emotion.

  Args:
    folder: its work directory; a new one for each.
    spoil: (clip) -> bool, whose features are other ones.
    turn: (clip) -> bool, whose emotions are other ones; the features stay.
    config: fields, as data__held=1.
  """
  settings = default.get_config()
  settings.update_from_flattened_dict({name.replace('__', '.'): value for name, value in config.items()})
  path, clips, known = pathlib.Path('a.mp4'), [], []
  for speaker in ('s1', 's2', 's3', 's4', 's5'):
    for take in range(PER_SPEAKER):
      known.append(take % 3)
      bare = Clip(f'{speaker}_{take}', picture=path, sound=path, speaker=speaker, emotion='', corpus='made')
      told = EMOTIONS[(known[-1] + bool(turn and turn(bare))) % 3]
      clips.append(Clip(**{**vars(bare), 'emotion': told}))
  of_clip = np.repeat(np.arange(len(clips)), 2)
  rng = np.random.default_rng(0)
  others = np.random.default_rng(1)
  rows = np.arange(len(of_clip))
  clips, split, said = splits.deal(clips, settings.data)
  x = Experiment(settings, folder, folder / 'stages', clips, classes(clips), split, split=said)
  x.segments = Segments(
    of_clip.astype(np.int32), rows, rows[:, None], np.ones(len(rows), bool), np.ones(len(rows), bool)
  )
  x.records = [{'audio': 'a', 'faces': 'f', 'reason': ''}] * len(clips)
  for number in range(len(split)):
    for stage in ('features', 'fusion'):
      x.made.setdefault(stage, []).append(folder / stage / str(number))
      x.made[stage][number].mkdir(parents=True)
    logits = np.random.default_rng(2 + number)
    for name in ('audio', 'visual'):
      drawn = (np.eye(3)[np.array(known)[of_clip]] + logits.normal(0, 1.0, (len(rows), 3))).astype(np.float32)
      np.save(x.made['features'][number] / f'{name}_logits.npy', drawn)
    for name in ('audio', 'visual', 'hybrid'):
      signal = np.eye(3, WIDTH)[np.array(known)[of_clip]]
      features = (signal + rng.normal(0, 1.0, (len(rows), WIDTH))).astype(np.float32)
      noise = others.normal(5, 9, features.shape).astype(np.float32)
      spoilt = np.array([bool(spoil and spoil(clips[clip])) for clip in of_clip])[:, None]
      array, where = np.where(spoilt, noise, features), x.made['fusion' if name == 'hybrid' else 'features'][number]
      np.save(where / ('joint.npy' if name == 'hybrid' else f'{name}_features.npy'), array)
      np.save(where / ('rows.npy' if name == 'hybrid' else f'{name}_rows.npy'), rows)
  return x


def decided(folder: pathlib.Path, **changes: Any) -> Experiment:
  x = made(folder, **changes)
  decide.decide(x)
  return x


def arrays(x: Experiment, what: str) -> dict[tuple[int, str], dict[str, np.ndarray]]:
  """Of each fold and method: the saved arrays, 'svm', or the scores of 'test' or 'held' clips."""
  found = {}
  for method in x.config.methods:
    for number, folder in enumerate(x.made[f'decide/{method}']):
      with np.load(folder / f'{method}_{what}.npz', allow_pickle=False) as file:
        found[number, method] = dict(file)
  return found


def seen(x: Experiment, number: int, method: str) -> np.ndarray:
  """[clips, F'] what a method's SVM should see, by a loop."""
  load = lambda stage, name: np.load(x.made[stage][number] / f'{name}.npy').astype(float)
  if method == 'hybrid':
    features = load('fusion', 'joint')
  else:
    names = ('audio', 'visual') if method == 'concat' else (method,)
    features = np.hstack([load('features', f'{name}_features') for name in names])
  pairs = features.reshape(len(x.clips), 2, -1)
  pooled = {'mean': pairs.mean(1), 'max': pairs.max(1)}[x.config.pool]
  if x.config.normalise == 'speaker':
    for first in range(0, len(x.clips), PER_SPEAKER):
      own = pooled[first : first + PER_SPEAKER]
      pooled[first : first + PER_SPEAKER] = (own - own.mean(0)) / own.std(0)
  return pooled


def verdicts(x: Experiment, number: int, method: str, c: float, side: str) -> tuple[np.ndarray, np.ndarray]:
  """scikit-learn's verdicts on a side's clips, and the truth."""
  features, labels = seen(x, number, method), np.array([x.classes.index(clip.emotion) for clip in x.clips])
  rows = lambda side: np.array([clip.speaker in getattr(x.folds[number], side) for clip in x.clips])
  train = features[rows('train')]
  scale = lambda values: (values - train.min(0)) / np.ptp(train, axis=0)
  machine = SVC(kernel='linear', C=c, break_ties=True).fit(scale(train), labels[rows('train')])
  return machine.predict(scale(features[rows(side)])), labels[rows(side)]


@pytest.mark.parametrize('judge', ['test', 'held'])
@pytest.mark.parametrize('normalise', ['none', 'speaker'])
def test_verdicts_are_scikit_learns_on_pooled_and_normalised_features(
  tmp_path: pathlib.Path, normalise: str, judge: str
) -> None:
  x = decided(tmp_path, pool='max', normalise=normalise, svm__c=0.5, data__judge=judge)
  for (number, method), saved in arrays(x, judge).items():
    np.testing.assert_array_equal(saved['scores'].argmax(1), verdicts(x, number, method, 0.5, judge)[0])
    assert {x.clips[clip].speaker for clip in saved['clip']} == set(getattr(x.folds[number], judge))
  assert {float(saved['c']) for saved in arrays(x, 'svm').values()} == {0.5}


def test_each_fold_and_method_gets_the_smallest_penalty_that_is_best_on_its_held_clips(tmp_path: pathlib.Path) -> None:
  x = decided(tmp_path, svm__candidates=CANDIDATES)
  chosen = {}
  for (number, method), saved in arrays(x, 'svm').items():
    accuracy = {c: np.mean(np.equal(*verdicts(x, number, method, c, 'held'))) for c in CANDIDATES}
    chosen[number, method] = min(c for c in CANDIDATES if accuracy[c] == max(accuracy.values()))
    assert saved['c'] == chosen[number, method], accuracy
    scores = arrays(x, 'test')[number, method]['scores']
    np.testing.assert_array_equal(scores.argmax(1), verdicts(x, number, method, chosen[number, method], 'test')[0])
  assert len(set(chosen.values())) > 1  # or there was nothing to choose
  for method in METHODS:
    of_folds = report.judge_method(x, report.load_scores(x, 'test'), method)['per_fold']
    assert [fold['c'] for fold in of_folds] == [chosen[number, method] for number in range(len(x.folds))]


@pytest.mark.parametrize('normalise', ['none', 'speaker'])
def test_nothing_of_the_test_clips_reaches_a_machine_or_its_penalty(tmp_path: pathlib.Path, normalise: str) -> None:
  """Under LOSO each speaker is tested once: in that fold, noise for features and turned labels change no byte."""
  settings: dict[str, Any] = {'svm__candidates': CANDIDATES, 'normalise': normalise}
  honest = arrays(decided(tmp_path / 'honest', **settings), 'svm')
  of_others = 0
  for speaker in ('s1', 's4'):
    its = lambda clip, speaker=speaker: clip.speaker == speaker
    x = decided(tmp_path / speaker, spoil=its, turn=its, **settings)
    spoilt = arrays(x, 'svm')
    for (number, method), machine in spoilt.items():
      same = {name: machine[name].tobytes() for name in machine} == {
        name: array.tobytes() for name, array in honest[number, method].items()
      }
      if x.folds[number].test == (speaker,):
        assert same, (number, method)
      else:
        of_others += not same
  assert of_others > 10  # where that speaker is held or trains


def test_clips_are_judged_one_by_one_unless_they_are_normalised_together(tmp_path: pathlib.Path) -> None:
  one = lambda clip: clip.id == 's3_0'
  for normalise in ('none', 'speaker'):
    honest = arrays(decided(tmp_path / normalise / 'honest', normalise=normalise), 'test')
    x = decided(tmp_path / normalise / 'spoilt', normalise=normalise, spoil=one)
    number = [fold.test for fold in x.folds].index(('s3',))
    for method in METHODS:
      before, after = (scores[number, method]['scores'] for scores in (honest, arrays(x, 'test')))
      changed = (before != after).any(1)
      assert changed.tolist() == [True] + [normalise == 'speaker'] * (PER_SPEAKER - 1), method


def test_labels_of_the_judged_never_matter(tmp_path: pathlib.Path) -> None:
  settings: dict[str, Any] = {'normalise': 'speaker', 'svm__candidates': CANDIDATES}
  honest = decided(tmp_path / 'honest', **settings)
  x = decided(tmp_path / 'turned', turn=lambda clip: clip.speaker == 's2', **settings)
  number = [fold.test for fold in x.folds].index(('s2',))
  for method in METHODS:
    want, got = (arrays(run, 'test')[number, method]['scores'] for run in (honest, x))
    np.testing.assert_array_equal(got, want)


def test_a_folder_is_named_by_all_that_its_content_depends_on(tmp_path: pathlib.Path) -> None:
  x = decided(tmp_path)
  name = lambda: x.made['decide/audio'][0].name
  names = {name()}
  changes = ('pool', 'max'), ('normalise', 'speaker'), ('svm.c', 2.0), ('svm.candidates', (1.0, 2.0)), ('seed', 3)
  for field, value in changes:
    x.config.update_from_flattened_dict({field: value})
    decide.decide(x)
    names.add(name())
  assert len(names) == len(changes)  # the seed has done its work in the stages above
  x.made['fusion'] = [folder.rename(folder.with_name(f'other{folder.name}')) for folder in x.made['fusion']]
  before = x.made['decide/hybrid'][0].name
  decide.decide(x)
  assert name() in names and x.made['decide/hybrid'][0].name != before  # another DBN is nothing to the sound
  x.clips[0] = Clip(**{**vars(x.clips[0]), 'speaker': 's1b'})  # alone now, whatever the fold
  decide.decide(x)
  assert name() not in names


def softmaxes(x: Experiment, number: int, modality: str) -> np.ndarray:
  """[clips, C] a network's mean softmax over each clip's two segments, by a loop."""
  means = []
  for first, second in np.load(x.made['features'][number] / f'{modality}_logits.npy').reshape(-1, 2, 3).astype(float):
    shares = [np.exp(logits) / np.exp(logits).sum() for logits in (first, second)]
    means.append((shares[0] + shares[1]) / 2)
  return np.array(means)


def side_clips(x: Experiment, number: int, side: str) -> list[int]:
  return [index for index, clip in enumerate(x.clips) if clip.speaker in getattr(x.folds[number], side)]


OF_SOFTMAX = {
  'audio_softmax': lambda sound, face: sound,
  'visual_softmax': lambda sound, face: face,
  'max': lambda sound, face: np.where(sound > face, sound, face),
  'min': lambda sound, face: np.where(sound > face, face, sound),
  'mean': lambda sound, face: 0.5 * sound + 0.5 * face,
  'product': lambda sound, face: sound * face,
}


@pytest.mark.parametrize('side', ['test', 'held'])
def test_decision_level_scores_are_log_probabilities_by_the_rule(tmp_path: pathlib.Path, side: str) -> None:
  x = decided(tmp_path, methods=tuple(OF_SOFTMAX))
  for (number, method), saved in arrays(x, side).items():
    wanted = OF_SOFTMAX[method](*(softmaxes(x, number, modality) for modality in ('audio', 'visual')))
    wanted /= wanted.sum(1, keepdims=True)
    assert saved['clip'].tolist() == side_clips(x, number, side)
    np.testing.assert_allclose(np.exp(saved['scores']), wanted[saved['clip']], rtol=1e-5)


def test_held_speakers_alone_are_scored_while_choosing(tmp_path: pathlib.Path) -> None:
  x = decided(tmp_path, data__judge='held', methods=('audio', 'mean'))
  for folder in (folder for method in ('audio', 'mean') for folder in x.made[f'decide/{method}']):
    assert not list(folder.glob('*_test.npz')) and list(folder.glob('*_held.npz'))


def test_a_majority_counts_every_segment_of_both_and_ties_go_to_the_surer(tmp_path: pathlib.Path) -> None:
  x = decided(tmp_path, methods=('majority',))
  ties = 0
  for (number, _), saved in arrays(x, 'test').items():
    logits = [np.load(x.made['features'][number] / f'{m}_logits.npy').reshape(-1, 2, 3) for m in ('audio', 'visual')]
    sure = (softmaxes(x, number, 'audio') + softmaxes(x, number, 'visual')) / 2
    for clip, scores in zip(saved['clip'], saved['scores'], strict=True):
      votes = np.bincount([segment.argmax() for half in logits for segment in half[clip]], minlength=3)
      most = np.flatnonzero(votes == votes.max())
      ties += len(most) > 1
      assert scores.argmax() == most[sure[clip][most].argmax()]
      np.testing.assert_array_equal(np.floor(scores + 1e-6), votes)
  assert ties


def test_the_score_levels_weight_is_the_one_that_is_best_on_held_clips(tmp_path: pathlib.Path) -> None:
  candidates = (0.0, 0.25, 0.5, 0.75, 1.0)
  x = decided(tmp_path, methods=('score',), score__candidates=candidates)
  chosen = []
  for number, folder in enumerate(x.made['decide/score']):
    sound, face = (softmaxes(x, number, modality) for modality in ('audio', 'visual'))
    held = side_clips(x, number, 'held')
    right = lambda w: np.mean((w * sound + (1 - w) * face)[held].argmax(1) == x.truth()[held])  # noqa: B023
    best = [w for w in candidates if right(w) == max(map(right, candidates))]
    chosen.append(float(np.load(folder / 'weight.npz')['sound']))
    assert chosen[-1] == min(best, key=lambda w: abs(w - 0.5))
    with np.load(folder / 'score_test.npz') as file:
      wanted = (chosen[-1] * sound + (1 - chosen[-1]) * face)[file['clip']]
      np.testing.assert_allclose(np.exp(file['scores']), wanted, rtol=1e-5, atol=1e-12)
  assert len(set(chosen)) > 1  # or there was nothing to choose
  fixed = decided(tmp_path / 'fixed', methods=('score', 'mean'), score__sound=0.5)
  for number in range(len(x.folds)):
    mean, score = (arrays(fixed, 'test')[number, method]['scores'] for method in ('mean', 'score'))
    np.testing.assert_allclose(score, mean)


def test_speaker_normalisation_takes_a_speakers_bias_out_of_verdicts(tmp_path: pathlib.Path) -> None:
  x = made(tmp_path, methods=('audio_softmax', 'mean', 'majority'), normalise='speaker')
  for folder in x.made['features']:  # the first speaker's sound says anger whatever it is
    path = folder / 'audio_logits.npy'
    logits = np.load(path)
    logits[: 2 * PER_SPEAKER, 0] += 20
    np.save(path, logits)
  decide.decide(x)
  number = [fold.test for fold in x.folds].index(('s1',))
  for method in x.config.methods:
    assert len(set(arrays(x, 'test')[number, method]['scores'].argmax(1))) == 3, method


def test_a_fusion_network_of_whole_clips_is_judged_by_its_own_softmax(tmp_path: pathlib.Path) -> None:
  x = made(tmp_path, methods=('hybrid',), fusion__kind='mlp')
  rng = np.random.default_rng(3)
  for folder in x.made['fusion']:
    np.save(folder / 'clips.npy', np.arange(len(x.clips)))
    np.save(folder / 'logits.npy', rng.normal(size=(len(x.clips), 3)).astype(np.float32))
  decide.decide(x)
  for (number, _), saved in arrays(x, 'test').items():
    logits = np.load(x.made['fusion'][number] / 'logits.npy')[saved['clip']]
    np.testing.assert_allclose(np.exp(saved['scores']), np.exp(logits) / np.exp(logits).sum(1)[:, None], rtol=1e-5)


def test_hand_crafted_features_are_judged_where_their_halves_are(tmp_path: pathlib.Path) -> None:
  x = made(tmp_path, methods=('sound_features', 'face_features', 'handcrafted'))
  folder = tmp_path / 'handcrafted'
  folder.mkdir()
  x.made['handcrafted'] = [folder]
  features = {half: np.eye(3, width)[x.truth()].astype(np.float32) for half, width in (('sound', 5), ('face', 4))}
  features['face'][7] = np.nan  # a half clip, of s2
  for half, array in features.items():
    np.save(folder / f'{half}.npy', array)
  decide.decide(x)
  number = [fold.test for fold in x.folds].index(('s2',))
  for method, clips, width in (('sound_features', 6, 5), ('face_features', 5, 4), ('handcrafted', 5, 9)):
    saved = arrays(x, 'test')[number, method]
    assert len(saved['clip']) == clips and (7 in saved['clip']) == (clips == 6)
    np.testing.assert_array_equal(saved['scores'].argmax(1), x.truth()[saved['clip']])
    assert len(arrays(x, 'svm')[number, method]['low']) == width
  both = arrays(x, 'svm')[number, 'handcrafted']  # a half with fewer features counts no less
  spans = 1 / np.square(both['spread'])  # of indicators, which go from 0 to 1
  np.testing.assert_allclose(spans[:5].mean() * 5, spans[5:].mean() * 4, rtol=1e-5)


def test_a_plan_names_the_very_folders_and_makes_none(tmp_path: pathlib.Path) -> None:
  x = made(tmp_path)
  x.planning = True
  decide.decide(x)
  planned = {name: folders for name, folders in x.made.items() if name.startswith('decide')}
  assert not any(folder.exists() for folders in planned.values() for folder in folders)
  assert not (x.cache / 'looks.jsonl').exists()
  x.planning = False
  decide.decide(x)
  assert {name: x.made[name] for name in planned} == planned
  assert all(folder.exists() for folders in planned.values() for folder in folders)


def test_a_speaker_on_two_sides_is_normalised_on_each_side_alone(tmp_path: pathlib.Path) -> None:
  """Leaks allowed: the clips' own split deals s1's first clips to training, the others to test."""
  x = made(tmp_path, normalise='speaker')
  x.config.data.rule = 'fixed'
  x.folds = [folds.Fold(train=('s1', 's2', 's3'), held=('s4',), test=('s1', 's5'))]
  ends = {'s1': 'test', 's2': 'train', 's3': 'train', 's4': 'held', 's5': 'test'}
  x.clips = [
    Clip(**{**vars(clip), 'split': 'train' if clip.id in ('s1_0', 's1_1', 's1_2') else ends[clip.speaker]})
    for clip in x.clips
  ]
  features, clips = decide.method_features(x, 0, 'audio')
  assert clips.tolist() == list(range(len(x.clips)))
  for part in (slice(0, 3), slice(3, 6), slice(6, 12)):
    np.testing.assert_allclose(features[part].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(features[part].std(0), 1, atol=1e-5)


@pytest.mark.parametrize('leaks', [False, True])
@pytest.mark.parametrize(('normalise', 'protocol'), [('none', 'inductive'), ('speaker', 'transductive')])
def test_every_file_and_table_names_the_protocol(
  tmp_path: pathlib.Path,
  capsys: pytest.CaptureFixture[str],
  monkeypatch: pytest.MonkeyPatch,
  normalise: str,
  protocol: str,
  leaks: bool,
) -> None:
  titles = []
  monkeypatch.setattr(pictures, 'confusion', lambda path, table, names, *, title: titles.append(title))
  monkeypatch.setattr(pictures, 'faces', lambda *arguments: None)  # no result
  x = decided(tmp_path, normalise=normalise, svm__candidates=CANDIDATES, data__allow_leaks=leaks)
  provenance.note(tmp_path, event='start')
  capsys.readouterr()
  report.write(x)
  result = json.loads((tmp_path / 'report.json').read_text())
  assert result['protocol'] == protocol and result['svm_candidates'] == list(CANDIDATES)
  assert result['leaks_allowed'] == x.split['leaks_allowed'] == leaks
  stands = f'{protocol}, NOT speaker-independent' if leaks else protocol
  assert titles == [f'{method}, {stands}' for method in METHODS]
  with open(tmp_path / 'predictions.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert list(rows[0])[:6] == ['fold', 'clip', 'speaker', 'truth', 'protocol', 'audio']
  assert len(rows) == len(x.clips) and {row['protocol'] for row in rows} == {stands}
  assert capsys.readouterr().out.splitlines()[0].endswith(f', {stands}')
  text = (tmp_path / 'report.md').read_text()
  assert text.splitlines()[0].endswith(f', {stands}') and 'must not be ranked together' in text

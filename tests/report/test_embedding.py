"""What features know: neighbours and silhouettes by slow oracles, and pictures that keep blobs apart."""

import pathlib
from collections import Counter
from typing import Any

import numpy as np
import pytest

from configs import default
from emo_jax.context import Experiment
from emo_jax.corpora.clip import Clip, classes
from emo_jax.evaluation import splits
from emo_jax.frontend.segments import Segments
from emo_jax.report import embedding

EMOTIONS = ('anger', 'fear', 'joy')
SPEAKERS = ('s1', 's2', 's3', 's4')


def blobs(label: np.ndarray, rng: np.random.Generator, *, width: int = 12, apart: float = 3.0) -> np.ndarray:
  """[n, width] around a centre for each label."""
  centres = apart * rng.normal(size=(label.max() + 1, width))
  return centres[label] + 0.3 * rng.normal(size=(len(label), width))


def slow_vote(
  features: np.ndarray, label: np.ndarray, speaker: np.ndarray, asked: np.ndarray, *, others: bool
) -> float:
  right = []
  for i in np.flatnonzero(asked):
    allowed = [j for j in range(len(label)) if j != i and not (others and speaker[j] == speaker[i])]
    nearest = sorted(allowed, key=lambda j: np.sqrt(np.sum((features[i] - features[j]) ** 2)))[:5]
    votes = Counter(label[j] for j in nearest)
    most = [name for name, count in votes.items() if count == max(votes.values())]
    right.append(next(label[j] for j in nearest if label[j] in most) == label[i])
  return float(np.mean(right))


def slow_silhouette(features: np.ndarray, label: np.ndarray, asked: np.ndarray) -> float:
  """Rousseeuw 1987."""
  values = []
  for i in np.flatnonzero(asked):
    away = np.linalg.norm(features - features[i], axis=1)
    own = (label == label[i]) & (np.arange(len(label)) != i)
    a, b = away[own].mean(), min(away[label == other].mean() for other in set(label) - {label[i]})
    values.append((b - a) / max(a, b))
  return float(np.mean(values))


@pytest.mark.parametrize('apart', [0.0, 0.12, 0.4])
def test_neighbours_and_silhouettes_are_those_of_slow_loops(apart: float) -> None:
  rng = np.random.default_rng(5)
  emotion, speaker = np.arange(60) % 3, np.arange(60) // 15
  features = blobs(emotion, rng, apart=apart) + blobs(speaker, rng, apart=apart / 2)
  names, speakers = np.array(EMOTIONS)[emotion], np.array(SPEAKERS)[speaker]
  asked = speaker >= 2
  found = embedding.knows(features, names, speakers, asked=asked)
  for what, label, others in (('emotion', names, True), ('speaker', speakers, False)):
    assert found['neighbours'][what] == pytest.approx(slow_vote(features, label, speakers, asked, others=others))
    assert found['silhouette'][what] == pytest.approx(slow_silhouette(features, label, asked))
  assert found['chance'] == {'emotion': pytest.approx(1 / 3), 'speaker': pytest.approx(14 / 59)}


def test_of_as_many_votes_the_nearer_ones_hold() -> None:
  """Two b, then two a and a c; and for the second clip the nearest of all is outvoted."""
  label = np.array(['b', 'b', 'b', 'a', 'a', 'c', 'a'])
  distance = np.zeros((7, 7))
  distance[0] = [0, 1, 2, 3, 4, 5, 9]
  distance[1] = [1, 0, 9, 3, 4, 5, 2.5]
  only = lambda clip: np.arange(7) == clip
  itself = np.eye(7, dtype=bool)
  assert embedding.voted(distance, label, only(0), itself)[0] == 1
  assert embedding.voted(distance, label, only(1), itself)[0] == 0


def test_where_nothing_can_be_asked_there_is_no_number() -> None:
  features, nobody = np.random.default_rng(0).normal(size=(6, 3)), np.zeros(6, bool)
  one, each = np.array(['x'] * 6), np.array(list('abcdef'))
  assert embedding.knows(features, one, each, asked=~nobody)['silhouette'] == {'emotion': None, 'speaker': None}
  found = embedding.knows(features, each, one, asked=~nobody)  # a single speaker: nobody else's clips
  assert found['neighbours'] == {'emotion': None, 'speaker': 1.0} and found['chance']['emotion'] is None
  for values in embedding.knows(features, each, each, asked=nobody).values():
    assert values == {'emotion': None, 'speaker': None}


def test_the_picture_keeps_blobs_apart_and_is_the_same_each_time() -> None:
  label = np.arange(60) % 4
  features = blobs(label, np.random.default_rng(1))
  points = embedding.picture(features)
  assert points.shape == (60, 2) and np.isfinite(points).all()
  assert np.array_equal(points, embedding.picture(features))
  away = np.linalg.norm(points[:, None] - points[None], axis=2) + np.diag(np.full(60, np.inf))
  assert np.array_equal(label[away.argmin(1)], label)


@pytest.mark.parametrize('count', [3, 5])
def test_few_clips_have_a_picture_too(count: int) -> None:
  assert np.isfinite(embedding.picture(np.random.default_rng(0).normal(size=(count, 4)))).all()


def test_a_dead_network_has_its_clips_in_one_place() -> None:
  assert np.array_equal(embedding.picture(np.full((9, 4), 0.5)), np.zeros((9, 2)))


def made(folder: pathlib.Path, *, joint: bool, judge: str = 'test') -> tuple[Experiment, dict[str, np.ndarray]]:
  """48 clips of two segments: sound that tells speakers apart, faces that tell emotions apart; the last has no face.

  Returns:
    the experiment, and the features of the clips before they were spread over their segments.
  """
  config = default.get_config()
  config.data.judge = judge
  path = pathlib.Path('a.mp4')
  clips = [
    Clip(f'{speaker}_{take}', picture=path, sound=path, speaker=speaker, emotion=EMOTIONS[take % 3], corpus='made')
    for speaker in SPEAKERS
    for take in range(12)
  ]
  clips, folds, said = splits.deal(clips, config.data)
  x = Experiment(config, folder, folder, clips, classes(clips), folds, split=said)
  of_clip, rows = np.repeat(np.arange(48), 2), np.arange(96)
  has_face = rows < 94
  x.segments = Segments(of_clip, rows, rows[:, None], np.ones(96, bool), has_face)
  rng = np.random.default_rng(3)
  speaker, emotion = np.arange(48) // 12, np.arange(48) % 3
  features = {'audio': blobs(speaker, rng), 'visual': blobs(emotion, rng), 'hybrid': blobs(emotion, rng, width=4)}
  features['audio'][:, 0] *= 1000  # nothing to a scaled distance
  for name in ('features', 'fusion'):
    x.made[name] = [folder / name / str(number) for number in range(len(folds))]
    for of_fold in x.made[name]:
      of_fold.mkdir(parents=True)
  spread = lambda part: np.repeat(part, 2, axis=0) + np.tile([[1.0], [-1.0]], (48, 1))
  for name in ('audio', 'visual'):
    own = rows if name == 'audio' else rows[has_face]
    np.save(x.made['features'][1] / f'{name}_rows.npy', own)
    np.save(x.made['features'][1] / f'{name}_features.npy', spread(features[name])[own])
  if joint:
    np.save(x.made['fusion'][1] / 'rows.npy', rows[has_face])
    np.save(x.made['fusion'][1] / 'joint.npy', spread(features['hybrid'])[has_face])
  return x, features


@pytest.mark.parametrize('joint', [True, False])
def test_every_clip_with_both_halves_is_described(tmp_path: pathlib.Path, joint: bool) -> None:
  x, _ = made(tmp_path, joint=joint)
  found = embedding.of(x, 1)
  assert found is not None and set(found) - {'clips', 'side', 'emotion', 'speaker'} == {
    'audio', 'visual', 'concat', *(['hybrid'] if joint else [])
  }  # fmt: skip
  assert found['clips'] == [clip.id for clip in x.clips[:47]]
  assert found['emotion'] == [clip.emotion for clip in x.clips[:47]]
  assert found['speaker'] == [clip.speaker for clip in x.clips[:47]]
  assert found['side'] == x.sides(x.folds[1])[:47].tolist() and set(found['side']) == {'train', 'held', 'test'}
  assert all(found[kind]['points'].shape == (47, 2) for kind in found if isinstance(found[kind], dict))
  assert found['audio']['neighbours']['speaker'] == 1 and found['audio']['neighbours']['emotion'] < 0.7
  assert found['visual']['neighbours']['emotion'] == 1 and found['visual']['neighbours']['speaker'] < 0.7
  assert found['audio']['silhouette']['speaker'] > 0.5 > 0.1 > found['audio']['silhouette']['emotion']


def test_features_are_scaled_by_the_training_clips(tmp_path: pathlib.Path) -> None:
  x, features = made(tmp_path, joint=False)
  found = embedding.of(x, 1)
  assert found is not None
  train, test = (x.sides(x.folds[1])[:47] == side for side in ('train', 'test'))
  both = np.concatenate([features['audio'], features['visual']], axis=1)[:47]
  low, high = both[train].min(0), both[train].max(0)
  scaled = (both - low) / (high - low)
  speaker = np.array(found['speaker'])
  for what in ('emotion', 'speaker'):
    want = slow_silhouette(scaled, np.array(found[what]), test)
    assert found['concat']['silhouette'][what] == pytest.approx(want, abs=1e-5)
  want = slow_vote(scaled, np.array(found['emotion']), speaker, test, others=True)
  assert found['concat']['neighbours']['emotion'] == want


def test_while_choosing_on_held_clips_nobody_looks_at_test_clips(tmp_path: pathlib.Path) -> None:
  x, features = made(tmp_path, joint=True, judge='held')
  found = embedding.of(x, 1)
  assert found is not None and set(found['side']) == {'train', 'held'}
  seen = x.sides(x.folds[1])[:47] != 'test'
  assert found['clips'] == [clip.id for clip, shown in zip(x.clips, seen, strict=False) if shown]
  own = features['hybrid'][:47][seen]
  train, held = (np.array(found['side']) == side for side in ('train', 'held'))
  low, high = own[train].min(0), own[train].max(0)
  want = slow_silhouette((own - low) / (high - low), np.array(found['speaker']), held)
  assert found['hybrid']['silhouette']['speaker'] == pytest.approx(want, abs=1e-5)


def test_of_very_many_clips_some_are_shown(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  x, _ = made(tmp_path, joint=False)
  monkeypatch.setattr(embedding, 'CLIPS', 20)
  found: Any = embedding.of(x, 1)
  assert len(set(found['clips'])) == 20 == len(found['audio']['points'])
  emotions = {clip.id: clip.emotion for clip in x.clips}
  assert found['emotion'] == [emotions[name] for name in found['clips']]
  again: Any = embedding.of(x, 1)
  assert again['clips'] == found['clips']


def test_without_networks_there_is_none(tmp_path: pathlib.Path) -> None:
  x, _ = made(tmp_path, joint=False)
  del x.made['features']
  assert embedding.of(x, 1) is None

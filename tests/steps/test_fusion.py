"""The fusion step on made features of four speakers: what each kind learns from, leaves behind and is named by."""

import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from scipy.special import log_softmax

from configs import default
from emo_jax.context import Experiment
from emo_jax.corpora.clip import Clip, classes
from emo_jax.evaluation import splits
from emo_jax.frontend.segments import Segments
from emo_jax.steps import fusion, heads
from emo_jax.training import checkpoint
from emo_jax.training.metrics import Metrics

EMOTIONS = ('anger', 'fear', 'joy')
SPEAKERS, PER_SPEAKER = ('s1', 's2', 's3', 's4'), 6
SOUND, FACE = 4, 3
SMALL = {
  'units': (6, 4),
  'rbm': {'epochs': 2, 'batch': 20, 'average_epochs': 1},
  'finetune': {'epochs': 2, 'batch': 10},
  'head': {'width': 8, 'blocks': 1, 'heads': 2, 'batch': 6, 'epochs': 2},
}
OF_CLIPS = ('mlp', 'attention', 'encoding')
Spoil = Callable[[Clip], bool]


def made(folder: pathlib.Path, *, spoil: Spoil = lambda clip: False, **config: Any) -> Experiment:
  """An experiment whose features are there: 1 to 3 segments a clip, and a last clip without a face.

  Args:
    folder: its work directory.
    spoil: whose features, emotions and numbers of segments are other ones.
    config: fields of config.fusion, as head__epochs=3.
  """
  settings = default.get_config()
  settings.fusion.update(SMALL)
  settings.update_from_flattened_dict({f'fusion.{name.replace("__", ".")}': of for name, of in config.items()})
  path, clips, counts, known = pathlib.Path('a.mp4'), [], [], []
  for number, name in enumerate(f'{speaker}_{take}' for speaker in SPEAKERS for take in range(PER_SPEAKER)):
    known.append(number % 3)
    clip = Clip(name, picture=path, sound=path, speaker=name[:2], emotion=EMOTIONS[number % 3], corpus='made')
    counts.append(1 + number % 3 + 2 * spoil(clip))
    clips.append(Clip(**{**vars(clip), 'emotion': EMOTIONS[(number + spoil(clip)) % 3]}))
  of_clip = np.repeat(np.arange(len(clips)), counts)
  rows, faces = np.arange(len(of_clip)), of_clip < len(clips) - 1
  clips, folds, said = splits.deal(clips, settings.data)
  folds = [folds[0], folds[2]]  # each speaker is tested or held in one of them, and trains in the other
  x = Experiment(settings, folder, folder / 'stages', clips, classes(clips), folds, split=said)
  x.segments = Segments(of_clip.astype(np.int32), rows, rows[:, None], np.ones(len(rows), bool), faces)
  for number in range(len(folds)):
    where = folder / 'features' / str(number)
    where.mkdir(parents=True)
    x.made.setdefault('features', []).append(where)
    for name, size, own in (('audio', SOUND, rows), ('visual', FACE, rows[faces])):
      features = np.concatenate([_features(clips[clip], known[clip], counts[clip], size, spoil) for clip in range(24)])
      np.save(where / f'{name}_features.npy', features[own])
      np.save(where / f'{name}_rows.npy', own)
  return x


def _features(clip: Clip, known: int, count: int, size: int, spoil: Spoil) -> np.ndarray:
  rng = np.random.default_rng([ord(letter) for letter in clip.id])
  if spoil(clip):
    return rng.normal(5, 9, (count, size)).astype(np.float32)
  return (2 * np.eye(3, size)[known] + rng.normal(0, 0.7, (count, size))).astype(np.float32)


def fused(folder: pathlib.Path, **changes: Any) -> Experiment:
  x = made(folder, **changes)
  x.metrics = Metrics(folder)
  try:
    fusion.fuse(x)
  finally:
    x.metrics.close()
  return x


def array(x: Experiment, number: int, name: str) -> np.ndarray:
  return np.load(x.made['fusion'][number] / f'{name}.npy')


def truth(x: Experiment) -> np.ndarray:
  return np.array([EMOTIONS.index(clip.emotion) for clip in x.clips])


def test_clips_become_sequences_of_their_segments_and_padding() -> None:
  visible, clip = np.arange(12, dtype=np.float32).reshape(6, 2), np.array([1, 1, 4, 5, 5, 5])
  made, clips = heads.sequences(visible, clip)
  assert made.dtype == np.float32 and clips.tolist() == [1, 4, 5]
  assert made.tolist() == [
    [[0, 1, 1], [2, 3, 1], [0, 0, 0]],
    [[4, 5, 1], [0, 0, 0], [0, 0, 0]],
    [[6, 7, 1], [8, 9, 1], [10, 11, 1]],
  ]
  means, clips = heads.items_of('mlp', visible, clip)
  assert clips.tolist() == [1, 4, 5] and means.tolist() == [[1, 2], [4, 5], [8, 9]]
  for got, want in zip(heads.items_of('fc', visible, clip), (visible, clip), strict=True):
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize('kind', fusion.KINDS)
def test_every_kind_leaves_what_decide_reads_of_all_sides_and_both_halves(tmp_path: pathlib.Path, kind: str) -> None:
  """Logits are those of the saved network for one clip alone, scaled as training segments say."""
  x = fused(tmp_path, kind=kind, scaling='standard', visible='gaussian')
  assert len(x.made['fusion']) == 2
  folder, rows = x.made['fusion'][1], np.flatnonzero(x.segments.has_face)
  raw = [np.load(x.made['features'][1] / f'{half}_features.npy')[: len(rows)] for half in ('audio', 'visual')]
  features, clip = np.concatenate(raw, axis=1).astype(np.float64), x.segments.clip[rows]
  training = (x.sides(x.folds[1]) == 'train')[clip]
  with np.load(folder / 'scaler.npz') as scaler:
    np.testing.assert_allclose(scaler['low'], features[training].mean(0), atol=1e-5)
    np.testing.assert_allclose(scaler['spread'], features[training].std(0), rtol=1e-5)
  scaled = (features - features[training].mean(0)) / features[training].std(0)
  assert not (folder / 'scratch').exists()
  if kind not in OF_CLIPS:
    np.testing.assert_array_equal(array(x, 1, 'rows'), rows)
    assert array(x, 1, 'joint').shape == (len(rows), 4) and not (folder / 'logits.npy').exists()
  if kind == 'dbn':
    return
  params = checkpoint.read(folder / 'head')
  model = heads.model_of(x.config.fusion, classes=3, sound=SOUND)
  apply = jax.jit(lambda data: model.apply({'params': params}, data))
  if kind == 'fc':
    np.testing.assert_allclose(array(x, 1, 'joint'), apply(scaled.astype(np.float32))[1], rtol=1e-3, atol=1e-5)
    return
  assert array(x, 1, 'clips').tolist() == list(range(23)) and array(x, 1, 'logits').dtype == np.float32
  for one in (0, 13):
    own = scaled[clip == one].astype(np.float32)
    data = own.mean(0) if kind == 'mlp' else np.concatenate([own, np.ones((len(own), 1), np.float32)], axis=1)
    np.testing.assert_allclose(array(x, 1, 'logits')[one], apply(data[None])[0][0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('kind', [*heads.READS, 'dbn'])
def test_nothing_of_test_and_held_clips_reaches_what_is_learnt(tmp_path: pathlib.Path, kind: str) -> None:
  """Not even that they are longer than all others."""
  folds = made(tmp_path / 'who').folds
  spoil = lambda clip: clip.speaker in (*folds[0].test, *folds[0].held)
  settings = {'kind': kind, 'finetune__kind': 'softmax'}
  honest, spoilt = fused(tmp_path / 'honest', **settings), fused(tmp_path / 'spoilt', spoil=spoil, **settings)
  longest = [np.bincount(x.segments.clip).max() for x in (honest, spoilt)]
  assert longest == [3, 5]
  name = 'dbn' if kind == 'dbn' else 'head'
  for number, equal in ((0, True), (1, False)):
    trees = [checkpoint.read(x.made['fusion'][number] / name) for x in (honest, spoilt)]
    leaves = zip(jax.tree_util.tree_leaves_with_path(trees[0]), jax.tree.leaves(trees[1]), strict=True)
    other = [jax.tree_util.keystr(path) for (path, one), two in leaves if not np.allclose(one, two, 1e-3, 1e-4)]
    # An attention's key bias cancels, so its gradient is rounding, which AdamW makes a step of.
    other = [path for path in other if not path.endswith("['key']['bias']")]
    assert (not other) == equal, other


@pytest.mark.parametrize('kind', ['fc', 'attention'])
def test_networks_learn_the_training_clips_and_the_epoch_can_be_chosen_on_held_ones(
  tmp_path: pathlib.Path, kind: str
) -> None:
  rates = {'head__epochs': 12, 'head__optim__lr': 1e-2, 'head__dropout': 0.0, 'units': (32, 16), 'scaling': 'standard'}
  x = fused(tmp_path, kind=kind, head__select='held', **rates)
  lines = [json.loads(line) for line in (x.made['fusion'][1] / 'metrics.jsonl').read_text().splitlines()]
  steps = [line for line in lines if line['train'] == 'fusion/fold_1']
  epochs = [line for line in lines if line['train'] == 'fusion/fold_1/epochs']
  assert len(epochs) == 12 and np.mean([line['accuracy'] for line in steps[-4:]]) > 0.7
  best = max(line['held_accuracy'] for line in epochs)
  assert best > epochs[0]['held_accuracy'] or best == 1
  if kind == 'fc':
    return
  held = x.sides(x.folds[1])[array(x, 1, 'clips')] == 'held'
  logits, labels = array(x, 1, 'logits')[held], truth(x)[array(x, 1, 'clips')[held]]
  assert np.mean(logits.argmax(1) == labels) == pytest.approx(best)
  loss = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()
  chosen = next(line for line in epochs if line['held_accuracy'] == best)
  assert loss == pytest.approx(chosen['held_loss'], rel=1e-4)


ALL = {
  'units': (5,),
  'scaling': 'feature',
  'top': 'linear',
  'rbm.lr': 0.2,
  'finetune.epochs': 9,
  'finetune.drop_half': 0.5,
  'head.width': 16,
  'head.blocks': 3,
  'head.heads': 4,
  'head.primary': 'audio',
  'head.dropout': 0.1,
  'head.batch': 9,
  'head.epochs': 9,
  'head.select': 'held',
  'head.optim.lr': 1.0,
}
LEARNING = {'scaling', 'head.dropout', 'head.batch', 'head.epochs', 'head.select', 'head.optim.lr'}


@pytest.mark.parametrize(
  ('kind', 'reads'),
  [
    ('dbn', {'units', 'scaling', 'top', 'rbm.lr', 'finetune.epochs', 'finetune.drop_half'}),
    ('fc', LEARNING | {'units'}),
    ('mlp', LEARNING | {'head.width'}),
    ('attention', LEARNING | {'head.width', 'head.blocks', 'head.heads'}),
    ('encoding', LEARNING | {'head.width', 'head.blocks', 'head.heads', 'head.primary'}),
  ],
)
def test_a_folder_is_named_by_what_its_kind_reads_and_no_more(
  tmp_path: pathlib.Path, kind: str, reads: set[str]
) -> None:
  x = made(tmp_path, kind=kind)
  x.planning = True

  def names() -> list[str]:
    fusion.fuse(x)
    return [folder.name for folder in x.made['fusion']]

  before = names()
  x.config.seed = 1
  assert not set(names()) & set(before)
  x.config.seed = 0
  for field, value in ALL.items():
    old = x.config.fusion.to_dict()
    x.config.fusion.update_from_flattened_dict({field: value})
    assert (names() != before) == (field in reads), field
    x.config.fusion.update(old)
  assert names() == before
  others = [made(tmp_path / other, kind=other) for other in fusion.KINDS if other != kind]
  for other in others:
    other.planning, other.made['features'] = True, x.made['features']
    fusion.fuse(other)
    assert not {folder.name for folder in other.made['fusion']} & set(before)


@pytest.mark.parametrize(
  ('kind', 'steps'), [('dbn', 2 * 2 * 2 + 2 * 4), ('fc', 2 * 4), ('mlp', 2 * 2), ('attention', 2 * 2)]
)
def test_updates_are_counted_in_segments_or_clips(kind: str, steps: int) -> None:
  settings = default.get_config().fusion
  settings.update({'kind': kind, **SMALL})
  settings.head.batch = 10
  assert fusion.train_steps(settings, rows=31, clips=12) == steps


@pytest.mark.parametrize(
  ('fields', 'said'),
  [
    ({'kind': 'gmu'}, "fusion.kind='gmu': use dbn or fc or mlp or attention or encoding"),
    ({'kind': 'mlp', 'scaling': 'robust'}, "fusion.scaling='robust'"),
    ({'kind': 'encoding', 'head.primary': 'face'}, "fusion.head.primary='face': use visual or audio"),
    ({'kind': 'attention', 'head.heads': 3}, 'fusion.head.heads=3 with config.fusion.head.width=256'),
    ({'kind': 'encoding', 'head.width': 30}, 'fusion.head.heads=4 with config.fusion.head.width=30'),
    ({'kind': 'mlp', 'head.width': 0}, 'fusion.head.width=0: a whole number of at least 1'),
    ({'kind': 'attention', 'head.blocks': 1.5}, 'fusion.head.blocks=1.5: a whole number of at least 1'),
    ({'kind': 'encoding', 'head.heads': 0}, 'fusion.head.heads=0: a whole number of at least 1'),
    ({'scaling': 'standard'}, "fusion.scaling='standard' with config.fusion.visible='probability'"),
    ({'finetune.kind': 'none', 'finetune.select': 'held'}, 'finetune.select=held needs kind=softmax, not none'),
    (
      {'finetune.kind': 'autoencoder', 'finetune.drop_half': 0.5},
      r'drop_half=0\.5 needs kind=softmax, not autoencoder',
    ),
  ],
)
def test_what_a_kind_would_stumble_over_is_refused(fields: dict[str, Any], said: str) -> None:
  settings = default.get_config().fusion
  with settings.ignore_type():
    settings.update_from_flattened_dict(fields)
  with pytest.raises(ValueError, match=said):
    fusion.check(settings)


@pytest.mark.parametrize('kind', fusion.KINDS)
def test_what_a_kind_does_not_read_may_be_anything(kind: str) -> None:
  settings = default.get_config().fusion
  settings.kind = kind
  fusion.check(settings)
  if kind == 'dbn':
    settings.head.heads = 3
  else:
    settings.update({'scaling': 'standard', 'finetune': {'kind': 'none', 'select': 'held'}})
  if kind == 'mlp':
    settings.head.update({'heads': 3, 'primary': 'face'})
  fusion.check(settings)


def test_fine_tuning_without_a_half_learns_nothing_of_it(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
  """Where every row loses its sound, no gradient reaches the sound's weights; and nobody loses it afterwards."""
  told = {}

  def without_sound(visible: jax.Array, keys: jax.Array, of_sound: np.ndarray, **settings: Any) -> jax.Array:
    told.update(settings)
    return visible * ~of_sound

  monkeypatch.setattr(fusion.dbn, 'drop_half', without_sound)
  x = fused(tmp_path, finetune__drop_half=0.3, finetune__dropout=0.0, finetune__optim__weight_decay=0.0)
  assert told == {'share': 0.3, 'draw': 2}  # dropout has drawn 0 and 1
  folder = x.made['fusion'][0]
  before, after = checkpoint.read(folder / 'rbm0')['weights'], checkpoint.read(folder / 'dbn')['stack'][0]['weights']
  np.testing.assert_array_equal(after[:SOUND], before[:SOUND])
  assert (after[SOUND:] != before[SOUND:]).any()
  _, visible, _ = fusion.joined(x, 0, tmp_path)
  layers, want = checkpoint.read(folder / 'dbn')['stack'], visible
  for layer in layers:
    want = 1 / (1 + np.exp(-(want @ layer['weights'] + layer['hidden_bias'])))
  np.testing.assert_allclose(array(x, 0, 'joint'), want, rtol=1e-4, atol=1e-5)


def test_folds_side_by_side_give_what_they_give_one_by_one(tmp_path: pathlib.Path) -> None:
  """And a fold that is gone afterwards is made anew, alone or in company, in the same folder."""
  one_by_one = fused(tmp_path / 'one', finetune__kind='none')
  x = made(tmp_path / 'two', finetune__kind='none')
  x.config.parallel.folds = 2
  x.metrics = Metrics(x.workdir)
  for lost in (None, 1):
    if lost is not None:
      shutil.rmtree(x.made['fusion'][lost])
    fusion.fuse(x)
    for number, folder in enumerate(x.made['fusion']):
      assert folder.name == one_by_one.made['fusion'][number].name
      np.testing.assert_allclose(array(x, number, 'joint'), array(one_by_one, number, 'joint'), atol=1e-6)
      trained = {json.loads(line)['train'] for line in (folder / 'metrics.jsonl').read_text().splitlines()}
      assert {name.split('/')[1] for name in trained} == {f'fold_{number}'}
  x.metrics.close()
  assert not list(x.cache.glob('fusion/*.partial'))

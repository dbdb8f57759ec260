"""What a model says of one clip: whole, half, silent; always the same, and plain data."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import emo_jax
from emo_jax import inference, own_clip
from emo_jax.context import Experiment
from emo_jax.corpora import demo
from emo_jax.evaluation import calibration, pooling, svm
from emo_jax.frontend import audio
from emo_jax.inference import Model
from emo_jax.steps import filling
from tests.tiny import get_config


@pytest.fixture(scope='module')
def loaded(model_folder: pathlib.Path) -> Model:
  return emo_jax.load(model_folder)


@pytest.fixture(scope='module')
def a_clip(once) -> pathlib.Path:
  """A film of 1 s: two segments and no third."""
  settings = {**get_config().data.demo, 'seconds': 1.0, 'speakers': 2}
  folder = once('longer_clips', lambda root: demo.read(root, **settings))
  return sorted(folder.glob('s01/*.mp4'))[0]


@pytest.fixture(scope='module')
def whole(loaded: Model, a_clip: pathlib.Path) -> Iterator[Experiment]:
  with loaded.opened(a_clip) as x:
    assert len(x.segments) > 1 and x.segments.has_face.all() and x.segments.has_audio.all()
    yield x


@pytest.fixture
def lacking(whole: Experiment) -> Callable[..., Experiment]:
  """(audio=rows, visual=rows) -> the clip without these halves."""

  def take(**rows: Any) -> Experiment:
    has = {'audio': whole.segments.has_audio.copy(), 'visual': whole.segments.has_face.copy()}
    for half, of_half in rows.items():
      has[half][of_half] = False
    segments = dataclasses.replace(whole.segments, has_audio=has['audio'], has_face=has['visual'])
    return dataclasses.replace(whole, segments=segments)

  return take


def filling_by(loaded: Model, **how: str) -> Model:
  config = loaded.config.copy_and_resolve_references().unlock()
  config.missing.update(how)
  return dataclasses.replace(loaded, config=config)


def test_the_answer_is_plain_data_and_the_same_again(loaded: Model, a_clip: pathlib.Path) -> None:
  result = loaded.predict(a_clip)
  assert json.loads(json.dumps(result)) == result == loaded.predict(str(a_clip))
  for said in [*result['methods'].values()]:
    assert said['probabilities'].keys() == set(loaded.classes)
    assert sum(said['probabilities'].values()) == pytest.approx(1, abs=1e-4)
    assert said['probabilities'][said['verdict']] == said['confidence'] == max(said['probabilities'].values())
  assert result['missing'] == {'segments': 2, 'without_sound': 0, 'without_face': 0, 'filled': 0, 'how': ''}
  starts = [segment['start'] for segment in result['segments']]
  np.testing.assert_allclose(np.diff(starts), 0.3, atol=0.002)
  assert all(segment['end'] - segment['start'] == pytest.approx(0.655, abs=0.002) for segment in result['segments'])
  assert result['seconds'] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize('how', filling.HOWS)
@pytest.mark.parametrize(('half', 'name'), [('audio', 'sound'), ('visual', 'face')])
def test_a_segment_that_lacks_a_half_is_filled_in_and_says_so(loaded, lacking, half, name, how) -> None:
  result = inference.judge(filling_by(loaded, part=how), lacking(**{half: [1]}))
  assert result['by'] == 'hybrid'
  assert [segment['filled'] for segment in result['segments']] == ['', name]
  assert result['segments'][1][half] is None and result['segments'][1]['hybrid']
  assert result['missing'][f'without_{name}'] == 1 == result['missing']['filled']
  assert result['missing']['how'] == how


def test_segments_left_out_do_not_count(loaded, lacking, whole) -> None:
  """The verdict on the rest, by an oracle: the joint feature of the first segment alone."""
  left = filling_by(loaded, part='leave_out')
  result = inference.judge(left, lacking(visual=[1]))
  assert result['segments'][1]['hybrid'] is None and result['missing']['filled'] == 0 and result['missing']['how'] == ''
  features = {half: inference._features(loaded, whole, half, np.arange(2)) for half in ('audio', 'visual')}
  joint, _ = filling.joint(loaded.fused, features, np.ones((2, 2), bool), np.arange(2), how='zero', steps=1, seed=0)
  vector, _ = pooling.pool(joint[:1], np.zeros(1, int), kind='mean')
  margins = svm.margins(loaded.machines['hybrid'], vector)
  expected = calibration.coupled(margins, **loaded.facts['calibration']['hybrid']['clip'])
  np.testing.assert_allclose(list(result['methods']['hybrid']['probabilities'].values()), expected[0], atol=1e-5)


@pytest.mark.parametrize(('half', 'other'), [('audio', 'visual'), ('visual', 'audio')])
def test_a_clip_that_lacks_a_half_is_judged_by_the_other(loaded, lacking, half, other) -> None:
  alone = lacking(**{half: slice(None)})
  result = inference.judge(filling_by(loaded, whole='leave_out', part='mean'), alone)
  assert result['by'] == other and result['methods']['hybrid'] is None and result['methods'][half] is None
  filled = inference.judge(filling_by(loaded, whole='gibbs', part='leave_out'), alone)
  assert filled['by'] == 'hybrid' and filled['missing']['filled'] == 2 and filled['missing']['how'] == 'gibbs'
  assert filled['methods'][other] == result['methods'][other]


def test_a_clip_without_both_says_why(loaded, lacking) -> None:
  with pytest.raises(own_clip.Unreadable, match='the sound is silent'):
    inference.judge(loaded, lacking(audio=slice(None), visual=slice(None)))


def test_what_is_no_clip_says_why(loaded: Model, tmp_path: pathlib.Path) -> None:
  with pytest.raises(own_clip.Unreadable, match='no such file'):
    loaded.predict(tmp_path / 'gone.mp4')
  (tmp_path / 'text.mp4').write_text('hello')
  with pytest.raises(own_clip.Unreadable, match=r'text\.mp4'):
    loaded.predict(tmp_path / 'text.mp4')


@pytest.mark.parametrize(
  ('silent', 'missing'),
  [
    ([0, 0, 1, 1, 1, 0, 0, 0], []),  # 1.3 s: a pause
    ([0, 1, 1, 1, 1, 1, 1, 0], [1, 2, 3, 4, 5, 6]),  # 2.2 s
    ([1, 1, 1, 1, 1, 1, 1, 1], [0, 1, 2, 3, 4, 5, 6, 7]),
    ([0, 1, 0, 1, 0, 1, 0, 1], []),
  ],
)
def test_long_silence_is_no_sound_and_a_pause_is_one(whole, monkeypatch, silent, missing) -> None:
  count = len(silent)
  rows = dataclasses.replace(whole.segments.take(np.zeros(count, int)), start=np.arange(count, dtype=np.int32) * 30)
  x = dataclasses.replace(whole, segments=rows)
  with contextlib.suppress(AttributeError):
    monkeypatch.setattr(x.store, 'audio', lambda wanted: np.zeros((len(wanted), 64, 64), np.float32))
  monkeypatch.setattr(audio, 'silent', lambda windows: np.array(silent, bool))
  assert np.flatnonzero(own_clip._silent(x)).tolist() == missing


def test_saliency_is_of_the_halves_that_are_there(loaded, lacking) -> None:
  heat = inference.saliency(loaded, lacking(visual=[0]), np.array([0, 1]), np.array([0, 1]))
  assert heat['audio'].keys() == {0, 1} and heat['visual'].keys() == {1}
  assert heat['audio'][0].shape == (64, 64) and heat['visual'][1].shape == (16, 32, 32)
  assert all(0 <= array.min() and array.max() <= 1 for half in heat.values() for array in half.values())

"""The demo corpus: real files, balanced, reproducible, resumable, with faces that the Haar cascades find."""

import collections

import numpy as np
import pytest

from emo_jax.corpora import demo
from emo_jax.frontend import media

cv2 = pytest.importorskip('cv2')
pytest.importorskip('av')
OPTIONS = {'speakers': 6, 'takes': 1, 'seconds': 0.8, 'voice_noise': 0.5, 'face_noise': 0.5, 'seed': 3}


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  root = tmp_path_factory.mktemp('demo')
  return root, demo.read(root, **OPTIONS).clips


def test_clips_are_listed_by_id_and_balanced(corpus):
  _, clips = corpus
  assert [clip.id for clip in clips] == sorted({clip.id for clip in clips})
  assert {clip.corpus for clip in clips} == {'demo'}
  assert set(collections.Counter((clip.speaker, clip.emotion) for clip in clips).values()) == {OPTIONS['takes']}
  assert len(clips) == 6 * 4 and clips[0].speaker == 's01' and clips[0].picture == clips[0].sound


def test_emotions_are_all_pairs_of_bits():
  assert sorted(demo.EMOTIONS.values()) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_films_decode_with_picture_and_sound(corpus):
  for clip in corpus[1][:3]:
    assert media.probe(str(clip.picture)) == media.Streams(picture=True, sound=True, rate=44100)
    times, images = zip(*media.frames(str(clip.picture)), strict=True)
    np.testing.assert_allclose(times, np.arange(20) / 25, atol=1e-3)
    assert images[0].shape == (240, 320, 3) and images[0].dtype == np.uint8
    wave = np.concatenate(list(media.sound(str(clip.sound))))
    assert abs(len(wave) / 44100 - 0.8) < 0.06  # AAC comes in blocks of 23 ms, the first of them a lead-in
    assert 0.02 < wave.std() < 0.3 and np.abs(wave).max() < 1.1


def test_mouth_opens_with_the_sound():
  """The loudness of the made wave and the opening of the mouth rise and fall together, whatever the bit."""
  for strength in (-1.0, 1.0):
    rngs = np.random.default_rng(1), np.random.default_rng(2)
    wave, opening = demo._voice(demo._speaker(0, 1), strength, 44100, 0.5, *rngs)
    loud = np.sqrt(np.mean(wave[: 50 * 882].reshape(50, 882) ** 2, 1))
    assert np.corrcoef(loud, opening[441::882])[0, 1] > 0.5


def test_second_call_does_nothing_and_a_missing_clip_is_remade_alike(corpus):
  root, clips = corpus
  times = {clip.id: clip.picture.stat().st_mtime_ns for clip in clips}
  first = clips[5].picture.read_bytes()
  clips[5].picture.unlink()
  assert demo.read(root, **OPTIONS).clips == clips
  assert clips[5].picture.read_bytes() == first
  changed = [clip.id for clip in clips if clip.picture.stat().st_mtime_ns != times[clip.id]]
  assert changed == [clips[5].id]
  assert not list(root.rglob('*.part'))


def test_clips_depend_on_the_seed_and_not_on_the_number_of_speakers(tmp_path, corpus):
  _, clips = corpus
  few = OPTIONS | {'speakers': 1}
  again = demo.read(tmp_path / 'a', **few).clips
  other = demo.read(tmp_path / 'b', **few | {'seed': 4}).clips
  for number in range(4):
    assert again[number].picture.read_bytes() == clips[number].picture.read_bytes()
    assert other[number].picture.read_bytes() != clips[number].picture.read_bytes()


def test_other_options_or_foreign_films_are_refused(tmp_path, corpus):
  with pytest.raises(ValueError, match=r'seed=3 \(now 4\)'):
    demo.make(corpus[0], **OPTIONS | {'seed': 4})
  (tmp_path / 'x').mkdir()
  (tmp_path / 'x' / 'y.mp4').touch()
  with pytest.raises(ValueError, match=r'no demo\.json'):
    demo.make(tmp_path, **OPTIONS)
  with pytest.raises(ValueError, match='seconds'):
    demo.make(tmp_path / 'z', **OPTIONS | {'seconds': 0.5})
  assert not (tmp_path / 'z').exists()


def test_haar_cascades_find_one_face_with_two_eyes(corpus):
  faces = cv2.CascadeClassifier(cv2.data.haarcascades + 'haarcascade_frontalface_alt2.xml')
  eyes = cv2.CascadeClassifier(cv2.data.haarcascades + 'haarcascade_eye.xml')
  found = []
  for clip in corpus[1]:
    _, image = list(media.frames(str(clip.picture)))[9]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    boxes = faces.detectMultiScale(grey, 1.1, 3, minSize=(48, 48))
    found.append(len(boxes) == 1)
    for x, y, w, h in boxes[:1]:
      found.append(len(eyes.detectMultiScale(grey[y : y + h // 2 + h // 20, x : x + w], 1.05, 3)) >= 2)
  assert np.mean(found) > 0.95

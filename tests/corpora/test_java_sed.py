"""Java-SED: names to labels, on made-up trees and on the real one."""

import collections
import pathlib

import pytest

from emo_jax.corpora import java_sed
from emo_jax.corpora.clip import Clip, check


def tree(root: pathlib.Path, *names: str) -> str:
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).touch()
  return str(root)


def test_names_say_speaker_sentence_and_emotion(tmp_path: pathlib.Path) -> None:
  root = tree(tmp_path, 'video/10-04-06_01.mp4', 'video/01-02-03_01.mp4', 'audio/01-02-05_07.flac')
  film = tmp_path / 'video/01-02-03_01.mp4'
  first, second = java_sed.read(root, takes=False).clips
  assert first == Clip(
    id='01-02-03_01',
    picture=film,
    sound=film,
    speaker='01',
    emotion='happiness',
    corpus='java_sed',
    sentence='02',
    role='evaluate',
  )
  assert (second.speaker, second.sentence, second.emotion) == ('10', '04', 'anger')


def test_takes_are_sound_alone_and_only_learnt_from(tmp_path: pathlib.Path) -> None:
  root = tree(tmp_path, 'deep/video/01-02-03_01.mp4', 'deep/audio/01-02-03_01.flac')
  film, take = java_sed.read(root, takes=True).clips
  assert film.role == 'evaluate' and take.role == 'train_only'
  assert take.picture is None and take.sound == tmp_path / 'deep/audio/01-02-03_01.flac'
  assert take.speaker == film.speaker and take.emotion == film.emotion and take.id != film.id


@pytest.mark.parametrize('name', ['01-02-03.mp4', '01-02-07_01.mp4', '1-02-03_01.mp4', '01-02-03_01b.mp4'])
def test_a_name_that_is_not_of_the_corpus_is_left_out(tmp_path: pathlib.Path, name: str) -> None:
  found = java_sed.read(tree(tmp_path, f'video/{name}', 'video/01-02-03_01.mp4'), takes=False)
  ((path, reason),) = found.left_out
  assert path == str(tmp_path / 'video' / name) and reason.startswith('not a Java-SED name')
  assert [clip.id for clip in found.clips] == ['01-02-03_01']


def test_names_in_upper_case_are_films_and_takes_too(tmp_path: pathlib.Path) -> None:
  root = tree(tmp_path, 'VIDEO/01-02-03_01.MP4', 'AUDIO/01-02-03_02.FLAC')
  assert [clip.role for clip in java_sed.read(root, takes=True).clips] == ['evaluate', 'train_only']


def test_takes_that_were_not_asked_for_are_left_out(tmp_path: pathlib.Path) -> None:
  found = java_sed.read(tree(tmp_path, 'video/01-02-03_01.mp4', 'audio/01-02-03_02.flac'), takes=False)
  assert len(found.clips) == 1 and [path for path, _ in found.left_out] == [str(tmp_path / 'audio/01-02-03_02.flac')]


def test_a_root_without_films_is_refused(tmp_path: pathlib.Path) -> None:
  root = tree(tmp_path, 'audio/01-02-03_01.flac')
  with pytest.raises(ValueError, match=r'config\.data\.root'):
    java_sed.read(root, takes=False)
  with pytest.raises(ValueError, match=r'config\.data\.root'):
    check(java_sed.read(root, takes=True).clips)


def test_the_real_corpus_is_what_its_description_says(data_root: pathlib.Path) -> None:
  if not (data_root / 'java_sed').is_dir():
    pytest.skip(f'no real clips: {data_root / "java_sed"} is absent')
  found = java_sed.read(str(data_root / 'java_sed'), takes=True)
  clips = found.clips
  assert found.left_out == []
  (warning,) = found.warnings  # eight of the ten speakers are here
  assert warning.startswith('the corpus has 240 films, this archive 192 (32 of 40 neutral')
  check(clips)
  films = [clip for clip in clips if clip.role == 'evaluate']
  takes = [clip for clip in clips if clip.role == 'train_only']
  assert len(films) == 192 and len(takes) == 1152
  per = collections.Counter((clip.speaker, clip.sentence, clip.emotion) for clip in films)
  assert len(per) == 8 * 4 * 6 and set(per.values()) == {1}
  assert {clip.speaker for clip in takes} == {clip.speaker for clip in films}
  assert sorted({clip.speaker for clip in films}) == ['01', '02', '03', '05', '06', '07', '08', '10']
  assert java_sed.read(str(data_root / 'java_sed'), takes=False).clips == films

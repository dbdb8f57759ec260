"""Clips: which lists are refused, in which order classes come, and what a file's hash depends on."""

import hashlib
import pathlib

import pytest

from emo_jax.corpora.clip import Clip, check, classes, content_hash


def clip(name: str = 'a', emotion: str = 'joy', *, media: bool = True, role: str = 'evaluate') -> Clip:
  path = pathlib.Path(name) if media else None
  return Clip(name, picture=path, sound=path, speaker='s', emotion=emotion, corpus='made', role=role)


def test_classes_are_the_judged_emotions_in_order() -> None:
  clips = [clip('a', 'joy'), clip('b', 'anger'), clip('c', 'joy'), clip('d', 'fear', role='train_only')]
  assert classes(clips) == ['anger', 'joy']


def test_a_film_is_one_file_and_a_pair_is_two() -> None:
  film, voice = pathlib.Path('f.mp4'), pathlib.Path('v.wav')
  both = lambda picture, sound: Clip('a', picture=picture, sound=sound, speaker='s', emotion='joy', corpus='made').files
  assert both(film, film) == [film] and both(film, voice) == [film, voice]
  assert both(None, voice) == [voice] and both(film, None) == [film] and both(None, None) == []


def test_a_sound_list_is_accepted() -> None:
  check([clip('a', 'joy'), clip('b', 'anger'), clip('c', 'joy', role='train_only')])


@pytest.mark.parametrize(
  ('clips', 'message'),
  [
    ([], 'no clips to evaluate'),
    ([clip(role='train_only')], 'no clips to evaluate'),
    ([clip('a'), clip('b', 'anger'), clip('a', 'anger')], 'more than once: a$'),
    ([clip('a'), clip('b', 'anger', media=False)], 'without sound and without picture: b$'),
    ([clip('a'), clip('b')], r"only \['joy'\]"),
    ([clip('a'), clip('b', 'anger'), clip('c', 'fear', role='train_only')], 'never judged: fear'),
  ],
)
def test_lists_that_cannot_be_run_are_refused(clips: list[Clip], message: str) -> None:
  with pytest.raises(ValueError, match=message):
    check(clips)


def test_a_hash_depends_on_the_bytes_alone(tmp_path: pathlib.Path) -> None:
  for name, content in (('a', b'one'), ('b', b'one'), ('c', b'two')):
    (tmp_path / name).write_bytes(content)
  assert content_hash(tmp_path / 'a') == content_hash(tmp_path / 'b') == hashlib.sha256(b'one').hexdigest()
  assert content_hash(tmp_path / 'c') != content_hash(tmp_path / 'a')


def test_missing_files_have_hashes_of_their_own(tmp_path: pathlib.Path) -> None:
  missing = content_hash(tmp_path / 'gone')
  assert missing != content_hash(tmp_path / 'lost') and missing != content_hash(tmp_path)
  (tmp_path / 'gone').write_bytes(b'')
  assert content_hash(tmp_path / 'gone') != missing

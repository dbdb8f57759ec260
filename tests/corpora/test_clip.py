"""Clips: which lists are refused, in which order classes come, and what a file's hash depends on."""

import dataclasses
import hashlib
import os
import pathlib

import pytest

from emo_jax.corpora import clip as clip_module
from emo_jax.corpora.clip import Clip, Listing, check, classes, content_hash, content_hashes


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


def test_a_file_is_read_again_when_it_has_changed_or_could_not_be_read(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  path = tmp_path / 'a.wav'
  path.write_bytes(b'one')
  own = [Clip('a', picture=None, sound=path, speaker='s', emotion='joy', corpus='made')]
  first, read = content_hashes(own)[path], []
  monkeypatch.setattr(clip_module, 'content_hash', lambda file: read.append(file) or content_hash(file))
  assert content_hashes(own)[path] == first == content_hash(path) and not read
  path.write_bytes(b'two')
  os.utime(path, ns=(1, 1))
  assert content_hashes(own)[path] == content_hash(path) != first and len(read) == 1
  path.unlink()
  for _ in range(2):
    assert content_hashes(own)[path] == 'No such file or directory: a.wav'
  assert len(read) == 3


def test_what_is_no_regular_file_is_not_read(tmp_path: pathlib.Path) -> None:
  """Reading a pipe that nobody writes to would never end; nor would reading a device."""
  os.mkfifo(tmp_path / 'pipe')
  (tmp_path / 'zero').symlink_to('/dev/zero')
  (tmp_path / 'loop').symlink_to(tmp_path / 'loop')
  assert content_hash(tmp_path / 'pipe') == 'no regular file: pipe'
  assert content_hash(tmp_path / 'zero') == 'no regular file: zero'
  assert content_hash(tmp_path / 'loop') == 'Too many levels of symbolic links: loop'
  assert content_hash(tmp_path / 'gone') == 'No such file or directory: gone'


def _listing() -> Listing:
  """Two speakers and three emotions; the last clip is a film and a sound of its own."""
  film = [clip(name, name) for name in ('anger', 'fear', 'joy')]
  pair = dataclasses.replace(clip('pair', 'fear'), speaker='23', sound=pathlib.Path('voice'))
  return Listing([*film, pair], [('odd.avi', 'odd')], ['a warning'])


def _ids(found: Listing) -> list[str]:
  return [one.id for one in found.clips]


def test_nothing_is_narrowed_unless_asked_for() -> None:
  assert _listing().narrowed(emotions=(), exclude_speakers=()) == _listing()


def test_emotions_and_speakers_are_narrowed_and_every_file_told() -> None:
  found = _listing().narrowed(emotions=('fear', 'joy'), exclude_speakers=())
  assert _ids(found) == ['fear', 'joy', 'pair'] and found.warnings == ['a warning']
  assert found.left_out == [('odd.avi', 'odd'), ('anger', 'anger is not in config.data.emotions')]
  found = _listing().narrowed(emotions=('fear', 'joy'), exclude_speakers=('23',))
  assert _ids(found) == ['fear', 'joy']
  reason = 'speaker 23 is in config.data.exclude_speakers'
  assert found.left_out[2:] == [('pair', reason), ('voice', reason)]


def test_a_speaker_may_be_given_as_a_number() -> None:
  """The flag --config.data.exclude_speakers=23 is one."""
  assert _ids(_listing().narrowed(emotions=(), exclude_speakers=(23,))) == ['anger', 'fear', 'joy']  # type: ignore[arg-type]


@pytest.mark.parametrize(
  ('emotions', 'speakers', 'message'),
  [
    (('joy', 'rage'), (), r'config\.data\.emotions: rage in no clip; there are anger, fear, joy$'),
    ((), ('7', 's', 6), r'config\.data\.exclude_speakers: 6, 7 in no clip; there are 23, s$'),
  ],
)
def test_what_no_clip_has_cannot_be_asked_for(
  emotions: tuple[str, ...], speakers: tuple[str, ...], message: str
) -> None:
  with pytest.raises(ValueError, match=message):
    _listing().narrowed(emotions=emotions, exclude_speakers=speakers)

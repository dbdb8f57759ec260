"""Archives: what is found below a folder, what is left out and why, whatever files and folders are called."""

import contextlib
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator

import pytest

from emo_jax.corpora import archive
from emo_jax.corpora.clip import Clip, Listing


def tree(root: pathlib.Path, *names: str) -> pathlib.Path:
  """Files that hold their own names, so that no two are alike."""
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(os.fsencode(name))
  return root


def walked(root: pathlib.Path) -> tuple[list[str], dict[str, str]]:
  """What is found and what is left out, relative to the root."""
  found, left_out = archive.walk(root)
  return [os.path.relpath(path, root) for path in found], {os.path.relpath(path, root): why for path, why in left_out}


def test_films_are_found_in_any_depth_and_case_in_a_fixed_order(tmp_path: pathlib.Path) -> None:
  tree(
    tmp_path, 'b/2.AVI', 'b/1.mp4', 'a b/deep/er/3.Flv', '0.mkv', 'Thumbs.db', 'b/1.srt', 'b/1.wav', 'b/avi', 'a/4.avi '
  )
  assert walked(tmp_path) == (['0.mkv', 'a/4.avi ', 'a b/deep/er/3.Flv', 'b/1.mp4', 'b/2.AVI'], {})
  (tmp_path / 'folder.avi').mkdir()
  assert 'folder.avi' not in walked(tmp_path)[0]


def test_endings_say_what_is_looked_for(tmp_path: pathlib.Path) -> None:
  tree(tmp_path, '1.WAV', '2.avi', '3.csv')
  assert [path.name for path in archive.walk(tmp_path, ('.wav', '.csv'))[0]] == ['1.WAV', '3.csv']


@pytest.mark.parametrize(
  'name', ['it\'s "one".avi', 'two\nlines.avi', 'sch\u00f6n \u611f\u60c5.avi', 'not utf-8 \udcff.avi']
)
def test_names_may_hold_what_names_can_hold(tmp_path: pathlib.Path, name: str) -> None:
  try:
    tree(tmp_path, f'{name[:-4]}/{name}')
  except (OSError, UnicodeEncodeError):
    pytest.skip('the file system knows no such names')
  (path,) = archive.walk(tmp_path)[0]
  assert path.name == name and path.read_bytes() == os.fsencode(f'{name[:-4]}/{name}')


def test_loops_of_links_end_and_each_folder_is_seen_once(tmp_path: pathlib.Path) -> None:
  root, beside = tree(tmp_path / 'root', 's1/1.avi', 's2/2.avi'), tree(tmp_path / 'beside', '3.avi')
  tree(tmp_path, '4.avi')
  (beside / 'back').symlink_to(root)
  for link, target in (('s1/loop', root), ('s1/self', root / 's1'), ('s2/over', tmp_path), ('s1/self.avi', 'self.avi')):
    (root / link).symlink_to(target)
  for link in ('s3', 's4'):
    (root / link).symlink_to(beside)
  found, left_out = walked(root)
  assert found == ['s1/1.avi', 's2/2.avi', 's3/3.avi']  # neither through `over`, which holds the archive, nor twice
  assert list(left_out) == ['s1/self.avi'] and 'leads to no file' in left_out['s1/self.avi']


def test_a_folder_is_seen_where_it_lies_and_not_through_a_link(tmp_path: pathlib.Path) -> None:
  """Its name may be the label."""
  tree(tmp_path, 'z/s1/1.avi')
  (tmp_path / 'a best of').symlink_to(tmp_path / 'z/s1')
  assert walked(tmp_path) == (['z/s1/1.avi'], {})


def test_links_to_files_and_a_linked_root_are_followed(tmp_path: pathlib.Path) -> None:
  tree(tmp_path / 'pool', 'x1')
  (tmp_path / 'root').mkdir()
  (tmp_path / 'root/1.avi').symlink_to(tmp_path / 'pool/x1')
  (tmp_path / 'root/2.avi').symlink_to(tmp_path / 'pool/gone')  # as where git-annex fetched nothing
  (tmp_path / 'link').symlink_to(tmp_path / 'root')
  found, left_out = walked(tmp_path / 'link')
  assert found == ['1.avi'] and list(left_out) == ['2.avi'] and 'leads to no file' in left_out['2.avi']


def test_what_is_no_file_is_left_out_unopened(tmp_path: pathlib.Path) -> None:
  os.mkfifo(tmp_path / 'pipe.avi')
  pipe = os.open(tmp_path / 'pipe.avi', os.O_RDWR)  # without it, to open the pipe would wait for ever
  os.write(pipe, bytes(64))
  assert list(walked(tmp_path)[1]) == ['pipe.avi']
  os.close(pipe)


def test_pointers_and_companions_are_no_films(tmp_path: pathlib.Path) -> None:
  pointer = f'version https://git-lfs.github.com/spec/v1\noid sha256:{"0" * 64}\nsize 400000\n'
  tree(tmp_path, '__MACOSX/s1/._1.avi', 's1/1.avi', 's1/2.avi', 's1/3.avi', 's1/empty.avi')
  (tmp_path / 's1/2.avi').write_text(pointer)
  (tmp_path / 's1/3.avi').write_text(pointer + 'x' * 1000)  # too long for a pointer, whatever it is
  (tmp_path / 's1/empty.avi').write_text('')
  found, left_out = walked(tmp_path)
  assert found == ['s1/1.avi', 's1/3.avi', 's1/empty.avi']
  assert 'git lfs pull' in left_out.pop('s1/2.avi') and 'macOS' in left_out.pop('__MACOSX/s1/._1.avi') and not left_out


@contextlib.contextmanager
def _nobody(folder: str) -> Iterator[None]:
  """Root may read everything, so a folder of nobody's is read as nobody."""
  if os.geteuid():
    yield
    return
  os.chown(folder, 65534, 65534)
  os.seteuid(65534)
  try:
    yield
  finally:
    os.seteuid(0)


def test_an_unreadable_folder_is_left_out_and_the_rest_is_read() -> None:
  with tempfile.TemporaryDirectory(dir='/tmp') as folder, _nobody(folder):
    root = tree(pathlib.Path(folder), 's1/1.avi', 's2/2.avi', 's3/3.avi', 's4/4.avi')
    (root / 's4/4.avi').chmod(0)
    (root / 's2').chmod(0)
    (root / 's3').chmod(0o444)  # lists its names, and opens no file
    try:
      found, left_out = walked(root)
      (root / 's2').chmod(0o700)
      root.chmod(0o300)
      with pytest.raises(ValueError, match='the folder cannot be read: Permission denied'):
        archive.listing(str(root), _clip, example='1.avi')
    finally:
      for path in (root, root / 's2', root / 's3'):
        path.chmod(0o700)
  assert found == ['s1/1.avi', 's3/3.avi', 's4/4.avi']  # what cannot be opened, preparing rejects
  assert left_out == {'s2': 'the folder cannot be read: Permission denied'}


@pytest.mark.parametrize('root', ['', 'missing', 'file.avi'])
def test_a_root_that_is_no_folder_is_refused(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
  monkeypatch.chdir(tree(tmp_path, 'file.avi'))
  with pytest.raises(ValueError, match=rf"^'{root}': no such folder; .* config\.data\.root"):
    archive.walk(root)


def _clip(path: pathlib.Path) -> Clip | str:
  """Clips are called by a number, a word and their class."""
  match = re.fullmatch(r'(\d)(joy|fear)', path.stem)
  return Clip(match[1], path, path, 's', match[2], 'made') if match else 'a strange name'


def _listing(root: pathlib.Path, **options: tuple[str, ...]) -> Listing:
  return archive.listing(str(root), _clip, example='1joy.avi', **options)


def test_every_medium_is_a_clip_or_left_out_with_a_reason(tmp_path: pathlib.Path) -> None:
  tree(tmp_path, '2joy.avi', 'z/1fear.avi', 'notes.avi', '1fear.wav', 'again/2joy.avi', '._2joy.avi', 'notes.txt')
  found = _listing(tmp_path)
  assert [clip.id for clip in found.clips] == ['1', '2']
  assert found.clips[1].picture == tmp_path / '2joy.avi'
  assert {os.path.relpath(path, tmp_path): why for path, why in found.left_out} == {
    'notes.avi': 'a strange name',
    '1fear.wav': 'no .wav file is a clip here; clips are like 1joy.avi',
    'again/2joy.avi': f'another file of clip 2; kept is {tmp_path / "2joy.avi"}',
    '._2joy.avi': 'a companion file of macOS, not the film',
  }
  assert found.warnings == []
  sounds = _listing(tmp_path, endings=('.wav',))
  assert [str(clip.sound) for clip in sounds.clips] == [str(tmp_path / '1fear.wav')]
  assert len(sounds.left_out) == 5


def test_a_folder_without_clips_is_refused_with_what_was_there(tmp_path: pathlib.Path) -> None:
  with pytest.raises(ValueError, match=r'no clip like 1joy\.avi below it; point config\.data\.root'):
    _listing(tmp_path)
  tree(tmp_path, 'a.avi', 'b.avi')
  with pytest.raises(ValueError, match=r'no clip .* below it \(2 left out, the last: .*b\.avi: a strange name\)'):
    _listing(tmp_path)


@pytest.mark.parametrize(
  ('emotions', 'expected', 'sentences'),
  [
    ({'joy': 2, 'fear': 1}, 3, []),
    ({}, 3, []),
    ({}, 4, ['the corpus has 4 clips, this archive 3']),
    ({'joy': 2, 'fear': 3}, 5, ['the corpus has 5 clips, this archive 3 (1 of 3 fear)']),
    ({'joy': 1, 'fear': 2}, 3, ['the corpus has 3 clips, this archive 3 (2 of 1 joy, 1 of 2 fear)']),
    ({'joy': 2, 'rage': 1}, 3, ['the corpus has 3 clips, this archive 3 (0 of 1 rage, 1 fear (none expected))']),
  ],
)
def test_an_archive_that_differs_is_told_in_a_sentence(
  tmp_path: pathlib.Path, emotions: dict[str, int], expected: int, sentences: list[str]
) -> None:
  clips = _listing(tree(tmp_path, '1joy.avi', '2joy.avi', '3fear.avi')).clips
  assert archive.differences(clips, clips_expected=expected, emotions=emotions) == sentences

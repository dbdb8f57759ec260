"""Manifests: columns, paths, and what is said about rows that cannot be used."""

import pathlib

import pytest

from emo_jax.corpora import manifest


def table(folder: pathlib.Path, text: str, *, encoding: str = 'utf-8') -> str:
  (folder / 'clips.csv').write_text(text, encoding=encoding)
  return str(folder / 'clips.csv')


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig'])
def test_three_columns_are_enough(tmp_path: pathlib.Path, encoding: str) -> None:
  (clip,) = manifest.read(table(tmp_path, 'path,speaker,emotion\nfilms/a.mp4,ann,joy\n', encoding=encoding)).clips
  assert clip.picture == clip.sound == tmp_path / 'films/a.mp4'
  assert (clip.id, clip.speaker, clip.emotion, clip.role) == ('films/a.mp4', 'ann', 'joy', 'evaluate')
  assert clip.group is None and clip.sentence is None and clip.split is None


def test_all_columns_in_any_order_with_spaces(tmp_path: pathlib.Path) -> None:
  text = 'split, group, emotion, speaker, sound, path, sentence\nheld, g1, joy, ann, /far/a.wav, "a, b.mp4", 3\n'
  text += ', , fear, bob, , c.wav,\n'
  first, second = manifest.read(table(tmp_path, text)).clips
  assert (first.split, first.group, first.sentence) == ('held', 'g1', '3')
  assert first.picture == tmp_path / 'a, b.mp4' and first.sound == pathlib.Path('/far/a.wav')
  assert second.split is None and second.group is None and second.sentence is None
  assert second.picture == second.sound == tmp_path / 'c.wav'


def test_a_missing_manifest_is_refused(tmp_path: pathlib.Path) -> None:
  with pytest.raises(ValueError, match=r'gone\.csv: no such file'):
    manifest.read(str(tmp_path / 'gone.csv'))


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', r"missing columns \['path', 'speaker', 'emotion'\]"),
    ('path,emotion\na,joy\n', r"missing columns \['speaker'\], unknown columns \[\]"),
    ('path,speaker,emotion,age\na,b,c,4\n', r"unknown columns \['age'\]"),
    ('path,speaker,emotion\na,b,joy\nb,,joy\n', 'line 3: speaker is empty'),
    ('path,speaker,emotion\na,b\n', 'line 2: emotion is empty'),
    ('path,speaker,emotion,split\na,b,joy,dev\n', "line 2: split is 'dev', not one of train, held, test"),
  ],
)
def test_what_cannot_be_used_is_named(tmp_path: pathlib.Path, text: str, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    manifest.read(table(tmp_path, text))


def test_every_bad_row_is_named_by_its_line(tmp_path: pathlib.Path) -> None:
  text = 'path,speaker,emotion\n,ann,joy\na.mp4,ann,joy\n\nb.mp4,,joy\n'
  with pytest.raises(ValueError, match='line 2: path is empty; line 5: speaker is empty'):
    manifest.read(table(tmp_path, text))


def test_a_row_with_too_many_cells_is_refused(tmp_path: pathlib.Path) -> None:
  """An unquoted comma moves the labels by a column."""
  with pytest.raises(ValueError, match='line 2'):
    manifest.read(table(tmp_path, 'path,speaker,emotion\na, b.mp4,ann,joy\n'))

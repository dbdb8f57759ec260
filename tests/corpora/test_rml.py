"""RML: which films are clips, of whom, and which are left out."""

import collections
import os
import pathlib

import pytest

from emo_jax.corpora import clip, rml
from tests.corpora import trees

FOUND = {
  's1/english/an1': 'anger',
  's1/english/su2': 'surprise',
  's1/punjabi/an1': 'anger',
  's1/punjabi/di1': 'disgust',
  's2/an1': 'anger',
  's2/ha10': 'happiness',
  's3/fe1': 'fear',
  's3/sa 1': 'sadness',
  's4/an1': 'anger',
  's4/di1': 'disgust',
  's5/an1': 'anger',
  's5/ha1': 'happiness',
  's6/sa1': 'sadness',
  's6/su1': 'surprise',
  's7/an1': 'anger',
  's7/fe1': 'fear',
  's8/an1': 'anger',
  's8/ha1': 'happiness',
}


def test_an_archive_with_all_its_defects(tmp_path: pathlib.Path) -> None:
  found = rml.read(str(trees.rml(tmp_path)))
  clip.check(found.clips)
  assert {one.id: one.emotion for one in found.clips} == FOUND
  assert all(one.speaker == one.id[:2] and one.corpus == 'rml' and one.role == 'evaluate' for one in found.clips)
  assert all(one.sentence is one.group is one.split is None for one in found.clips)
  files = {one.id: os.path.relpath(one.picture, tmp_path) for one in found.clips}
  assert all(one.picture == one.sound for one in found.clips)
  assert files['s2/an1'] == 'rml-1/s2/AN1.AVI' and files['s1/punjabi/an1'] == 'rml-1/s1/Punjabi/an1.avi'
  reasons = {os.path.relpath(path, tmp_path): why.split(';')[0] for path, why in found.left_out}
  assert reasons == {
    'rml-1/s2/__MACOSX/._AN1.AVI': 'a companion file of macOS, not the film',
    'rml-2/an9.avi': 'not in the folder of a speaker (s1 to s8)',
    'rml-2/s8/sample1.avi': 'the name does not begin with an emotion of RML (an, di, fe, ha, sa, su) and a number',
    'rml-2/s8/ha1.wav': 'no .wav file is a clip here',
    'rml-2 (1)/rml-2/s8/an1.avi': 'another file of clip s8/an1',
  }
  (warning,) = found.warnings
  assert warning.startswith('the corpus has 720 clips, this archive 18 (7 of 120 anger, ')


def test_the_whole_corpus_is_as_expected(tmp_path: pathlib.Path) -> None:
  for speaker in range(1, 9):
    folder = tmp_path / f'rml-{1 if speaker < 6 else 2}/s{speaker}'
    folder.mkdir(parents=True)
    for code in rml.EMOTIONS:
      for number in range(15):
        (folder / f'{code}{number + 1}.avi').touch()
  found = rml.read(str(tmp_path))
  assert found.warnings == found.left_out == []
  assert set(collections.Counter((one.speaker, one.emotion) for one in found.clips).values()) == {15}
  (tmp_path / 'rml-1/s1/an1.avi').unlink()
  assert rml.read(str(tmp_path)).warnings == ['the corpus has 720 clips, this archive 719 (119 of 120 anger)']


def test_the_speaker_is_the_innermost_of_folders_that_look_like_one(tmp_path: pathlib.Path) -> None:
  (tmp_path / 's1/rml-2/s8').mkdir(parents=True)  # s1: a disk
  (tmp_path / 's1/rml-2/s8/an1.avi').touch()
  (one,) = rml.read(str(tmp_path)).clips
  assert (one.speaker, one.id) == ('s8', 's8/an1')


def test_another_folder_is_refused(tmp_path: pathlib.Path) -> None:
  trees.film(tmp_path / 'video/01-02-03_01.mp4', picture='libx264', sound='aac')
  with pytest.raises(ValueError, match=r'no clip like s1/an1\.avi below it \(1 left out, .*not in the folder'):
    rml.read(str(tmp_path))

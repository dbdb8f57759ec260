"""SAVEE: films are clips, the sound-only release is not."""

import os
import pathlib

from emo_jax.corpora import clip, savee
from tests.corpora import trees


def test_an_archive_with_all_its_defects(tmp_path: pathlib.Path) -> None:
  found = savee.read(str(trees.savee(tmp_path)))
  clip.check(found.clips)
  assert {(one.id, one.speaker, one.emotion) for one in found.clips} == {
    ('DC/a01', 'DC', 'anger'),
    ('DC/n30', 'DC', 'neutral'),
    ('DC/sa02', 'DC', 'sadness'),
    ('DC/su03', 'DC', 'surprise'),
    ('JE/a01', 'JE', 'anger'),
    ('JE/n01', 'JE', 'neutral'),
    ('JK/a01', 'JK', 'anger'),
    ('JK/n01', 'JK', 'neutral'),
    ('KL/a01', 'KL', 'anger'),
    ('KL/h15', 'KL', 'happiness'),
    ('KL/n01', 'KL', 'neutral'),
  }
  assert all(one.picture == one.sound and one.picture.suffix.lower() == '.avi' for one in found.clips)
  assert {os.path.relpath(path, tmp_path): why.split(';')[0] for path, why in found.left_out} == {
    **{f'AudioData/{speaker}/a01.wav': 'no .wav file is a clip here' for speaker in ('DC', 'JE', 'JK', 'KL')},
    'AudioVisualClip/KL/x1.avi': 'the name is not an emotion of SAVEE (a, d, f, h, n, sa, su) and a number',
    'AudioVisualClip/d1.avi': 'not in the folder of a speaker (DC, JE, JK, KL)',
    'AudioVisualClip/DC/__MACOSX/._a1.avi': 'a companion file of macOS, not the film',
  }
  (warning,) = found.warnings
  assert warning.startswith('the corpus has 480 clips, this archive 11 (4 of 60 anger, ')


def test_the_whole_corpus_is_as_expected(tmp_path: pathlib.Path) -> None:
  for speaker in ('DC', 'JE', 'JK', 'KL'):
    (tmp_path / speaker).mkdir()
    for code in savee.EMOTIONS:
      for number in range(30 if code == 'n' else 15):
        (tmp_path / speaker / f'{code}{number + 1}.avi').touch()
  found = savee.read(str(tmp_path))
  assert (len(found.clips), found.left_out, found.warnings) == (480, [], [])

"""eNTERFACE05: labels come from folders whatever files are called; uncut films are left out."""

import os
import pathlib

import pytest

from emo_jax.corpora import clip, enterface05
from tests.corpora import trees

BASE = 'project2_database/enterface database'


@pytest.fixture(scope='module')
def archive(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  return trees.enterface05(tmp_path_factory.mktemp('enterface05'))


def test_an_archive_with_all_its_defects(archive: pathlib.Path) -> None:
  found = enterface05.read(str(archive))
  clip.check(found.clips)
  of_subject = {'anger/1', 'anger/2', 'disgust/3', 'fear/3', 'happiness/3', 'sadness/3', 'surprise/3'}
  expected = {f'{speaker}/{name}' for speaker in ('01', '02', '03', '11', '12', '16', '23') for name in of_subject}
  expected = expected - {'23/happiness/3'} | {'02/fear/4'}
  assert {one.id for one in found.clips} == expected
  for one in found.clips:
    assert one.id == f'{one.speaker}/{one.sentence}' and one.sentence.startswith(f'{one.emotion}/')
    assert one.picture == one.sound and one.corpus == 'enterface05'
  (warning,) = found.warnings
  assert warning.startswith('the corpus has 1287 clips, this archive 49 (14 of 215 anger, ')
  assert '6 of 212 happiness' in warning


@pytest.mark.parametrize(
  ('name', 'file'),
  [
    ('11/anger/1', 'subject 11/anger/sentence 1/s12_an_1.avi'),  # another subject in the name
    ('12/anger/1', 'subject 12/anger/sentence 1/s12_an_1.avi'),
    ('02/anger/2', 'subject 2/anger/sentence 2/s2_di_2.avi'),  # another emotion
    ('16/surprise/3', 'subject 16/surprise/sentence 3/s16_su_3avi.avi'),
    ('03/happiness/3', 'subject 3/happiness/sentence 3/s_3_ha_3.avi'),
    ('02/fear/4', 'Subject 2/Fear/Sentence 4/S2_FE_4.AVI'),
  ],
)
def test_folders_say_who_and_what_and_names_say_nothing(archive: pathlib.Path, name: str, file: str) -> None:
  (one,) = (one for one in enterface05.read(str(archive)).clips if one.id == name)
  assert one.picture == archive / BASE / file


def test_what_is_left_out_has_a_reason(archive: pathlib.Path) -> None:
  left_out = {os.path.relpath(path, archive / BASE): why for path, why in enterface05.read(str(archive)).left_out}
  for emotion, code in trees.ENTERFACE05.items():
    reason = left_out.pop(f'subject 6/{emotion}/s6_{code}.avi')
    assert reason == 'not in the folder of a sentence, as subject 6, who has one uncut film for each emotion'
  assert 'not in the folders of a subject' in left_out.pop('subject 1/anger/sentence 6/s1_an_6.avi')
  assert 'macOS' in left_out.pop('subject 1/anger/sentence 1/__MACOSX/._s1_an_1.avi')
  assert not left_out


def test_the_whole_corpus_is_as_expected(tmp_path: pathlib.Path) -> None:
  """42 subjects with 30 films, subject 23 with 27, and six long ones of subject 6: 1293 files."""
  for subject in range(1, 45):
    for emotion, code in trees.ENTERFACE05.items():
      folder = tmp_path / f'subject {subject}' / emotion
      folder.mkdir(parents=True)
      for sentence in range(1, 6):
        if subject == 6:
          (folder / f's6_{code}.avi').touch()
        elif (subject, emotion) != (23, 'happiness') or sentence < 3:
          (folder / f'sentence {sentence}').mkdir()
          (folder / f'sentence {sentence}' / f's{subject}_{code}_{sentence}.avi').touch()
  found = enterface05.read(str(tmp_path))
  assert (len(found.clips), len(found.left_out), found.warnings) == (1287, 6, [])
  speakers = sorted({one.speaker for one in found.clips})
  assert speakers == [f'{number:02d}' for number in range(1, 45) if number != 6]
  published = found.narrowed(emotions=(), exclude_speakers=('23',))
  assert len(published.clips) == 1260 and len({one.speaker for one in published.clips}) == 42
  assert len(published.left_out) == 6 + 27

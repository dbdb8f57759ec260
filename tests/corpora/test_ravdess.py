"""RAVDESS: fields of the name to labels, on an archive with its defects."""

import pathlib

import pytest

from emo_jax.corpora import ravdess
from emo_jax.corpora.clip import Clip
from tests.corpora import trees

WORDS = ('neutral', 'calm', 'happiness', 'sadness', 'anger', 'fear', 'disgust', 'surprise')


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  return trees.ravdess(tmp_path_factory.mktemp('ravdess'))


def test_films_of_speech_are_the_clips(root: pathlib.Path) -> None:
  clips = {clip.id: clip for clip in ravdess.read(str(root)).clips}
  emotions = {f'01-01-{code:02d}-01-01-01-01': word for code, word in enumerate(WORDS, 1)}
  emotions |= {'01-01-05-02-02-02-04': 'anger', '01-01-04-01-01-01-05': 'sadness', '01-01-08-02-01-02-24': 'surprise'}
  assert {name: clip.emotion for name, clip in clips.items()} == emotions
  film = root / 'Actor_04/01-01-05-02-02-02-04.MP4'
  expected = Clip(film.stem, film, film, '04', 'anger', 'ravdess', sentence='02', group='1')
  assert clips[film.stem] == expected
  groups = {clip.speaker: clip.group for clip in clips.values()}
  assert groups == {'01': '1', '04': '1', '05': '2', '24': '6'}


def test_all_else_is_left_out_with_its_reason(root: pathlib.Path) -> None:
  left_out = {str(pathlib.Path(file).relative_to(root)): reason for file, reason in ravdess.read(str(root)).left_out}
  reasons = {
    'Video_Speech_Actor_01/Actor_01/02-01-03-01-01-01-01.mp4': 'picture or sound alone (modality 02)',
    'Video_Song_Actor_01/Actor_01/01-02-03-01-01-01-01.mp4': 'song',
    'Actor_05/01-01-04-01-01-01-06.mp4': 'named as of actor 06, in the folder of actor 05',
    'Actor_05/01-01-09-01-01-01-05.mp4': 'not a RAVDESS name',
    'Actor_25/01-01-03-01-01-01-25.mp4': 'not a RAVDESS name',
    'Audio_Speech_Actors_01-24/Actor_01/03-01-03-01-01-01-01.wav': 'no .wav file is a clip',
    'Video_Speech_Actor_01/Actor_01/01-01-03-01-01-01-01.mp4': 'another file of clip 01-01-03-01-01-01-01',
    'Actor_05/__MACOSX/._01-01-04-01-01-01-05.mp4': 'macOS',
  }
  assert left_out.keys() == reasons.keys()
  assert {file for file, reason in reasons.items() if reason not in left_out[file]} == set()


def test_a_part_of_the_corpus_is_told_from_the_whole(root: pathlib.Path) -> None:
  (warning,) = ravdess.read(str(root)).warnings
  assert '1440 clips, this archive 11' in warning
  assert '1 of 96 neutral' in warning and '2 of 192 anger' in warning


def test_the_whole_corpus_gives_no_warning_and_six_folds_of_four_actors(tmp_path: pathlib.Path) -> None:
  for actor in range(1, 25):
    folder = tmp_path / f'Actor_{actor:02d}'
    folder.mkdir()
    for emotion in range(1, 9):
      for intensity in (1, 2)[: 1 + (emotion > 1)]:
        for take in ('01-01', '01-02', '02-01', '02-02'):
          (folder / f'01-01-{emotion:02d}-{intensity:02d}-{take}-{actor:02d}.mp4').touch()
  listing = ravdess.read(str(tmp_path))
  assert len(listing.clips) == 1440 and not listing.warnings and not listing.left_out
  members = {group: {clip.speaker for clip in listing.clips if clip.group == group} for group in '123456'}
  assert members == {group: {f'{4 * i + j + 1:02d}' for j in range(4)} for i, group in enumerate('123456')}


@pytest.mark.parametrize('folder', ['films', 'Actors_01-24', 'Actor_05/Actor_13', 'Video_Speech_Actor_13', 'actor 13'])
def test_the_name_says_it_all_unless_its_folder_is_of_another_actor(tmp_path: pathlib.Path, folder: str) -> None:
  for place in (folder, 'Video_Speech_Actor_05'):
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / '01-01-06-01-02-01-13.mp4').touch()
  listing = ravdess.read(str(tmp_path))
  assert [reason[:45] for _, reason in listing.left_out] == ['named as of actor 13, in the folder of actor ']
  (clip,) = listing.clips
  assert (clip.speaker, clip.emotion, clip.sentence, clip.group) == ('13', 'fear', '02', '4')

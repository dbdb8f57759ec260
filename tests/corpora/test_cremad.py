"""CREMA-D: names and the crowd's votes to labels, on an archive with its defects."""

import collections
import itertools
import pathlib

import pytest

from emo_jax.corpora import cremad
from emo_jax.corpora.clip import Clip
from tests.corpora import trees

ACTED = {
  '1001_DFA_ANG_XX': 'anger',
  '1001_IEO_HAP_LO': 'happiness',
  '1018_TIE_FEA_XX': 'fear',
  '1019_WSI_DIS_XX': 'disgust',
  '1040_ITH_SAD_XX': 'sadness',
  '1072_MTI_NEU_XX': 'neutral',
  '1073_IWW_SAD_XX': 'sadness',
  '1090_IOM_FEA_XX': 'fear',
  '1091_TAI_HAP_XX': 'happiness',
}


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  return trees.cremad(tmp_path_factory.mktemp('cremad'))


def left_out(root: pathlib.Path, label: str) -> dict[str, str]:
  return {pathlib.Path(file).name: reason for file, reason in cremad.read(str(root), label=label).left_out}


def test_films_are_the_clips_with_the_emotions_that_were_acted(root: pathlib.Path) -> None:
  clips = {clip.id: clip for clip in cremad.read(str(root), label='acted').clips}
  assert {name: clip.emotion for name, clip in clips.items()} == ACTED
  film = root / 'VideoFlash/1040_ITH_SAD_X.flv'  # the one misnamed file of the corpus
  expected = Clip('1040_ITH_SAD_XX', film, film, '1040', 'sadness', 'cremad', sentence='ITH', group='3')
  assert clips['1040_ITH_SAD_XX'] == expected


def test_groups_are_the_listed_folds_whatever_part_of_the_corpus_is_there(root: pathlib.Path) -> None:
  groups = {clip.speaker: clip.group for clip in cremad.read(str(root), label='acted').clips}
  assert groups == {
    '1001': '1',
    '1018': '1',
    '1019': '2',
    '1040': '3',
    '1072': '4',
    '1073': '5',
    '1090': '5',
    '1091': '5',
  }


def test_all_else_is_left_out_with_its_reason(root: pathlib.Path) -> None:
  reasons = {
    '1064_TIE_SAD_XX.flv': 'without duration (README of CREMA-D)',
    '1064_IEO_DIS_MD.flv': 'a minute that holds all emotions',
    '1076_MTI_NEU_XX.flv': 'short and silent',
    '1076_MTI_SAD_XX.flv': 'short and silent',
    '1092_DFA_ANG_XX.flv': 'not a CREMA-D name',
    '1001_DFA_ANG_XX.wav': 'no .wav file is a clip',
    '1001_DFA_ANG_XX.mp3': 'no .mp3 file is a clip',
    '1002_DFA_ANG_XX.flv': 'Git LFS',
  }
  found = left_out(root, 'acted')
  assert found.keys() == reasons.keys()
  assert {file for file, reason in reasons.items() if reason not in found[file]} == set()


def test_the_crowd_says_what_it_saw_and_heard(root: pathlib.Path) -> None:
  emotions = {clip.id: clip.emotion for clip in cremad.read(str(root), label='crowd').clips}
  assert emotions == {
    '1001_DFA_ANG_XX': 'anger',
    '1001_IEO_HAP_LO': 'neutral',
    '1018_TIE_FEA_XX': 'fear',
    '1040_ITH_SAD_XX': 'sadness',
    '1072_MTI_NEU_XX': 'neutral',
    '1091_TAI_HAP_XX': 'happiness',
  }


def test_clips_on_which_the_crowd_says_nothing_clear_are_left_out(root: pathlib.Path) -> None:
  found = left_out(root, 'crowd')
  assert found.keys() - left_out(root, 'acted').keys() == {
    '1019_WSI_DIS_XX.flv',
    '1073_IWW_SAD_XX.flv',
    '1090_IOM_FEA_XX.flv',
  }
  assert found['1019_WSI_DIS_XX.flv'] == 'the crowd is not of one mind: A:D'
  assert 'no vote' in found['1073_IWW_SAD_XX.flv'] and 'no vote' in found['1090_IOM_FEA_XX.flv']


@pytest.mark.parametrize('label', ['acted', 'crowd'])
def test_a_part_of_the_corpus_is_told_from_the_whole_by_what_was_acted(root: pathlib.Path, label: str) -> None:
  (warning,) = cremad.read(str(root), label=label).warnings
  assert '7438 clips that can be used, this archive 9' in warning
  assert '2 of 1269 sadness' in warning and '1 of 1086 neutral' in warning


def test_the_whole_corpus_gives_no_warning_and_the_listed_folds(tmp_path: pathlib.Path) -> None:
  codes = ('ANG', 'DIS', 'FEA', 'HAP', 'SAD')
  sentences = ('DFA', 'IEO', 'IOM', 'ITH', 'ITS', 'IWL', 'IWW', 'MTI', 'TAI', 'TIE', 'TSI', 'WSI')
  takes = [f'{sentence}_{code}_XX' for sentence, code in itertools.product(sentences, codes) if sentence != 'IEO']
  takes += [f'IEO_{code}_{level}' for code, level in itertools.product(codes, ('LO', 'MD', 'HI'))]
  takes += [f'{sentence}_NEU_XX' for sentence in sentences]
  # Twenty of these are in no archive; which ones does not matter here.
  never = {f'{actor}_TSI_{code}_XX' for actor in (1002, 1003, 1004) for code in (*codes, 'NEU')}
  never |= {f'{actor}_TSI_NEU_XX' for actor in (1005, 1006)}
  for actor, take in itertools.product(range(1001, 1092), takes):
    if f'{actor}_{take}' not in never:
      (tmp_path / f'{actor}_{take}.flv').touch()
  listing = cremad.read(str(tmp_path), label='acted')
  assert len(listing.clips) == 7442 - 4 and len(listing.left_out) == 4 and not listing.warnings
  actors = collections.Counter(group for _, group in {(clip.speaker, clip.group) for clip in listing.clips})
  assert actors == {'1': 18, '2': 18, '3': 18, '4': 18, '5': 19}


@pytest.mark.parametrize(
  ('name', 'text', 'message'),
  [
    ('votes.csv', '', r'no processedResults/summaryTable\.csv below it, which config\.data\.cremad\.label=crowd needs'),
    ('summaryTable.csv', 'version https://git-lfs.github.com/spec/v1\n', 'pointer of Git LFS'),
    ('SummaryTable.csv', 'FileName,FaceVote\n1001_DFA_ANG_XX,A\n', 'no column MultiModalVote; there are'),
    ('summaryTable.csv', '', 'no column FileName and no column MultiModalVote'),
  ],
)
def test_the_crowd_needs_its_table(tmp_path: pathlib.Path, name: str, text: str, message: str) -> None:
  (tmp_path / '1001_DFA_ANG_XX.flv').touch()
  (tmp_path / name).write_text(text)
  assert len(cremad.read(str(tmp_path), label='acted').clips) == 1
  with pytest.raises(ValueError, match=message):
    cremad.read(str(tmp_path), label='crowd')


def test_an_archive_of_pointers_is_refused_with_the_way_out(tmp_path: pathlib.Path) -> None:
  (tmp_path / '1001_DFA_ANG_XX.flv').write_text('version https://git-lfs.github.com/spec/v1\n')
  with pytest.raises(ValueError, match='git lfs pull'):
    cremad.read(str(tmp_path), label='acted')

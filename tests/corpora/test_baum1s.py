"""BAUM-1s: labels from its annotation sheet, however it was exported, on an archive with its defects."""

import csv
import pathlib

import pytest

from emo_jax.corpora import baum1s
from emo_jax.corpora.clip import Clip
from tests.corpora import trees

EMOTIONS = {
  'S001_010': 'happiness',
  'S001_015': 'anger',
  'S002_001': 'neutral',
  'S002_048': 'sadness',
  'S003_020': 'surprise',
  'S004_030': 'fear',
  'S006_013': 'boredom',
  'S006_040': 'disgust',
  'S015_007': 'happiness',
}


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  return trees.baum1s(tmp_path_factory.mktemp('baum1s'))


def films(root: pathlib.Path, *names: str) -> None:
  for name in names:
    (root / name[:4].lower()).mkdir(exist_ok=True)
    (root / name[:4].lower() / f'{name}.mp4').touch()


def emotions(root: pathlib.Path) -> dict[str, str]:
  return {clip.id: clip.emotion for clip in baum1s.read(str(root)).clips}


def test_the_sheet_labels_the_films(root: pathlib.Path) -> None:
  clips = {clip.id: clip for clip in baum1s.read(str(root)).clips}
  assert {name: clip.emotion for name, clip in clips.items()} == EMOTIONS
  film = root / 'BAUM1s_MP4 - All/s006/S006_040.mp4'
  assert clips['S006_040'] == Clip('S006_040', film, film, 's006', 'disgust', 'baum1s')


def test_all_else_is_left_out_with_its_reason(root: pathlib.Path) -> None:
  base = root / 'BAUM1s_MP4 - All'
  reasons = {
    str(base / 's003/S003_022.mp4'): 'says fear and happiness',
    str(base / 's003/S003_023.mp4'): 'says 14 and Tired',
    str(base / 's003/S003_024.mp4'): 'says nothing',
    str(base / 's004/S004_099.mp4'): 'not in the annotation sheet',
    str(base / 's004/S006_040.mp4'): 'named as of subject 006, in the folder s004',
    str(base / 's006/holiday.mp4'): 'not a BAUM-1 name',
    str(root / 'BAUM1a_MP4_all/s001/S001_001.mp4'): 'acted',
    str(base / 's001/S001_010.wav'): 'no .wav file is a clip',
    str(base / 's001/__MACOSX/._S001_010.mp4'): 'macOS',
  }
  left_out = dict(baum1s.read(str(root)).left_out)
  assert left_out.keys() == reasons.keys()
  assert {file for file, reason in reasons.items() if reason not in left_out[file]} == set()


def test_warnings_tell_counts_missing_films_and_the_ambiguous_clip(root: pathlib.Path) -> None:
  whole, basic, missing, ambiguous = baum1s.read(str(root)).warnings
  assert '1222 clips, this archive 9' in whole
  assert '521 clips of the six basic emotions, this archive 7' in basic
  assert missing == 'clips of the annotation sheet without a film: 1 (S003_021)'
  assert 'S015_007 is ambiguous: the annotation sheet says happiness and neutral; kept as happiness' in ambiguous


def test_the_whole_corpus_gives_no_warning(tmp_path: pathlib.Path) -> None:
  names = [f'S{1 + number // 100:03d}_{number % 100:03d}' for number in range(1222)]
  films(tmp_path, *names)
  labels = ('Anger', 'Disgust', 'Fear', 'Happiness', 'Sadness', 'Surprise', 'Neutral', 'Contempt')
  rows = [f'{name},{labels[i % 6 if i < 521 else 6 + i % 2]}\n' for i, name in enumerate(names)]
  (tmp_path / 'Annotations_BAUM1s.csv').write_text(''.join(rows))
  listing = baum1s.read(str(tmp_path))
  assert len(listing.clips) == 1222 and not listing.left_out and not listing.warnings


def test_the_ambiguous_clip_is_kept_as_a_clear_sheet_says(tmp_path: pathlib.Path) -> None:
  films(tmp_path, 'S015_007')
  (tmp_path / 'BAUM1s.tsv').write_text('S015_007\tNeutral\t9\tf\n')
  listing = baum1s.read(str(tmp_path))
  assert [clip.emotion for clip in listing.clips] == ['neutral']
  assert 'says neutral; kept as neutral' in listing.warnings[-1]


SHEETS = {
  'header and words and codes': 'No,Subject,Sex,Clip,Emotion,Code\n1,3,F,S003_020,Surprise,11\n2,4,M,S004_030,Fear,7\n',
  'without a header': '1,3,F,S003_020,Surprise,11\n2,4,M,S004_030,Fear,7\n',
  'codes alone, in their place': 'No,Subject,Sex,Clip,Rater,Code\n1,3,F,S003_020,5,11\n2,4,M,S004_030,5,7\n',
  'codes alone, under a header': 'Clip,Rater,Emotion no.\ns003_020.mp4,5,11\ns004_030.mp4,5,7.0\n',
  'codes beside other numbers': 'Clip,Emotion,Emotion strength\nS003_020,11,5\nS004_030,7,5\n',
  'words alone': 'a,b\nsurprised,S003_020\nFEARFUL,S004_030\n',
  'semicolons': 'Subject;Clip;Emotion;Note\n3;S003_020;Surprise;loud, short\n4;S004_030;Fear;\n',
  'tabs': 'S003_020\tsurprise\t11\tf\nS004_030\tfear\t7\tm, young\n',
  'quotes': '"Clip name","Emotion"\n"S003_020","Surprise"\n"S004_030","Fear"\n',
  'an agreeing row twice': 'Clip,Emotion\nS003_020,Surprise\nS004_030,Fear\nS004_030,Fear\n',
}


@pytest.mark.parametrize('text', SHEETS.values(), ids=SHEETS)
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_an_exported_sheet_is_understood(tmp_path: pathlib.Path, text: str, encoding: str) -> None:
  films(tmp_path, 'S003_020', 'S004_030')
  (tmp_path / 'Labels').mkdir()
  (tmp_path / 'Labels/annotations_baum-1s - Sheet1.TXT').write_text(text, encoding=encoding)
  assert emotions(tmp_path) == {'S003_020': 'surprise', 'S004_030': 'fear'}


def test_every_code_and_every_word_is_known(tmp_path: pathlib.Path) -> None:
  words = (
    'Anger Boredom Bothered Concentrating Contempt Disgust Fear Happiness Neutral Sadness Surprise Thinking Unsure'
  )
  names = [f'S001_{code:03d}' for code in range(1, 14)]
  films(tmp_path, *names)
  with open(tmp_path / 'BAUM1s.csv', 'w', newline='') as file:
    csv.writer(file).writerows(
      [name, word, code] for code, (name, word) in enumerate(zip(names, words.split(), strict=True), 1)
    )
  assert emotions(tmp_path) == dict(zip(names, words.lower().split(), strict=True))  # word and code agree


def test_clips_of_two_emotions_or_of_an_unknown_one_are_left_out(tmp_path: pathlib.Path) -> None:
  films(tmp_path, 'S003_020', 'S004_030', 'S004_031')
  (tmp_path / 'BAUM1s.csv').write_text('S003_020,Surprise\nS004_030,Fear\nS004_030,Anger\nS004_031,Hungry\n')
  assert emotions(tmp_path) == {'S003_020': 'surprise'}


def test_the_original_sheet_goes_before_exported_ones(tmp_path: pathlib.Path) -> None:
  films(tmp_path, *EMOTIONS)
  (tmp_path / 'Annotations_BAUM1s.csv').write_text('S003_020,Anger\n')
  (tmp_path / 'Annotations_BAUM1a.csv').write_text('S003_020,Anger\n')
  (tmp_path / '~$Annotations_BAUM1s.xlsx').write_bytes(b'lock')
  trees.baum1s_sheet(tmp_path / 'Annotations_BAUM1s.xlsx')
  listing = baum1s.read(str(tmp_path))
  assert {clip.id: clip.emotion for clip in listing.clips} == EMOTIONS
  assert listing.warnings[0].endswith(f'not looked at: {tmp_path / "Annotations_BAUM1s.csv"}')


@pytest.mark.parametrize(
  ('name', 'data', 'message'),
  [
    ('README.txt', b'', r'no Annotations_BAUM1s\.xlsx below it'),
    ('Annotations_BAUM1a.csv', b'S003_020,Anger\n', r'no Annotations_BAUM1s\.xlsx below it'),
    (
      'BAUM1s.csv',
      b'Clip,Mood\nS003_020,good\n',
      r"the labels were not found; its header is \['Clip', 'Mood'\]; needed",
    ),
    ('BAUM1s.csv', b'Film,Emotion\n1,Anger\n', r"header is \['Film', 'Emotion'\]; needed are a column of clip names"),
    ('BAUM1s.csv', b'Clip,Rater\nS003_020,5\n', 'codes 1 to 13 under a header with "emotion"'),
    ('BAUM1s.csv', b'', r'the labels were not found; its header is \[\]'),
    ('BAUM1s.xlsx', b'nothing of a sheet', r'BAUM1s\.xlsx: cannot be read as a sheet \(BadZipFile'),
  ],
)
def test_a_sheet_that_does_not_serve_is_refused(tmp_path: pathlib.Path, name: str, data: bytes, message: str) -> None:
  films(tmp_path, 'S003_020')
  (tmp_path / name).write_bytes(data)
  with pytest.raises(ValueError, match=message):
    baum1s.read(str(tmp_path))

"""Archives as users have them: each corpus's exact folders and names, defects included, of tiny real films.

Each function builds its corpus below a folder and returns what config.data.root is to be. No two films are alike, but
where an archive was unpacked twice.
"""

import csv
import pathlib
import shutil
import zlib
from typing import Any

import numpy as np

BAUM1S = (  # rows of BAUM-1s's sheet: clip, emotion, code
  *(('S001_010', 'Happiness', 8), ('S001_015', 'Anger', 1), ('S002_048', 'Sadness', 10), ('S002_001', 'Neutral', 9)),
  *(('S003_020', 'Surprise', 11), ('S004_030', 'Fear', 7), ('S006_040', 'Disgust', 6), ('S006_013', 'Boredom', 2)),
  ('S015_007', 'Happiness', 9),  # word and code differ, as in the original
  ('S003_022', 'Fear', 8),  # and so do these
  ('S003_023', 'Tired', 14),  # no emotion of the corpus
  ('S003_024', None, None),
  ('S003_021', 'Thinking', 12),  # no film
)
ENTERFACE05 = {'anger': 'an', 'disgust': 'di', 'fear': 'fe', 'happiness': 'ha', 'sadness': 'sa', 'surprise': 'su'}


def film(
  path: pathlib.Path,
  *,
  picture: str | None = 'mpeg4',
  sound: str | None = 'pcm_s16le',
  fps: int = 30,
  rate: int = 44100,
  container: str | None = None,
) -> pathlib.Path:
  """A film of 0.7 s in its container (which the name says), its noise drawn from its name; without a face."""
  import av

  rng = np.random.default_rng(zlib.crc32(str(path).encode(errors='surrogateescape')))
  path.parent.mkdir(parents=True, exist_ok=True)
  with av.open(str(path), 'w', format=container) as file:
    streams: list[tuple[Any, list[Any]]] = []
    if picture:
      stream: Any = file.add_stream(picture, rate=fps)
      stream.height, stream.width, stream.pix_fmt = 48, 64, 'yuv420p'
      images = rng.integers(0, 256, (int(0.7 * fps), 48, 64, 3), np.uint8)
      streams.append((stream, [av.VideoFrame.from_ndarray(image, format='rgb24') for image in images]))
    if sound:
      wave = rng.integers(-3000, 3000, (1, int(0.7 * rate)), np.int16)
      frame = av.AudioFrame.from_ndarray(wave, format='s16', layout='mono')
      frame.rate = rate
      streams.append((file.add_stream(sound, rate=rate, layout='mono'), [frame]))
    for stream, frames in streams:
      for frame in [*frames, None]:
        file.mux(stream.encode(frame))
  return path


def clutter(folder: pathlib.Path, name: str) -> None:
  """What systems leave in folders: thumbnails, and macOS's companion of the file `name`."""
  companion = folder / '__MACOSX' / f'._{name}'
  companion.parent.mkdir(parents=True)
  companion.write_bytes(bytes(120))
  for thumbnails in (folder, companion.parent):
    (thumbnails / 'Thumbs.db').write_bytes(bytes(64))


def rml(root: pathlib.Path) -> pathlib.Path:
  """RML (method.md B2): two archives, speaker s1 in two languages, names in upper and lower case and with spaces."""
  names = ['rml-1/s1/English/an1', 'rml-1/s1/English/su2', 'rml-1/s1/Punjabi/an1', 'rml-1/s1/Punjabi/di1']
  names += ['rml-1/s2/AN1', 'rml-1/s2/Ha10', 'rml-1/S3/fe1', 'rml-1/S3/sa 1', 'rml-1/s4/an1', 'rml-1/s4/di1']
  names += ['rml-1/s5/an1', 'rml-1/s5/ha1', 'rml-2/s6/su1', 'rml-2/s6/sa1', 'rml-2/s7/an1', 'rml-2/s7/fe1']
  names += ['rml-2/s8/an1', 'rml-2/s8/ha1', 'rml-2/s8/sample1', 'rml-2/an9']  # the last two: no clips
  for name in names:
    film(root / f'{name}.{"AVI" if name.endswith("AN1") else "avi"}', rate=22050)
  film(root / 'rml-2/s8/ha1.wav', picture=None, rate=22050)
  (root / 'rml-2 (1)/rml-2/s8').mkdir(parents=True)
  shutil.copy(root / 'rml-2/s8/an1.avi', root / 'rml-2 (1)/rml-2/s8/an1.avi')
  clutter(root / 'rml-1/s2', 'AN1.AVI')
  return root


def enterface05(root: pathlib.Path) -> pathlib.Path:
  """eNTERFACE05 (method.md B1): subject 6 uncut, 11 with another's names, 23 short, an empty neutral folder, typos."""
  base = root / 'project2_database/enterface database'
  for subject, called in ((1, '1'), (2, '2'), (3, '_3'), (11, '12'), (12, '12'), (16, '16'), (23, '23')):
    for emotion, code in ENTERFACE05.items():
      for sentence in (1, 2) if emotion == 'anger' else (3,):
        if (subject, emotion) == (23, 'happiness'):
          continue
        name = 's16_su_3avi.avi' if (subject, code) == (16, 'su') else f's{called}_{code}_{sentence}.avi'
        name = 's2_di_2.avi' if (subject, code, sentence) == (2, 'an', 2) else name  # a wrong emotion in the name
        film(base / f'subject {subject}' / emotion / f'sentence {sentence}' / name, fps=25, rate=48000)
  for emotion, code in ENTERFACE05.items():
    film(base / 'subject 6' / emotion / f's6_{code}.avi', fps=25, rate=48000)
  (base / 'subject 1/neutral').mkdir()
  film(base / 'Subject 2/Fear/Sentence 4/S2_FE_4.AVI', fps=25, rate=48000)
  film(base / 'subject 1/anger/sentence 6/s1_an_6.avi', fps=25, rate=48000)
  clutter(base / 'subject 1/anger/sentence 1', 's1_an_1.avi')
  return root


def savee(root: pathlib.Path) -> pathlib.Path:
  """SAVEE (method.md B6): the films, and the sound-only release beside them with its two-digit names."""
  for speaker in ('DC', 'JE', 'JK', 'KL'):
    for name in ('a1', 'sa2', 'su3', 'n30') if speaker == 'DC' else ('a1', 'n1'):
      film(root / 'AudioVisualClip' / speaker / f'{name}.avi', fps=60)
    film(root / 'AudioData' / speaker / 'a01.wav', picture=None)
  film(root / 'AudioVisualClip/kl/H 15.AVI', fps=60)
  film(root / 'AudioVisualClip/KL/x1.avi', fps=60)
  film(root / 'AudioVisualClip/d1.avi', fps=60)
  clutter(root / 'AudioVisualClip/DC', 'a1.avi')
  return root


def java_sed(root: pathlib.Path) -> pathlib.Path:
  """Java-SED: films, sound-only takes of the same, and a film whose name says nothing."""
  for speaker in ('01', '02', '06', '10'):
    for emotion in ('01', '06'):
      film(root / f'video/{speaker}-01-{emotion}_01.mp4', picture='libx264', sound='libmp3lame')
    film(root / f'audio/{speaker}-01-01_02.flac', picture=None, sound='flac', rate=16000)
  film(root / 'video/02-03-01_01.MP4', picture='libx264', sound='libmp3lame')
  film(root / 'video/01-02-07_01.mp4', picture='libx264', sound='libmp3lame')  # there is no emotion 07
  return root


def manifest(root: pathlib.Path) -> pathlib.Path:
  """A CSV of films and of a film whose sound lies in a file of its own; names hold what names can hold."""
  rows = [['path', 'speaker', 'emotion', 'sound']]
  for name, speaker, emotion in (('a, "b".mp4', 'ann', 'joy'), ('c d.mkv', 'ann', 'fear'), ('ü/e.mp4', 'bob', 'joy')):
    film(root / name, picture='libx264', sound='aac')
    rows.append([name, speaker, emotion, ''])
  film(root / 'f.mp4', picture='libx264', sound=None)
  film(root / 'f.wav', picture=None)
  rows.append(['f.mp4', 'bob', 'fear', 'f.wav'])
  with open(root / 'clips.csv', 'w', newline='', encoding='utf-8') as file:
    csv.writer(file).writerows(rows)
  return root / 'clips.csv'


def baum1s(root: pathlib.Path) -> pathlib.Path:
  """BAUM-1s (method.md B3): the sheet beside the folders, the acted clips beside the spontaneous ones."""
  base = root / 'BAUM1s_MP4 - All'
  for name, *_ in BAUM1S:
    if name != 'S003_021':
      film(base / name[:4].lower() / f'{name}.mp4', picture='libx264', sound='aac')
  for name in ('s004/S004_099', 's004/S006_040', 's006/holiday'):  # not in the sheet; misplaced; something else
    film(base / f'{name}.mp4', picture='libx264', sound='aac')
  film(root / 'BAUM1a_MP4_all/s001/S001_001.mp4', picture='libx264', sound='aac')
  film(base / 's001/S001_010.wav', picture=None)
  (base / 's001/S001_010.srt').write_text('1\n00:00:00,000 --> 00:00:00,700\nMerhaba\n')
  clutter(base / 's001', 'S001_010.mp4')
  baum1s_sheet(root / 'Annotations_BAUM1s.xlsx')
  return root


def baum1s_sheet(path: pathlib.Path) -> None:
  """Writes BAUM-1s's sheet; like the original its columns 1, 3 and 5 are subject, clip and code."""
  import openpyxl

  book = openpyxl.Workbook()
  book.active.append(['Codes', 'as in S001_001'])
  table = book.create_sheet('Annotations')
  table.append(['Annotations of BAUM-1s'])
  table.append(['No', 'Subject', 'Gender', 'Clip Name', 'Emotion', 'Emotion Code', 'Annotators'])
  for number, (name, word, code) in enumerate(BAUM1S, 1):
    table.append([number, int(name[1:4]), 'F', name, word, code, 5])
  book.save(path)


def ravdess(root: pathlib.Path) -> pathlib.Path:
  """RAVDESS (method.md B4): both layouts, song, sounds, a misplaced film, an archive that was unpacked twice."""
  zipped = 'Video_Speech_Actor_01/Actor_01'
  for emotion in range(1, 9):
    film(root / f'{zipped}/01-01-{emotion:02d}-01-01-01-01.mp4', picture='libx264', sound='aac', rate=48000)
  for name in ('Actor_04/01-01-05-02-02-02-04', 'Actor_05/01-01-04-01-01-01-05', 'actor_24/01-01-08-02-01-02-24'):
    film(root / f'{name}.MP4', picture='libx264', sound='aac', rate=48000)
  film(root / f'{zipped}/02-01-03-01-01-01-01.mp4', picture='libx264', sound=None)
  for name in ('Video_Song_Actor_01/Actor_01/01-02-03-01-01-01-01', 'Actor_05/01-01-04-01-01-01-06'):
    film(root / f'{name}.mp4', picture='libx264', sound='aac', rate=48000)
  for name in ('Actor_05/01-01-09-01-01-01-05', 'Actor_25/01-01-03-01-01-01-25'):  # no such emotion, no such actor
    film(root / f'{name}.mp4', picture='libx264', sound='aac', rate=48000)
  film(root / 'Audio_Speech_Actors_01-24/Actor_01/03-01-03-01-01-01-01.wav', picture=None, rate=48000)
  (root / 'RAVDESS/Actor_01').mkdir(parents=True)
  shutil.copy(root / f'{zipped}/01-01-03-01-01-01-01.mp4', root / 'RAVDESS/Actor_01')
  clutter(root / 'Actor_05', '01-01-04-01-01-01-05.mp4')
  return root


def cremad(root: pathlib.Path) -> pathlib.Path:
  """CREMA-D (method.md B5): films, both sets of sounds, the bad clips, a pointer of Git LFS, the crowd's table."""
  votes = {'1001_DFA_ANG_XX': 'A', '1001_IEO_HAP_LO': 'N', '1018_TIE_FEA_XX': 'F', '1019_WSI_DIS_XX': 'A:D'}
  votes |= {'1040_ITH_SAD_XX': 'S', '1072_MTI_NEU_XX': 'N', '1073_IWW_SAD_XX': '', '1091_TAI_HAP_XX': 'H'}
  votes |= {'1064_TIE_SAD_XX': 'S', '1064_IEO_DIS_MD': 'D', '1076_MTI_NEU_XX': 'N', '1076_MTI_SAD_XX': 'S'}
  for name in [*votes, '1090_IOM_FEA_XX']:  # the last one is in no table
    called = '1040_ITH_SAD_X' if name == '1040_ITH_SAD_XX' else name
    film(root / f'VideoFlash/{called}.flv', picture='flv', sound='libmp3lame')
  film(root / 'VideoFlash/1092_DFA_ANG_XX.flv', picture='flv', sound='libmp3lame')  # there is no actor 1092
  film(root / 'AudioWAV/1001_DFA_ANG_XX.wav', picture=None, rate=16000)
  film(root / 'AudioMP3/1001_DFA_ANG_XX.mp3', picture=None, sound='libmp3lame')
  (root / 'VideoFlash/1002_DFA_ANG_XX.flv').write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\n')
  (root / 'processedResults').mkdir()
  with open(root / 'processedResults/summaryTable.csv', 'w', newline='') as file:
    table = csv.writer(file, quoting=csv.QUOTE_ALL)
    columns = [f'{of}{what}' for of in ('Voice', 'Face', 'MultiModal') for what in ('Vote', 'Level')]
    table.writerow(['', 'FileName', *columns])
    for number, (name, vote) in enumerate(votes.items(), 1):
      table.writerow([number, name, 'D', '60.5', 'D', '50', vote, '70:52.25' if ':' in vote else '70'])
  return root

"""CREMA-D: acted emotional speech in English, filmed, and judged by a crowd (pipeline step: clips in).

Cao, Cooper, Keutmann, Gur, Nenkova, Verma, "CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset", IEEE Trans.
Affective Computing 5(4), 2014; Open Database License. Home: GitHub, CheyneyComputerScience/CREMA-D; its zip download
holds pointers of Git LFS in place of films. Protocol: HiCMAE's 5 folds of actors in the order of their numbers
(Clip.group; method.md B5). Widely used lists share actors between training and test: results on them do not compare.

Layout (method.md B5): `VideoFlash/1001_DFA_ANG_XX.flv`, fields actor, sentence, emotion and level; `AudioWAV` and
`AudioMP3` hold the same sounds once more; `processedResults/summaryTable.csv` holds what the crowd said.
"""

import csv
import dataclasses
import pathlib
import re
from collections.abc import Mapping

from emo_jax.corpora import archive
from emo_jax.corpora.clip import Clip, Listing

EMOTIONS = {'ANG': 'anger', 'DIS': 'disgust', 'FEA': 'fear', 'HAP': 'happiness', 'NEU': 'neutral', 'SAD': 'sadness'}
SENTENCES = ('DFA', 'IEO', 'IOM', 'ITH', 'ITS', 'IWL', 'IWW', 'MTI', 'TAI', 'TIE', 'TSI', 'WSI')
BAD = {  # says the corpus's README
  '1064_IEO_DIS_MD': 'a minute that holds all emotions of the sentence',
  '1064_TIE_SAD_XX': 'a film without duration',
  '1076_MTI_NEU_XX': 'very short and silent',
  '1076_MTI_SAD_XX': 'very short and silent, its picture an error',
}
# 7442 films in all, 1271 of each emotion and 1087 neutral ones, less the bad ones.
EXPECTED = {'anger': 1271, 'disgust': 1270, 'fear': 1271, 'happiness': 1271, 'neutral': 1086, 'sadness': 1269}
FIRST, LAST, FOLDS, FOLD = 1001, 1091, 5, 18  # actors; folds, and the actors of each but the last, which has one more
# One file is named 1040_ITH_SAD_X where the tables say 1040_ITH_SAD_XX.
NAME = re.compile(rf'(\d{{4}})_({"|".join(SENTENCES)})_({"|".join(EMOTIONS)})_(LO|MD|HI|XX?)', re.IGNORECASE)


def _id(stem: str) -> str | None:
  """The clip's name as the tables write it; None for a name that is not of the corpus."""
  match = NAME.fullmatch(stem.strip())
  if match is None or not FIRST <= int(match[1]) <= LAST:
    return None
  name = match[0].upper()
  return f'{name}X' if name.endswith('_X') else name


def _clip(path: pathlib.Path) -> Clip | str:
  """The clip with the emotion that was acted, or why a file is none."""
  name = _id(path.stem)
  if name is None:
    return 'not a CREMA-D name (actor 1001 to 1091, sentence, emotion and level, as 1001_DFA_ANG_XX)'
  if name in BAD:
    return f'known to be bad: {BAD[name]} (README of CREMA-D)'
  actor, sentence, emotion, _ = name.split('_')
  return Clip(
    id=name,
    picture=path,
    sound=path,
    speaker=actor,
    emotion=EMOTIONS[emotion],
    corpus='cremad',
    sentence=sentence,
    group=str(min((int(actor) - FIRST) // FOLD, FOLDS - 1) + 1),
  )


def _votes(root: str) -> dict[str, str]:
  """What most of those said who saw and heard a clip: the letter of an emotion, or letters with colons in a tie.

  Raises:
    ValueError: no summaryTable.csv below root, or not the columns of one.
  """
  paths, left_out = archive.walk(root, ('.csv',))
  tables = [path for path in paths if path.name.lower() == 'summarytable.csv']
  if not tables:
    why = ''.join(f' ({file}: {reason})' for file, reason in left_out if file.lower().endswith('summarytable.csv'))
    raise ValueError(
      f'{root}: no processedResults/summaryTable.csv below it{why}, which config.data.cremad.label=crowd needs; fetch '
      'it from the corpus, or use label=acted'
    )
  with open(tables[0], encoding='utf-8-sig', errors='replace', newline='') as file:
    rows = csv.DictReader(file)
    if missing := [name for name in ('FileName', 'MultiModalVote') if name not in (rows.fieldnames or [])]:
      raise ValueError(f'{tables[0]}: no column {" and no column ".join(missing)}; there are {rows.fieldnames}')
    return {(row['FileName'] or '').strip(): (row['MultiModalVote'] or '').strip() for row in rows}


def _by_the_crowd(found: Listing, votes: Mapping[str, str]) -> Listing:
  """The listing with the crowd's emotions for those that were acted."""
  letters = {emotion[0]: word for emotion, word in EMOTIONS.items()}
  clips, left_out = [], list(found.left_out)
  for clip in found.clips:
    vote = votes.get(clip.id, '')
    if vote in letters:
      clips.append(dataclasses.replace(clip, emotion=letters[vote]))
    else:
      reason = f'the crowd is not of one mind: {vote}' if ':' in vote else 'no vote of the crowd in summaryTable.csv'
      left_out += [(str(path), reason) for path in clip.files]
  return dataclasses.replace(found, clips=clips, left_out=left_out)


def read(root: str, *, label: str) -> Listing:
  """Lists the films.

  Args:
    label: 'acted', the emotion that the actor was asked for, or 'crowd', what most of those said who saw and heard the
      clip (clips on which they were not of one mind are left out).

  Raises:
    ValueError: no such folder, no film of CREMA-D below it, or no table of the crowd's votes where they are wanted.
  """
  found = archive.listing(root, _clip, example='VideoFlash/1001_DFA_ANG_XX.flv')
  warnings = archive.differences(
    found.clips, clips_expected=sum(EXPECTED.values()), emotions=EXPECTED, kind='clips that can be used'
  )
  found = dataclasses.replace(found, warnings=warnings)
  return _by_the_crowd(found, _votes(root)) if label == 'crowd' else found

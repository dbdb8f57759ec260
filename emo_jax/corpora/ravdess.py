"""RAVDESS: acted emotional speech in North American English, filmed (pipeline step: clips in).

Livingstone, Russo, "The Ryerson Audio-Visual Database of Emotional Speech and Song (RAVDESS)", PLoS ONE 13(5), 2018;
CC BY-NC-SA 4.0. Home: Zenodo, record 1188976. Protocol: the 6 folds of MSAF, four actors each in the order of their
numbers (Clip.group; method.md B4). CFN-SR's 5 folds are the first five of them: it never tests the last four actors.

Layout (method.md B4): `Actor_01/01-01-03-01-02-01-01.mp4`, or that below `Video_Speech_Actor_01`. The fields are
modality, channel, emotion, intensity, statement, repetition and actor; the clips are the films of speech with sound.
"""

import dataclasses
import pathlib
import re

from emo_jax.corpora import archive
from emo_jax.corpora.clip import Clip, Listing

EMOTIONS = {
  '01': 'neutral',
  '02': 'calm',
  '03': 'happiness',
  '04': 'sadness',
  '05': 'anger',
  '06': 'fear',
  '07': 'disgust',
  '08': 'surprise',
}
EXPECTED = {**dict.fromkeys(EMOTIONS.values(), 192), 'neutral': 96}  # neutral has one intensity, the others two
ACTORS, FOLD = 24, 4  # actors in all, and in a fold
NAME = re.compile(r'(0[1-3])-(0[12])-(0[1-8])-0[12]-(0[12])-0[12]-(\d\d)')
ACTOR = re.compile(r'(?:.*[\s_])?actor[\s_]*(\d+)', re.IGNORECASE)


def _clip(path: pathlib.Path, root: pathlib.Path) -> Clip | str:
  """The clip, or why a file is none."""
  match = NAME.fullmatch(path.stem.strip())
  if match is None or not 1 <= int(match[5]) <= ACTORS:
    return 'not a RAVDESS name (seven fields of two digits, as 01-01-03-01-02-01-01; actors 01 to 24)'
  modality, channel, emotion, statement, actor = match.groups()
  if channel == '02':
    return 'song (channel 02); the clips are speech'
  if modality != '01':
    return f'picture or sound alone (modality {modality}); the clips have both (modality 01)'
  folders = [found[1] for name in path.relative_to(root).parts[:-1] if (found := ACTOR.fullmatch(name))]
  if folders and int(folders[-1]) != int(actor):
    return f'named as of actor {actor}, in the folder of actor {folders[-1]}: one of them is wrong'
  return Clip(
    id=match[0],
    picture=path,
    sound=path,
    speaker=actor,
    emotion=EMOTIONS[emotion],
    corpus='ravdess',
    sentence=statement,
    group=str((int(actor) - 1) // FOLD + 1),
  )


def read(root: str) -> Listing:
  """Lists the films of speech with sound.

  Raises:
    ValueError: no such folder, or no such film of RAVDESS below it.
  """
  example = 'Actor_01/01-01-03-01-02-01-01.mp4'
  found = archive.listing(root, lambda path: _clip(path, pathlib.Path(root)), example=example)
  warnings = archive.differences(found.clips, clips_expected=1440, emotions=EXPECTED)
  return dataclasses.replace(found, warnings=warnings)

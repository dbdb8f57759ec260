"""SAVEE: four Englishmen act seven emotions, filmed (pipeline step: clips in).

Haq, Jackson, "Speaker-Dependent Audio-Visual Emotion Recognition", AVSP 2009. Home: the University of Surrey, which
gives it out on registration; its terms hold.
Leave one speaker out, 4 folds; `config.data.emotions` narrows the seven emotions to the six without neutral.

Layout (method.md B6): `AudioVisualClip/DC/a1.avi`, speakers DC, JE, JK, KL; names are one or two letters of the emotion
and a number. The sound-only release, `DC/a01.wav`, holds the same recordings and is left out.
"""

import dataclasses
import pathlib
import re

from emo_jax.corpora import archive
from emo_jax.corpora.clip import Clip, Listing

EMOTIONS = {
  'a': 'anger',
  'd': 'disgust',
  'f': 'fear',
  'h': 'happiness',
  'n': 'neutral',
  'sa': 'sadness',
  'su': 'surprise',
}
EXPECTED = {**dict.fromkeys(EMOTIONS.values(), 60), 'neutral': 120}
SPEAKER = re.compile(r'\s*(DC|JE|JK|KL)\s*', re.IGNORECASE)
NAME = re.compile(r'\s*(sa|su|[adfhn])\s*(\d+)\s*', re.IGNORECASE)


def _clip(path: pathlib.Path, root: pathlib.Path) -> Clip | str:
  """The clip, or why a film is none."""
  speakers = [match[1].upper() for name in path.relative_to(root).parts[:-1] if (match := SPEAKER.fullmatch(name))]
  if not speakers:
    return 'not in the folder of a speaker (DC, JE, JK, KL)'
  if not (match := NAME.fullmatch(path.stem)):
    return f'the name is not an emotion of SAVEE ({", ".join(EMOTIONS)}) and a number'
  code = match[1].lower()
  return Clip(
    id=f'{speakers[-1]}/{code}{int(match[2]):02d}',
    picture=path,
    sound=path,
    speaker=speakers[-1],
    emotion=EMOTIONS[code],
    corpus='savee',
  )


def read(root: str) -> Listing:
  """Lists the films of the four speakers.

  Raises:
    ValueError: no such folder, or no film of SAVEE below it.
  """
  found = archive.listing(root, lambda path: _clip(path, pathlib.Path(root)), example='DC/a1.avi')
  warnings = archive.differences(found.clips, clips_expected=480, emotions=EXPECTED)
  return dataclasses.replace(found, warnings=warnings)

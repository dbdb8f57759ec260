"""RML: acted emotional speech in six languages, filmed (pipeline step: clips in).

Wang, Guan, "Recognizing Human Emotional State From Audiovisual Signals", IEEE Trans. Multimedia 10(5), 2008. Home: the
Ryerson Multimedia Lab (Kaggle: ryersonmultimedialab/ryerson-emotion-database), whose terms hold.
Protocol of Zhang et al.: leave one speaker out, 8 folds (method.md A6).

Layout (method.md B2): `rml-1/s1` to `rml-2/s8`, in them the films, or a folder for each language that the speaker
acted in; names are two letters of the emotion and a number, which repeat from folder to folder.
"""

import dataclasses
import pathlib
import re

from emo_jax.corpora import archive
from emo_jax.corpora.clip import Clip, Listing

EMOTIONS = {'an': 'anger', 'di': 'disgust', 'fe': 'fear', 'ha': 'happiness', 'sa': 'sadness', 'su': 'surprise'}
EXPECTED = dict.fromkeys(EMOTIONS.values(), 120)
SPEAKER = re.compile(r's\s*([1-8])\s*', re.IGNORECASE)
NAME = re.compile(r'\s*(an|di|fe|ha|sa|su)[\s_-]*\d.*', re.IGNORECASE | re.DOTALL)


def _clip(path: pathlib.Path, root: pathlib.Path) -> Clip | str:
  """The clip, or why a film is none."""
  folders = path.relative_to(root).parts[:-1]
  speakers = [(i, match[1]) for i, name in enumerate(folders) if (match := SPEAKER.fullmatch(name))]
  if not speakers:
    return 'not in the folder of a speaker (s1 to s8)'
  if not (match := NAME.fullmatch(path.stem)):
    return f'the name does not begin with an emotion of RML ({", ".join(EMOTIONS)}) and a number'
  depth, number = speakers[-1]
  below = [*folders[depth + 1 :], path.stem]  # the language, where there is one
  return Clip(
    id='/'.join([f's{number}', *(name.strip().lower() for name in below)]),
    picture=path,
    sound=path,
    speaker=f's{number}',
    emotion=EMOTIONS[match[1].lower()],
    corpus='rml',
  )


def read(root: str) -> Listing:
  """Lists the films of the eight speakers.

  Raises:
    ValueError: no such folder, or no film of RML below it.
  """
  found = archive.listing(root, lambda path: _clip(path, pathlib.Path(root)), example='s1/an1.avi')
  warnings = archive.differences(found.clips, clips_expected=720, emotions=EXPECTED)
  return dataclasses.replace(found, warnings=warnings)

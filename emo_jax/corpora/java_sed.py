"""Java-SED: acted emotional speech in Javanese, filmed (pipeline step: clips in).

Arifin, Priambodo, Nasuha, Winursito, Gunawan, "Development of Javanese Speech Emotion Database (Java-SED)", 2022;
MIT licence. Names are `AA-BB-CC_DD`: speaker, sentence, emotion, repetition. Below the root, `video/*.mp4` are the
films; `audio/*.flac` are sound-only takes of the same speakers, sentences and emotions.
"""

import dataclasses
import pathlib
import re

from emo_jax.corpora import archive
from emo_jax.corpora.clip import Clip, Listing

EMOTIONS = {'01': 'neutral', '02': 'sadness', '03': 'happiness', '04': 'surprise', '05': 'fear', '06': 'anger'}
EXPECTED = dict.fromkeys(EMOTIONS.values(), 40)  # of 10 speakers with 4 sentences
NAME = re.compile(r'(\d\d)-(\d\d)-(\d\d)_(\d\d)')


def _clip(path: pathlib.Path, *, takes: bool) -> Clip | str:
  """The clip, or why a file is none."""
  film, match = archive.ending(path) == '.mp4', NAME.fullmatch(path.stem)
  if not (film or takes):
    return 'a take, sound alone: config.data.java_sed.takes=True learns from them'
  if match is None or match[3] not in EMOTIONS:
    return 'not a Java-SED name (speaker-sentence-emotion_repetition, emotions 01 to 06)'
  return Clip(
    id=path.stem if film else f'take_{path.stem}',
    picture=path if film else None,
    sound=path,
    speaker=match[1],
    emotion=EMOTIONS[match[3]],
    corpus='java_sed',
    sentence=match[2],
    role='evaluate' if film else 'train_only',
  )


def read(root: str, *, takes: bool) -> Listing:
  """Lists the films, and with `takes` the sound-only takes as half clips that are only learnt from.

  Raises:
    ValueError: no such folder, or no clip of the corpus below it.
  """
  example, endings = 'video/01-02-03_01.mp4', ('.mp4', '.flac')
  found = archive.listing(root, lambda path: _clip(path, takes=takes), example=example, endings=endings)
  films = [clip for clip in found.clips if clip.role == 'evaluate']
  warnings = archive.differences(films, clips_expected=sum(EXPECTED.values()), emotions=EXPECTED, kind='films')
  return dataclasses.replace(found, warnings=warnings)

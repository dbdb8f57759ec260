"""Java-SED: acted emotional speech in Javanese, filmed (pipeline step: clips in).

Arifin, Priambodo, Nasuha, Winursito, Gunawan, "Development of Javanese Speech Emotion Database (Java-SED)", 2022;
MIT licence. Names are `AA-BB-CC_DD`: speaker, sentence, emotion, repetition. Below the root, `video/*.mp4` are the
films; `audio/*.flac` are sound-only takes of the same speakers, sentences and emotions.
"""

import pathlib
import re

from emo_jax.corpora.clip import Clip

EMOTIONS = {'01': 'neutral', '02': 'sadness', '03': 'happiness', '04': 'surprise', '05': 'fear', '06': 'anger'}
NAME = re.compile(r'(\d\d)-(\d\d)-(\d\d)_(\d\d)')


def _clip(path: pathlib.Path, *, film: bool) -> Clip:
  match = NAME.fullmatch(path.stem)
  if match is None or match[3] not in EMOTIONS:
    raise ValueError(f'{path}: not a Java-SED name (speaker-sentence-emotion_repetition, emotions 01 to 06)')
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


def read(root: str, *, takes: bool) -> list[Clip]:
  """Lists the films, and with `takes` the sound-only takes as half clips that are only learnt from.

  Raises:
    ValueError: no films below the root, or a file whose name is not of the corpus.
  """
  films = sorted(pathlib.Path(root).rglob('video/*.mp4'))
  if not films:
    raise ValueError(f'{root}: no video/*.mp4 below it; point config.data.root at the unpacked Java-SED')
  sounds = sorted(pathlib.Path(root).rglob('audio/*.flac')) if takes else []
  return [_clip(path, film=True) for path in films] + [_clip(path, film=False) for path in sounds]

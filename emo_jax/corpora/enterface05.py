"""eNTERFACE05: emotions elicited and acted in English, filmed (pipeline step: clips in).

Martin, Kotsia, Macq, Pitas, "The eNTERFACE'05 Audio-Visual Emotion Database", ICDE Workshops, 2006. The corpus's page
says MIT licence; the archive is `project2_database.zip`.
Protocol of Zhang et al.: speakers dealt to 5 groups, leave one group out (method.md A6). Who was in which group is not
published; sorted speakers are dealt round robin here.

Layout (method.md B1): `enterface database/subject 1/anger/sentence 1/s1_an_1.avi`, 44 subjects, 6 emotions, 5 sentences
to each emotion. What is known of it:

- Speaker, emotion and sentence are taken from the folders alone: some twenty file names are wrong, and all of subject
  11 are called `s12_...`.
- Subject 6 is not cut into sentences: six long films, left out.
- Subject 23 lacks three films of happiness, so 43 subjects have 1287. Papers that count 42 subjects and 1260 films
  leave the speaker out: `--config.data.exclude_speakers='("23",)'`.
- Each emotion has sentences of its own, so the words alone tell the class: sound does better here than where all
  emotions are said in the same words.
"""

import dataclasses
import pathlib
import re

from emo_jax.corpora import archive
from emo_jax.corpora.clip import Clip, Listing

EMOTIONS = ('anger', 'disgust', 'fear', 'happiness', 'sadness', 'surprise')
EXPECTED = {**dict.fromkeys(EMOTIONS, 43 * 5), 'happiness': 43 * 5 - 3}
FOLDERS = re.compile(
  rf'(.*/)?subject[\s_]*(\d+)\s*/\s*({"|".join(EMOTIONS)})\s*(/\s*sentence[\s_]*([1-5])\s*)?', re.IGNORECASE | re.DOTALL
)


def _clip(path: pathlib.Path, root: pathlib.Path) -> Clip | str:
  """The clip, or why a film is none."""
  match = FOLDERS.fullmatch(path.relative_to(root).parent.as_posix())
  if match is None:
    return 'not in the folders of a subject, an emotion and a sentence (subject 1/anger/sentence 1)'
  speaker, emotion, sentence = f'{int(match[2]):02d}', match[3].lower(), match[5]
  if sentence is None:
    return 'not in the folder of a sentence, as subject 6, who has one uncut film for each emotion'
  return Clip(
    id=f'{speaker}/{emotion}/{sentence}',
    picture=path,
    sound=path,
    speaker=speaker,
    emotion=emotion,
    corpus='enterface05',
    sentence=f'{emotion}/{sentence}',
  )


def read(root: str) -> Listing:
  """Lists the films of the 43 subjects whose films are cut into sentences.

  Raises:
    ValueError: no such folder, or no film of eNTERFACE05 below it.
  """
  found = archive.listing(
    root, lambda path: _clip(path, pathlib.Path(root)), example='subject 1/anger/sentence 1/s1_an_1.avi'
  )
  warnings = archive.differences(found.clips, clips_expected=1287, emotions=EXPECTED)
  return dataclasses.replace(found, warnings=warnings)

"""Made-up results of inference.judge, for what draws and writes them."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

CLASSES = ('anger', 'fear', 'happiness', 'sadness')


def result(
  segments: int = 9,
  *,
  classes: Sequence[str] = CLASSES,
  without_sound: Collection[int] = (),
  without_face: Collection[int] = (),
  how: str = 'gibbs',
  by: str = 'hybrid',
  file: str = 'clip.mp4',
  box: Sequence[float] = (12.5, 10.0, 30.0, 30.5),
  seed: int = 0,
) -> dict[str, Any]:
  """A result of so many segments; those that lack a half are filled in by `how`, or with '' have no hybrid.

  A segment without both halves has nothing.
  """
  rng = np.random.default_rng(seed)
  odds = lambda: dict(zip(classes, rng.dirichlet(np.ones(len(classes))).tolist(), strict=True))
  rows = []
  for number in range(segments):
    halves = [number not in without_sound, number not in without_face]
    filled = '' if halves[0] == halves[1] or not how else 'face' if halves[0] else 'sound'
    rows.append(
      {
        'start': round(0.3 * number, 3),
        'end': round(0.3 * number + 0.655, 3),
        'audio': odds() if halves[0] else None,
        'visual': odds() if halves[1] else None,
        'hybrid': odds() if all(halves) or filled else None,
        'box': list(box) if halves[1] else None,
        'has_sound': halves[0],
        'has_face': halves[1],
        'filled': filled,
      }
    )
  methods: dict[str, Any] = {}
  for method in ('audio', 'visual', 'hybrid'):
    known = [list(row[method].values()) for row in rows if row[method]]
    mean = dict(zip(classes, np.mean(known, axis=0).tolist(), strict=True)) if known else {}
    verdict = max(mean, key=mean.__getitem__, default='')
    of = {'verdict': verdict, 'confidence': mean.get(verdict), 'probabilities': mean}
    methods[method] = of if known else None
  count = sum(bool(row['filled']) for row in rows)
  return {
    'file': file,
    'seconds': rows[-1]['end'] + 0.045,
    'classes': list(classes),
    **{key: methods[by][key] for key in ('verdict', 'confidence')},
    'by': by,
    'methods': methods,
    'missing': {
      'segments': segments,
      'without_sound': len(without_sound),
      'without_face': len(without_face),
      'filled': count,
      'how': how if count else '',
    },
    'warnings': [],
    'segments': rows,
    'model': {'format': 1, 'sha256': 'ab' * 32, 'trained_on': 'demo, 8 speakers'},
  }

"""What a split must not share between its sides: speakers and recordings; and what is worth knowing of it (audit).

A recording is known by its bytes, and by its sound: in another container, codec, sample rate or level, a few hundredths
of a second later, it is still the same recording. Sides are arrays of 'train', 'held', 'test' or '', [folds, clips]; a
clip with '' is not used in that fold.
"""

import collections
import dataclasses
import itertools
import re
import unicodedata
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
from scipy import fft, sparse

from emo_jax.corpora.clip import Clip

COLUMN_S = 0.01  # of a fingerprint
BANDS = slice(2, 44)  # of 64, up to 3.3 kHz: what the sample rates and codecs of speech all keep
DEEPEST_DB = 40.0  # below a sound's loudest bands: codecs do as they like there
STEP = 3  # columns between those whose difference is taken
LAGS = (4, 8, 16, 32)  # columns, after which a band is compared with itself
SHORTEST, LONGEST = 30, 6000  # columns: less says too little, more is not looked at
SILENT_DB, STILL_DB = 30.0, 1.0  # a voice's loudest bands are near 100; its bands move by 3 to 6
SAME = 0.76  # re-encoded films of Java-SED reach 0.89 and more, two recordings of one speaker there 0.63 at most
NEIGHBOURS = 8  # whose sounds each is compared with; a re-encoded film of Java-SED is always the first
EXAMPLES = 10
LEFT_OUT = {
  'same bytes': 'no file that can be read',
  'same sound': 'no sound that can be read, or too short, silent or still',
}


@dataclasses.dataclass(frozen=True)
class Finding:
  """What a check found: a sentence, and the worst examples."""

  check: str
  verdict: Literal['OK', 'WARNED', 'LEAK', 'SKIPPED']
  said: str
  examples: tuple[str, ...] = ()


def fingerprint(log_mel: np.ndarray, column_s: float) -> np.ndarray | None:
  """How the spectrum of a sound moves, whatever its level: differences over 30 ms, each moment's mean level taken away.

  Args:
    log_mel: [64, T] in decibels (frontend/audio.py).
    column_s: seconds between its columns.

  Returns:
    int8 [21, T'], a column every 10 ms; None for a sound that is too short, silent or still to be told from others.
  """
  count = min(int(log_mel.shape[1] * column_s / COLUMN_S), LONGEST)
  if count < SHORTEST:
    return None
  place = np.arange(count) * COLUMN_S / column_s
  left = np.minimum(place.astype(int), log_mel.shape[1] - 2)
  bands = np.asarray(log_mel[BANDS, : left[-1] + 2], np.float32)
  bands = bands[:, left] + (place - left) * (bands[:, left + 1] - bands[:, left])
  bands = bands.reshape(-1, 2, count).mean(1)
  top = np.percentile(bands, 99)
  bands = np.maximum(bands - top, -DEEPEST_DB)
  bands -= bands.mean(0)
  moves = bands[:, STEP:] - bands[:, :-STEP]
  if top < SILENT_DB or np.sqrt(np.mean(np.square(moves))) < STILL_DB:
    return None
  return np.round(moves).astype(np.int8)


def likeness(first: np.ndarray, second: np.ndarray) -> float:
  """Correlation of two fingerprints at the best shift that lays four fifths of the shorter one on the other."""
  a, b = (part.astype(np.float32) for part in (first, second))
  size = fft.next_fast_len(a.shape[1] + b.shape[1] - 1, real=True)
  products = fft.irfft((fft.rfft(a, size) * np.conj(fft.rfft(b, size))).sum(0), size)
  energy_a, energy_b = (np.append(0, np.cumsum(np.square(part).sum(0), dtype=np.float64)) for part in (a, b))
  shift = np.arange(1 - b.shape[1], a.shape[1])  # b's first column lies on this one of a
  start, stop = np.maximum(shift, 0), np.minimum(a.shape[1], b.shape[1] + shift)
  shared = (energy_a[stop] - energy_a[start]) * (energy_b[stop - shift] - energy_b[start - shift])
  enough = stop - start >= 0.8 * min(a.shape[1], b.shape[1])
  enough &= shared > 0.25 * energy_a[-1] * energy_b[-1]  # what moves must lie on each other, not the pauses
  return float(np.max(products[shift[enough]] / np.sqrt(shared[enough]), initial=0.0))


def _description(moves: np.ndarray) -> np.ndarray:
  """What a shift in time leaves as it is, [105]: how much each band moves, and how like itself it is a while later."""
  x = moves.astype(np.float32)
  later = [(x[:, lag:] * x[:, : x.shape[1] - lag]).mean(1) if lag < x.shape[1] else np.zeros(len(x)) for lag in LAGS]
  return np.concatenate([np.sqrt(np.square(x).mean(1)), *later])


def same_sounds(prints: Sequence[np.ndarray | None]) -> list[tuple[int, int]]:
  """Pairs of clips with the same sound. Each is compared with its nearest neighbours alone, in blocks of them all.

  Args:
    prints: of each clip, from `fingerprint`.
  """
  found = {number: moves for number, moves in enumerate(prints) if moves is not None}
  known = list(found)
  if len(known) < 2:
    return []
  of = np.array([_description(moves) for moves in found.values()], np.float32)
  of = (of - of.mean(0)) / np.maximum(of.std(0), 1e-6)
  length, candidates = np.square(of).sum(1), set[tuple[int, int]]()
  for start in range(0, len(of), 1024):
    distance = length - 2 * of[start : start + 1024] @ of.T
    distance[np.arange(len(distance)), start + np.arange(len(distance))] = np.inf
    nearest = np.argpartition(distance, min(NEIGHBOURS, len(of) - 1) - 1)[:, :NEIGHBOURS]
    pairs = ((start + row, int(other)) for row, others in enumerate(nearest) for other in others)
    candidates.update((known[min(pair)], known[max(pair)]) for pair in pairs if pair[0] != pair[1])
  return [(a, b) for a, b in sorted(candidates) if likeness(found[a], found[b]) >= SAME]


def same_bytes(contents: Sequence[Collection[str]]) -> list[tuple[int, int]]:
  """Pairs of clips that share a file's content.

  Args:
    contents: of each clip, what names the bytes of its files.
  """
  holders: dict[str, list[int]] = collections.defaultdict(list)
  for number, of_clip in enumerate(contents):
    for name in of_clip:
      holders[name].append(number)
  return sorted({pair for clips in holders.values() for pair in itertools.pairwise(clips)})


def groups(pairs: Sequence[tuple[int, int]], count: int) -> np.ndarray:
  """int [clips]: the number of the group that pairs join a clip to; its own where it is in none."""
  rows, columns = np.array(pairs, int).reshape(-1, 2).T
  graph = sparse.coo_array((np.ones(len(rows)), (rows, columns)), (count, count))
  return np.asarray(sparse.csgraph.connected_components(graph, directed=False)[1])


def crossings(group: np.ndarray, sides: np.ndarray) -> list[tuple[int, int, int]]:
  """Groups that stand on two sides of a fold, each once: the fold, and a clip on each of the two sides.

  Args:
    group: int [clips].
    sides: [folds, clips].
  """
  found: dict[int, tuple[int, int, int]] = {}
  for number, of_fold in enumerate(sides):
    for pair in itertools.combinations(('train', 'test', 'held'), 2):
      here, there = (np.flatnonzero(of_fold == side) for side in pair)
      names, a, b = np.intersect1d(group[here], group[there], return_indices=True)
      for name, one, other in zip(names.tolist(), here[a].tolist(), there[b].tolist(), strict=True):
        found.setdefault(name, (number, one, other))
  return [found[name] for name in sorted(found)]


def _told(clips: Sequence[Clip], sides: np.ndarray, found: Sequence[tuple[int, int, int]]) -> tuple[str, ...]:
  told = (f'{clips[a].id} ({sides[fold][a]}) and {clips[b].id} ({sides[fold][b]}), fold {fold}' for fold, a, b in found)
  return tuple(itertools.islice(told, EXAMPLES))


def counted(count: int, word: str) -> str:
  """'1 clip', '2 clips'."""
  return f'{count} {word}' if count == 1 else f'{count} {word}s'


def _plain(name: str) -> str:
  """A speaker's name without what two hands may write differently: accents' form, case, zeros before a number."""
  folded = unicodedata.normalize('NFC', unicodedata.normalize('NFC', name).casefold())
  return re.sub(r'(?<!\d)0+(?=\d)', '', folded.strip())


def speakers(clips: Sequence[Clip], sides: np.ndarray) -> Finding:
  """A leak where a speaker has clips on two sides of a fold, a warning where somebody of nearly that name has."""
  names, group = np.unique([clip.speaker for clip in clips], return_inverse=True)
  if found := crossings(group, sides):
    told = zip((clips[a].speaker for _, a, _ in found), _told(clips, sides, found), strict=False)
    examples = tuple(f'speaker {name}: {where}' for name, where in told)
    return Finding('speakers', 'LEAK', f'{len(found)} of {len(names)} speakers are on two sides of a fold', examples)
  said = f'none of {counted(len(names), "speaker")} is on two sides of a fold'
  alike = crossings(np.unique([_plain(clip.speaker) for clip in clips], return_inverse=True)[1], sides)
  if not alike:
    return Finding('speakers', 'OK', said)
  pairs = (f'{clips[a].speaker!r} and {clips[b].speaker!r}' for _, a, b in alike)
  examples = tuple(f'speakers {pair}: {at}' for pair, at in zip(pairs, _told(clips, sides, alike), strict=False))
  return Finding('speakers', 'WARNED', f'{said}, but names that are nearly the same are', examples)


def names(clips: Sequence[Clip], sides: np.ndarray) -> Finding:
  """A leak where lists name a clip on two sides."""
  return _recordings(clips, sides, same_bytes([{clip.id} for clip in clips]), check='same name', unknown=0)


def recordings(
  clips: Sequence[Clip],
  sides: np.ndarray,
  contents: Sequence[Collection[str]],
  prints: Sequence[np.ndarray | None],
) -> list[Finding]:
  """A leak where two clips that are the same recording stand on two sides of a fold: same bytes, and same sound.

  Args:
    contents: of each clip, what names the bytes of its files (`same_bytes`).
    prints: of each clip (`same_sounds`).
  """
  still = len(prints) - sum(moves is not None for moves in prints)
  return [
    _recordings(clips, sides, same_bytes(contents), check='same bytes', unknown=sum(not of for of in contents)),
    _recordings(clips, sides, same_sounds(prints), check='same sound', unknown=still),
  ]


def _recordings(
  clips: Sequence[Clip], sides: np.ndarray, pairs: Sequence[tuple[int, int]], *, check: str, unknown: int
) -> Finding:
  known = len(clips) - unknown
  left_out = f'; {unknown} could not be compared ({LEFT_OUT[check]})' if unknown else ''
  if not known:
    return Finding(check, 'SKIPPED', f'no clip could be compared ({LEFT_OUT[check]})')
  if found := crossings(groups(pairs, len(clips)), sides):
    told = f'{len(found)} of the recordings in {known} clips are on two sides of a fold{left_out}'
    return Finding(check, 'LEAK', told, _told(clips, sides, found))
  twice = tuple(f'{clips[a].id} and {clips[b].id} are the same, never on two sides' for a, b in pairs[:EXAMPLES])
  return Finding(check, 'OK', f'no recording in {known} clips is on two sides of a fold{left_out}', twice)


def _guess(clips: Sequence[Clip], of_fold: np.ndarray, *, by_sentence: bool) -> list[bool]:
  """Whether each test clip has the emotion that is most frequent in training (for its sentence, where known there)."""
  counts: dict[str | None, collections.Counter[str]] = collections.defaultdict(collections.Counter)
  for clip, side in zip(clips, of_fold, strict=True):
    if side == 'train':
      counts[None][clip.emotion] += 1
      if by_sentence and clip.sentence is not None:
        counts[clip.sentence][clip.emotion] += 1
  best = {sentence: of.most_common(1)[0][0] for sentence, of in counts.items()}
  tested = (clip for clip, side in zip(clips, of_fold, strict=True) if side == 'test')
  return [best.get(clip.sentence, best.get(None)) == clip.emotion for clip in tested]


def sentences(clips: Sequence[Clip], sides: np.ndarray) -> Finding:
  """Warns where test clips say what training clips say, and where that tells their emotion (as in eNTERFACE'05)."""
  if not any(clip.sentence for clip in clips):
    return Finding('sentences', 'SKIPPED', 'what the clips say is not known')
  shared = tested = 0
  for of_fold in sides:
    trained = {clip.sentence for clip, side in zip(clips, of_fold, strict=True) if side == 'train'} - {None}
    said = [clip.sentence in trained for clip, side in zip(clips, of_fold, strict=True) if side == 'test']
    shared, tested = shared + sum(said), tested + len(said)
  by_sentence, blind = (
    float(np.mean([right for of_fold in sides for right in _guess(clips, of_fold, by_sentence=informed)] or [False]))
    for informed in (True, False)
  )
  told = f'{shared} of {tested} test clips say a sentence of the training clips; guessed from the sentence alone, the '
  told += f'emotion is right in {by_sentence:.0%} of the test clips, {blind:.0%} without it'
  if by_sentence > blind + 0.1:
    return Finding('sentences', 'WARNED', f'{told}: words tell the emotion here')
  return Finding('sentences', 'WARNED' if shared else 'OK', told)


def balance(clips: Sequence[Clip], sides: np.ndarray) -> Finding:
  """Warns of emotions that a fold does not train on or does not test, and of one that outweighs the others."""
  names, emotion = np.unique([clip.emotion for clip in clips], return_inverse=True)
  if not any(names):
    return Finding('balance', 'SKIPPED', 'the emotions are not known')
  lacking, shares = [], []
  for number, of_fold in enumerate(sides):
    count = {side: np.bincount(emotion[of_fold == side], minlength=len(names)) for side in ('train', 'test')}
    for side, of_side in count.items():
      if missing := names[of_side == 0].tolist():
        lacking.append(f'fold {number}: no {side} clip of {", ".join(missing)}')
    shares.append(count['train'].max() / max(count['train'].sum(), 1))
  heavy = max(shares) >= min(2 / len(names), 0.75)
  told = f'{counted(len(names), "emotion")}, lacking on {counted(len(lacking), "side")} of a fold; '
  told += f'the most frequent has {min(shares):.0%} to {max(shares):.0%} of the training clips'
  return Finding('balance', 'WARNED' if lacking or heavy else 'OK', told, tuple(lacking[:EXAMPLES]))

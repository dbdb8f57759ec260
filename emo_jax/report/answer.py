"""The answer to one clip as a piece of HTML that holds all that it shows (pipeline step: predict, report)."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np

from emo_jax.report import figures, page, timeline

METHODS = ('audio', 'visual', 'hybrid')
HALVES = ('sound', 'face')
BY = {'audio': 'From the sound alone', 'visual': 'From the face alone', 'hybrid': 'From sound and face together'}
HOW = {
  'gibbs': 'drawn by the deep belief network, given the half that was there',
  'mean_field': 'inferred by the deep belief network from the half that was there',
  'zero': 'taken as zeros',
  'mean': 'taken as the mean of the training clips',
}
TILE = 80  # px, of a log-mel image or a face
SHOWN = 4  # of a segment's 16 faces
GAP = 2  # px between tiles
GREY = 128
QUALITY = 82  # of JPEG, 0 to 100
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)  # seconds from tick to tick
Segment = Mapping[str, Any]
Pair = tuple[np.ndarray, np.ndarray | None]  # what a network sees, and where it looks


def borders(segments: Sequence[Segment], seconds: float) -> np.ndarray:
  """Between which times each segment is pointed at: they overlap, so it is from halfway to halfway of their middles.

  Args:
    segments: S of them in order, with 'start' and 'end' in seconds.
    seconds: the clip's length.

  Returns:
    float [S + 1], shares of the time axis, 0 to 1.
  """
  middle = timeline.middles(segments)
  return np.clip(np.concatenate([[0], (middle[1:] + middle[:-1]) / 2, [seconds]]) / seconds, 0, 1)


def line(result: Mapping[str, Any], method: str, name: str, edges: np.ndarray) -> str:
  """A class's probability over time as an SVG path in a box of 1000 x 100: through the middles of segments, level up to
  the borders of a stretch (`edges` [S + 1], shares of the axis), broken where there is none."""
  segments, path = result['segments'], ''
  middles = timeline.middles(segments) / result['seconds']
  known = [one[method] is not None for one in segments]
  for row in np.flatnonzero(known).tolist():
    first, last = not (row and known[row - 1]), row == len(known) - 1 or not known[row + 1]
    x, y = 1000 * middles[row], 100 * (1 - segments[row][method][name])
    path += f'M{1000 * edges[row]:.1f} {y:.1f}' * first + f'L{x:.1f} {y:.1f}' + f'H{1000 * edges[row + 1]:.1f}' * last
  return path


def spans(flags: Sequence[bool], edges: np.ndarray) -> list[tuple[float, float]]:
  """Runs of true flags [S] as (left, width), given where each begins and the last one ends, [S + 1]."""
  turns = np.flatnonzero(np.diff(np.array(flags, int), prepend=0, append=0)).reshape(-1, 2)
  return [(float(edges[first]), float(edges[beyond] - edges[first])) for first, beyond in turns]


def ticks(seconds: float, *, most: int = 7) -> list[float]:
  """Round times on an axis of `seconds`, at most `most` if there is a step that long."""
  step = next((step for step in STEPS if seconds <= step * most), STEPS[-1])
  return np.arange(0, seconds, step).round(3).tolist()


def panel(result: Mapping[str, Any], method: str, edges: np.ndarray) -> dict[str, Any]:
  """What the template draws of one method: a line for each class, what was missing, what was filled in."""
  segments = result['segments']
  missing = {'audio': 'no sound', 'visual': 'no face', 'hybrid': 'not judged'}[method]
  holes = [('missing', missing, [not one[method] for one in segments])]
  if method == 'hybrid':
    holes += [('filled', f'{half} filled in', [one['filled'] == half for one in segments]) for half in HALVES]
  return {
    'name': method,
    'judged': result['methods'][method],
    'lines': {name: line(result, method, name, edges) for name in result['classes']},
    'holes': [
      {'kind': kind, 'said': said, 'left': left, 'width': width}
      for kind, said, flags in holes
      for left, width in spans(flags, edges)
    ],
  }


def absences(missing: Mapping[str, Any]) -> str:
  """What was missing, and what was done about it; nothing where nothing was."""
  total, told = missing['segments'], []
  for half in HALVES:
    if count := missing[f'without_{half}']:
      told.append(f'No segment has a {half}.' if count == total else f'{count} of {total} segments have no {half}.')
  if missing['filled']:
    told.append(f'In {missing["filled"]} the missing half was {HOW.get(missing["how"], missing["how"])}.')
  elif told:
    told.append('Nothing was put in its place.')
  return ' '.join(told)


def lacks(segment: Segment) -> str:
  """What a segment lacks, in words."""
  return ', '.join(
    f'no {half}{" (filled in)" if segment["filled"] == half else ""}' for half in HALVES if not segment[f'has_{half}']
  )


def shade(image: np.ndarray, low: float, high: float) -> np.ndarray:
  """Decibels to uint8 [..., 3], from `low` as black to `high` as white."""
  grey = np.interp(image, (low, high), (0, 255)).astype(np.uint8)
  return np.repeat(grey[..., None], 3, axis=-1)


def _strip(pictures: Sequence[np.ndarray]) -> np.ndarray:
  """uint8 [n, h, w, 3] of any size, side by side: [TILE, n tiles and gaps, 3]."""
  import cv2

  gap = np.full((TILE, GAP, 3), GREY, np.uint8)
  tiles = [cv2.resize(one, (TILE, TILE), interpolation=cv2.INTER_AREA) for one in pictures]
  return np.concatenate([part for tile in tiles for part in (tile, gap)][:-1], axis=1)


def _sheet(pairs: Sequence[Pair]) -> np.ndarray:
  """All pictures in a row, and under each of them the same under its heat, where there is one."""
  plain = _strip([one for pixels, _ in pairs for one in pixels])
  if all(heat is None for _, heat in pairs):
    return plain
  hot = [np.full_like(pixels, GREY) if heat is None else figures.heated(pixels, heat) for pixels, heat in pairs]
  gap = np.full((GAP, *plain.shape[1:]), GREY, np.uint8)
  return np.concatenate([plain, gap, _strip([one for row in hot for one in row])])


def card(sound: Pair | None, face: Pair | None, verdict: str) -> dict[str, str]:
  """A segment's pictures.

  Args:
    sound: log-mel image uint8 [64, 64, 3], the lowest band first, and its heat [64, 64] of 0 to 1; None without sound.
    face: uint8 [16, h, w, 3], and their heat [16, h, w]; None without a face.
    verdict: which class the heat is for.

  Returns:
    'uri': of a JPEG, '' without sound and face; 'said': what it shows, in words.
  """
  import cv2

  pairs: list[Pair] = []
  if sound:
    pairs.append((sound[0][None, ::-1], None if sound[1] is None else sound[1][None, ::-1]))
  if face:
    chosen = np.linspace(0, len(face[0]) - 1, SHOWN).round().astype(int)
    pairs.append((face[0][chosen], None if face[1] is None else face[1][chosen]))
  if not pairs:
    return {'uri': '', 'said': 'Neither sound nor face.'}
  said = ' and '.join(['log-mel image'] * bool(sound) + [f'{SHOWN} of 16 faces'] * bool(face))
  if any(heat is not None for _, heat in pairs):
    said += f'; below, bright is what speaks for {verdict}'
  jpeg = cv2.imencode('.jpg', _sheet(pairs)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
  return {'uri': data_uri('image/jpeg', jpeg.tobytes()), 'said': said[0].upper() + said[1:] + '.'}


def data_uri(kind: str, content: bytes) -> str:
  """A URI that holds the content, of a media type."""
  return f'data:{kind};base64,{base64.b64encode(content).decode()}'


def _template(name: str) -> jinja2.Template:
  environment = page.environment()
  environment.filters |= {'clock': timeline.clock, 'share': timeline.share}
  return environment.get_template(name)


def render(result: Mapping[str, Any], *, film: bytes, cards: Sequence[Mapping[str, str]], heated: int) -> str:
  """The answer: the verdict, what was missing, the clip, its timeline, and a table.

  Args:
    result: what inference.judge returns.
    film: the annotated clip, an MP4; empty where there is none.
    cards: [S], the segments' pictures.
    heated: how many of them show where the networks look.
  """
  edges = borders(result['segments'], result['seconds'])
  likeliest = lambda shares: max(shares, key=shares.__getitem__)
  return _template('answer.html.j2').render(
    r=result,
    by=BY[result['by']],
    methods=METHODS,
    absent=absences(result['missing']),
    film=data_uri('video/mp4', film) if film else '',
    panels=[panel(result, method, edges) for method in METHODS],
    edges=edges.tolist(),
    ticks=ticks(result['seconds']),
    cards=cards,
    heated=heated,
    tops=[{method: likeliest(one[method]) for method in METHODS if one[method]} for one in result['segments']],
    lacks=lacks,
    colours=dict(figures.swatches(result['classes'])),
  )


def refusal(sentence: str, name: str) -> str:
  """Why there is no answer to the file of this name."""
  return _template('answer.html.j2').render(r=None, sentence=sentence, name=name)


def head() -> str:
  """What the page around answers has in its head: style and script."""
  return _template('app.html.j2').render()

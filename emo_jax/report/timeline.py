"""A clip's emotions over time as a picture: what sound, face and both say at each second (pipeline step: predict)."""

import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
  from matplotlib.axes import Axes

METHODS = ('audio', 'visual', 'hybrid')
# Okabe's and Ito's, with wine for their yellow, which white ground swallows: told apart by people with any two kinds of
# cones too (CIEDE2000 of 10.9 and more, after Machado's simulation).
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#1c2128', '#882255')
DASHES = ('-', (0, (5, 1.5)), (0, (1.5, 1)))  # where colours come round again
NAMED = 10  # classes that get a name beside their line; the others, the least likely ones, are grey
POINTS = 400  # of a line at most: beyond that each is the mean of several segments
MARKED = 60  # points up to which each has a dot
LABEL = 0.098  # from name to name, of a panel's height
LEFT, RIGHT = 0.065, 0.845  # where panels begin and end, of the figure's width
STEPS, TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200), 10  # seconds; ticks at most
INK, MUTED, RULE = '#1c2128', '#5d6470', '#d5d9df'
# Where the machine has one of these, letters are drawn that matplotlib's own font lacks.
OTHER_FONTS = (
  *('Noto Sans CJK JP', 'Noto Sans CJK SC', 'Noto Sans', 'Microsoft YaHei', 'PingFang SC', 'Yu Gothic', 'Meiryo'),
  *('Hiragino Sans', 'Malgun Gothic', 'Apple SD Gothic Neo', 'WenQuanYi Zen Hei', 'Arial Unicode MS'),
)


@functools.cache
def fonts() -> tuple[str, ...]:
  """The font families of all texts, the first that has a letter draws it."""
  from matplotlib import font_manager

  installed = set(font_manager.get_font_names())
  return 'DejaVu Sans', *(name for name in OTHER_FONTS if name in installed)


@functools.cache
def _letters() -> frozenset[int]:
  """The code points that `fonts` can draw."""
  from matplotlib import font_manager

  found = (font_manager.get_font(font_manager.findfont(name)).get_charmap() for name in fonts())
  return frozenset().union(*found)


def lettered(text: str, *, most: int) -> str:
  """A text of anybody's as one line that can be drawn: at most `most` letters, boxes for those that no font has."""
  drawn = ''.join(one if one.isprintable() and ord(one) in _letters() else '□' for one in text)
  return drawn if len(drawn) <= most else f'{drawn[: most - most // 3 - 1]}…{drawn[len(drawn) - most // 3 :]}'


def scores(segments: Sequence[Mapping[str, Any]], method: str, classes: Sequence[str]) -> np.ndarray:
  """The probabilities of a method ('audio', 'visual' or 'hybrid') in each segment, float64 [S, C]; NaN without any."""
  unknown = dict.fromkeys(classes, np.nan)
  rows = [[(segment[method] or unknown)[name] for name in classes] for segment in segments]
  return np.array(rows, float).reshape(len(segments), len(classes))


def middles(segments: Sequence[Mapping[str, Any]]) -> np.ndarray:
  """The middle of each segment in seconds, float64 [S]."""
  return np.array([(segment['start'] + segment['end']) / 2 for segment in segments], float)


def _mean(values: np.ndarray, bins: np.ndarray) -> np.ndarray:
  """Means over the rows of each bin, of those that are known: [S, ...] and int [S] to [bins, ...]."""
  known = np.isfinite(values)
  counts, sums = (np.zeros((bins[-1] + 1, *values.shape[1:])) for _ in range(2))
  np.add.at(counts, bins, known)
  np.add.at(sums, bins, np.where(known, values, 0.0))
  return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _runs(mask: np.ndarray) -> Iterator[tuple[int, int]]:
  """First and one beyond the last of each run of True in a mask [n]."""
  turns = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
  return zip(turns[::2].tolist(), turns[1::2].tolist(), strict=True)


def _apart(wanted: np.ndarray, step: float) -> np.ndarray:
  """Places in 0..1 near the wanted ones [n], in their order, none nearer to another than `step` (if n of them fit)."""
  order = np.argsort(wanted, kind='stable')
  shift = step * np.arange(len(wanted))
  places = np.empty(len(wanted))
  # Pools of neighbours that would touch move together, to the mean of what they want: isotonic regression.
  pools: list[list[float]] = []
  for value in wanted[order] - shift:
    pools.append([value, 1.0])
    while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
      (low, n), (high, m) = pools[-2:]
      pools[-2:] = [[(low * n + high * m) / (n + m), n + m]]
  level = np.concatenate([np.full(int(count), value) for value, count in pools]) if pools else np.zeros(0)
  places[order] = np.clip(level, 0.0, max(0.0, 1.0 - step * (len(wanted) - 1))) + shift
  return places


def clock(seconds: float, _: Any = None) -> str:
  """Seconds as people read them: 4.5 s as '4.5', 75 s as '1:15', an hour as '1:00:00'."""
  whole = round(seconds)
  if abs(seconds - whole) > 1e-6 or whole < 60:
    return f'{round(seconds, 6):g}'
  hours, minutes = divmod(whole // 60, 60)
  return f'{hours}:{minutes:02d}:{whole % 60:02d}' if hours else f'{minutes}:{whole % 60:02d}'


def share(part: float) -> str:
  """0.713 as '71 %'."""
  return f'{100 * part:.0f} %'


def _said(result: Mapping[str, Any], method: str) -> str:
  """What a panel's title says beside its name."""
  judged, segments = result['methods'][method], result['segments']
  said = [f'{lettered(judged["verdict"], most=24)} {share(judged["confidence"])}' if judged else 'no verdict']
  without = sum(segment[method] is None for segment in segments)
  if without and method != 'hybrid':
    lacks = 'sound' if method == 'audio' else 'a face'
    said.append(
      f'no segment has {lacks}' if without == len(segments) else f'{without} of {len(segments)} without {lacks}'
    )
  if method == 'hybrid' and without:
    said.append(f'{without} of {len(segments)} not judged')
  if method == 'hybrid' and result['missing']['filled']:
    said.append(f'{result["missing"]["filled"]} of {len(segments)} filled in ({result["missing"]["how"]})')
  return ', '.join(said)


def _holes(result: Mapping[str, Any], method: str) -> Iterator[tuple[str, np.ndarray]]:
  """What to shade in a panel: its label, and of each segment whether it is so, bool [S]."""
  segments = result['segments']
  where = lambda wanted: np.array([wanted(segment) for segment in segments], bool)
  if method == 'hybrid':
    yield 'not judged', where(lambda segment: segment['hybrid'] is None)
    for half in ('sound', 'face'):
      yield f'{half} filled in', where(lambda segment, half=half: segment['filled'] == half)
  else:
    yield 'no sound' if method == 'audio' else 'no face', where(lambda segment: segment[method] is None)


def _shade(axes: 'Axes', edges: np.ndarray, label: str, mask: np.ndarray) -> None:
  """Shades where a mask [n] holds between edges [n + 1] in seconds: what is filled in lightly, holes darker."""
  filled = label.endswith('filled in')
  look: dict[str, Any] = (
    {'facecolor': '#fff3d6', 'hatch': '....'} if filled else {'facecolor': '#e9ebef', 'hatch': '////'}
  )
  low, high = axes.get_xlim()
  for first, beyond in _runs(mask):
    left, right = edges[first], edges[beyond]
    axes.axvspan(left, right, edgecolor='#e3cf9b' if filled else '#c3c8d0', linewidth=0, zorder=0, **look)
    if (right - left) / (high - low) > 0.0075 * len(label):
      box = {'facecolor': look['facecolor'], 'edgecolor': 'none', 'pad': 1.5}
      axes.text((left + right) / 2, 0.93, label, ha='center', va='center', fontsize=8, color=MUTED, bbox=box, zorder=3)


def _lines(axes: 'Axes', times: np.ndarray, table: np.ndarray, names: Sequence[str], ranks: np.ndarray) -> None:
  """A line a class [n, C] over times [n]; the first NAMED in rank (int [C]) in colour, with their names at the end."""
  for number in np.argsort(-ranks):
    named, values = ranks[number] < NAMED, table[:, number]
    gaps = np.isnan(np.concatenate([[np.nan], values, [np.nan]]))
    alone = ~gaps[1:-1] & gaps[:-2] & gaps[2:]  # no line reaches these
    look: dict[str, Any] = {'color': COLOURS[number % len(COLOURS)] if named else RULE, 'zorder': 2 if named else 1}
    dash = DASHES[number // len(COLOURS) % len(DASHES)]
    axes.plot(times, values, linewidth=1.8 if named else 1, linestyle=dash, solid_capstyle='round', **look)
    dots = np.ones(len(times), bool) if len(times) <= MARKED else alone
    axes.plot(times[dots], values[dots], linestyle='', marker='o', markersize=3.5, clip_on=False, **look)
  if (known := np.flatnonzero(np.isfinite(table).all(1))).size:
    _names(axes, times[known[-1]], table[known[-1]], names, np.flatnonzero(ranks < NAMED))


def _names(axes: 'Axes', time: float, ends: np.ndarray, names: Sequence[str], chosen: np.ndarray) -> None:
  """Beside the panel the names of the chosen classes (int [n]), led to from where their lines end: time, ends [C]."""
  beside: dict[str, Any] = {'transform': axes.transAxes, 'clip_on': False}
  for number, place in zip(chosen, _apart(ends[chosen], LABEL), strict=True):
    colour, end = COLOURS[number % len(COLOURS)], ends[number]
    axes.plot([time, axes.get_xlim()[1]], [end, end], color=colour, linewidth=0.9, linestyle=(0, (1, 3)), zorder=1)
    axes.plot([1.0, 1.02], [end, place], color=colour, linewidth=1, **beside)
    face = colour if number < len(COLOURS) else 'white'
    axes.plot(1.02, place, marker='o', markersize=5, color=colour, markerfacecolor=face, **beside)
    axes.text(1.032, place, lettered(names[number], most=14), va='center', fontsize=9, color=INK, **beside)


def _titles(figure: Any, result: Mapping[str, Any], thinned: int) -> None:
  """The verdict, and below it what there is to know of it; `thinned` segments make a point."""
  by = result['by']
  verdict = f'{lettered(result["verdict"], most=28)}  {share(result["confidence"])}'
  figure.text(LEFT, 0.955, verdict, fontsize=17, fontweight='bold', color=INK, va='center')
  judge = {'hybrid': 'sound and face (hybrid)', 'audio': 'the sound alone', 'visual': 'the face alone'}[by]
  lasts = clock(round(result['seconds'], 0 if result['seconds'] > 60 else 1))
  said = [lettered(result['file'], most=40), f'{lasts} s' if result['seconds'] <= 60 else lasts, f'judged by {judge}']
  odds = {name: part for name, part in result['methods'][by]['probabilities'].items() if name != result['verdict']}
  if odds:
    second = max(odds, key=lambda name: odds[name])
    said.append(f'next {lettered(second, most=16)} {share(odds[second])}')
  if thinned > 1:
    said.append(f'means of {thinned} segments')
  if len(result['classes']) > NAMED:
    said.append(f'the {len(result["classes"]) - NAMED} least likely classes in grey')
  figure.text(LEFT, 0.91, '  ·  '.join(said), fontsize=9, color=MUTED, va='center')


def _edges(segments: Sequence[Mapping[str, Any]], times: np.ndarray) -> np.ndarray:
  """Where one segment's share of the time ends and the next one's begins, in seconds [S + 1]: they overlap."""
  between = (times[1:] + times[:-1]) / 2
  return np.concatenate([[segments[0]['start']], between, [segments[-1]['end']]])


def _panel(axes: 'Axes', result: Mapping[str, Any], method: str, bins: np.ndarray, ranks: np.ndarray) -> None:
  """One method's panel; bins: of each segment, its point on a line, int [S]; ranks of the classes by likelihood."""
  segments = result['segments']
  times = middles(segments)
  edges = _edges(segments, times)
  axes.set(xlim=(min(0.0, edges[0]), max(result['seconds'], edges[-1])), ylim=(0, 1), yticks=[0, 0.5, 1])
  axes.text(0, 1.06, f'{method}', transform=axes.transAxes, fontsize=10, fontweight='bold', color=INK)
  axes.text(0.075, 1.06, _said(result, method), transform=axes.transAxes, fontsize=9, color=MUTED)
  borders = np.append(edges[:-1][np.diff(bins, prepend=-1) > 0], edges[-1])
  for label, mask in _holes(result, method):
    _shade(axes, borders, label, _mean(mask.astype(float), bins) > 0.5)
  table = scores(segments, method, result['classes'])
  _lines(axes, _mean(times, bins), _mean(table, bins), result['classes'], ranks)
  axes.grid(axis='y', color=RULE, linewidth=0.6)
  axes.tick_params(colors=MUTED, labelsize=9, length=3)
  axes.spines[['top', 'right']].set_visible(False)
  axes.spines[['left', 'bottom']].set_color(RULE)


def draw(path: pathlib.Path, result: Mapping[str, Any]) -> None:
  """A PNG of 1100 x 770 px: three panels of class probabilities over seconds, audio, visual and hybrid.

  Where a half is missing a panel is hatched, where it was filled in dotted, and both are said. An hour is as legible as
  a minute: beyond POINTS segments the points of the lines are means of neighbours.

  Args:
    result: what inference.judge gives, with one segment at least.
  """
  import matplotlib
  from matplotlib.figure import Figure
  from matplotlib.ticker import FuncFormatter, MultipleLocator

  segments, classes = result['segments'], result['classes']
  points = min(POINTS, len(segments))
  bins = np.arange(len(segments)) * points // len(segments)
  likely = np.nan_to_num([scores(segments, method, classes) for method in METHODS]).max((0, 1))
  ranks = np.argsort(np.argsort(-likely, kind='stable'), kind='stable')
  style: dict[Any, Any] = {'font.family': list(fonts()), 'text.parse_math': False, 'hatch.linewidth': 0.6}
  with matplotlib.rc_context(style):
    figure = Figure(figsize=(10, 7), facecolor='white')
    frame = {'left': LEFT, 'right': RIGHT, 'top': 0.85, 'bottom': 0.075, 'hspace': 0.32}
    panels = figure.subplots(len(METHODS), sharex=True, gridspec_kw=frame)
    for axes, method in zip(panels, METHODS, strict=True):
      _panel(axes, result, method, bins, ranks)
    seconds = panels[-1].get_xlim()[1]
    step = next((step for step in STEPS if step * TICKS >= seconds), seconds / TICKS)
    panels[-1].xaxis.set_major_locator(MultipleLocator(step))
    panels[-1].xaxis.set_major_formatter(FuncFormatter(clock))
    panels[-1].set_xlabel('seconds' if seconds < 60 else 'time', fontsize=9, color=MUTED)
    _titles(figure, result, len(segments) // points)
    figure.savefig(path, dpi=110, format='png', metadata={'Software': None})

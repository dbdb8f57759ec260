"""Figures of the page: plots as inline SVG in the page's own colours, pictures as data URIs (pipeline step: report)."""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

if TYPE_CHECKING:
  from matplotlib.axes import Axes

GROUPS = 8  # colours that tell groups apart; with more groups they come round again
# Matplotlib draws in these colours, which stand for the page's CSS variables: so a plot follows light and dark.
NAMES = ('ink', 'muted', 'rule', 'paper', 'accent', *(f'c{number}' for number in range(GROUPS)))
INK = {name: f'#0102{number:02x}' for number, name in enumerate(NAMES)}
STYLE: dict[Any, Any] = {
  'svg.fonttype': 'none',
  'svg.hashsalt': 'emo_jax',  # ids by content: the same data make the same file
  'text.parse_math': False,
  'axes.edgecolor': INK['rule'],
  'axes.labelcolor': INK['muted'],
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.facecolor': 'none',
  'xtick.color': INK['rule'],
  'ytick.color': INK['rule'],
  'xtick.labelcolor': INK['muted'],
  'ytick.labelcolor': INK['muted'],
  'font.size': 11,
}
Curve = Sequence[tuple[float, float]]  # (step, value)


def _inline(text: str, name: str, label: str, size: tuple[int, int]) -> Markup:
  """Matplotlib's SVG as an element of the page: its ids start with `name`, its colours are CSS variables."""
  body = text[text.index('<svg') :]
  body = body[body.index('>') + 1 :]
  body = re.sub(r'<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->|<defs>\s*</defs>', '', body, flags=re.DOTALL)
  body = body.replace('xlink:href', 'href')
  used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', body))
  body = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else '', body)
  body = re.sub(r'(url\(#|href="#)', rf'\g<1>{name}-', body)
  body = re.sub(r'\bd="[^"]+"', lambda m: re.sub(r'-?\d+\.\d+', lambda n: f'{float(n[0]):.1f}', m[0]), body)
  body = re.sub(r'font-family: [^;"]*; |(?<=;) font-family: [^;"]*(?=")| transform="rotate\(-0 [^"]*"', '', body)
  for colour, value in INK.items():
    body = body.replace(value, f'var(--{colour})')
  body = re.sub(r'\s*\n\s*', '\n', body)
  width, height = size
  head = f'class="plot" role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
  return Markup('<svg {} aria-label="{}">{}').format(Markup(head), label, Markup(body))


def plot(draw: 'Callable[[Axes], None]', name: str, *, label: str, size: tuple[int, int] = (300, 230)) -> Markup:
  """An SVG element of `size` (width, height) px.

  Args:
    draw: fills the axes, in colours of INK; texts of users do not belong in here but into the page around it.
    name: unique within the page; of letters, digits, - and _.
    label: what the plot shows, for those who do not see it.
  """
  import io

  import matplotlib
  from matplotlib.figure import Figure

  width, height = size
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(width / 72, height / 72))
    figure.patch.set_visible(False)
    axes = figure.add_axes((46 / width, 40 / height, 1 - 58 / width, 1 - 52 / height))
    draw(axes)
    file = io.StringIO()
    figure.savefig(file, format='svg', metadata={'Date': None})
  return _inline(file.getvalue(), name, label, size)


def _mean(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
  """Steps and values of the mean curve, as far as every one of them goes."""
  tables = [np.asarray(curve, float) for curve in curves]
  first, last = max(table[0, 0] for table in tables), min(table[-1, 0] for table in tables)
  steps = tables[0][:, 0]
  steps = steps[(steps >= first) & (steps <= last)]
  return steps, np.mean([np.interp(steps, table[:, 0], table[:, 1]) for table in tables], axis=0)


def learning(name: str, train: str, measure: str, learnt: Sequence[Curve], held: Sequence[Curve]) -> Markup:
  """A measure over steps: each fold a thin line, their mean a thick one; of held clips in the accent's colour."""

  def draw(axes: 'Axes') -> None:
    for curves, colour in ((learnt, INK['muted']), (held, INK['accent'])):
      for curve in curves:
        axes.plot(
          *np.asarray(curve, float).T, color=colour, linewidth=0.8, alpha=0.35, marker='.' if len(curve) < 2 else ''
        )
      if curves:
        axes.plot(*_mean(curves), color=colour, linewidth=2)
    axes.set_xlabel('step')
    axes.margins(x=0.01)

  ends = [
    f'{who} {_mean(of)[1][-1]:.2f}' for who, of in (('training', learnt), ('held', held)) if of and _mean(of)[1].size
  ]
  return plot(draw, name, label=f'{measure} of {train} over steps; mean of folds at the end: {", ".join(ends)}')


def reliability(name: str, row: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Markup:
  """How often verdicts of a stated probability were right: before calibration (grey), and after (accent)."""

  def draw(axes: 'Axes') -> None:
    axes.plot([0, 1], [0, 1], color=INK['muted'], linewidth=1, alpha=0.6, linestyle=(0, (4, 3)))
    for of, colour in ((before, INK['muted']), (after, INK['accent'])):
      # Not known of bins without clips: the line has a gap there.
      confidence, accuracy = (np.array([one[what] for one in of['bins']], float) for what in ('confidence', 'accuracy'))
      axes.plot(
        confidence,
        accuracy,
        color=colour,
        marker='o',
        markersize=5,
        markerfacecolor=INK['paper'] if of is before else colour,
        linewidth=1.6,
      )
    most = max(1, *(one['clips'] for one in after['bins']))
    for one in after['bins']:
      axes.bar((one['low'] + one['high']) / 2, 0.2 * one['clips'] / most, 0.08, color=INK['accent'], alpha=0.25)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel='stated probability')

  ece = f'expected calibration error {before["ece"]:.3f} before, {after["ece"]:.3f} after'
  return plot(draw, name, label=f'Reliability of {row}: {ece}', size=(260, 260))


def _dots(points: np.ndarray, *, width: float, colour: str) -> Any:
  """Points [n, 2] as one path of round strokes without length: a fraction of the size of n markers."""
  from matplotlib.patches import PathPatch
  from matplotlib.path import Path

  path = Path(np.repeat(points, 2, axis=0), [Path.MOVETO, Path.LINETO] * len(points))
  path.should_simplify = False
  return PathPatch(path, fill=False, edgecolor=colour, linewidth=width, capstyle='round')


def scatter(name: str, points: np.ndarray, group: np.ndarray, marked: np.ndarray, *, label: str) -> Markup:
  """Points [n, 2] in the colours of their groups, int [n]; the marked ones, bool [n], are larger and hollow."""
  points = np.asarray(points, float)

  def draw(axes: 'Axes') -> None:
    for number in np.unique(group):
      colour = INK[f'c{number % GROUPS}']
      for which, widths in ((~marked, (4.5,)), (marked, (8.0, 3.5))):
        chosen = points[(group == number) & which]
        for width, ink in zip(widths, (colour, INK['paper']), strict=False):
          if len(chosen):
            axes.add_patch(_dots(chosen, width=width, colour=ink))
    low, high = points.min(0), points.max(0)
    half = 0.55 * max(float(np.max(high - low)), 1e-6)  # the same for both axes, for distances to be comparable
    (left, right), (bottom, top) = ((middle - half, middle + half) for middle in (low + high) / 2)
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
    axes.set_position((0, 0, 1, 1))
    axes.axis('off')

  return plot(draw, name, label=label, size=(240, 240))


def picture(pixels: np.ndarray) -> str:
  """uint8 [h, w] or [h, w, 3] as the data URI of a PNG."""
  import imageio.v3 as iio

  return 'data:image/png;base64,' + base64.b64encode(iio.imwrite('<bytes>', pixels, extension='.png')).decode()


def _grey(values: np.ndarray) -> np.ndarray:
  """Any numbers to grey uint8 [..., 3]: the least is black, the largest white."""
  low, high = float(np.nanmin(values)), float(np.nanmax(values))
  shade = np.nan_to_num((values - low) / (high - low or 1.0))
  return np.repeat((255 * shade[..., None]).astype(np.uint8), 3, axis=-1)


def heated(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
  """uint8 [..., 3] under a heat map [...] of 0 to 1: cold places stay as they are."""
  import matplotlib

  colour = 255 * matplotlib.colormaps['inferno'](0.25 + 0.75 * heat)[..., :3]
  share = 0.75 * np.clip(heat, 0, 1)[..., None]
  return ((1 - share) * pixels + share * colour).astype(np.uint8)


def _side_by_side(frames: np.ndarray, *, gap: int = 2) -> np.ndarray:
  """[n, h, w, 3] as one picture [h, n * w + gaps, 3]."""
  padded = np.pad(frames, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=128)
  return np.concatenate(list(padded), axis=1)[:, :-gap]


def sound_saliency(image: np.ndarray, heats: Sequence[np.ndarray]) -> list[str]:
  """A log-mel image [mel, time], then it under each heat map, as data URIs; the lowest band is at the bottom."""
  grey = _grey(np.asarray(image, float))[::-1]
  return [picture(grey), *(picture(heated(grey, np.asarray(heat, float)[::-1])) for heat in heats)]


def face_saliency(faces: np.ndarray, heats: Sequence[np.ndarray], *, shown: int = 6, height: int = 104) -> list[str]:
  """Some of a segment's faces uint8 [16, h, w, 3] side by side, then they under each heat map [16, h, w], as data URIs.

  Args:
    shown: how many of the 16.
    height: px, to which they are brought.
  """
  import cv2

  chosen = np.linspace(0, len(faces) - 1, shown).round().astype(int)
  size = round(height * faces.shape[2] / faces.shape[1]), height
  small = lambda images: np.stack([cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in images[chosen]])
  pixels = small(faces)
  rows = [pixels, *(heated(pixels, small(np.asarray(heat, np.float32))) for heat in heats)]
  return [picture(_side_by_side(row)) for row in rows]


def swatches(names: Sequence[str]) -> list[tuple[str, str]]:
  """Of each group its name and the CSS colour that `scatter` gives it."""
  return [(name, f'var(--c{number % GROUPS})') for number, name in enumerate(names)]

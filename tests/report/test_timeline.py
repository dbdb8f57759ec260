"""The timeline: lines lie where the probabilities are, what is missing is shaded, and any clip can be drawn."""

import itertools
import pathlib
import time
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from emo_jax.report import timeline
from tests.report.results import CLASSES, result

HOLE, FILLED = (0xE9, 0xEB, 0xEF), (0xFF, 0xF3, 0xD6)


def drawn(folder: pathlib.Path, said: dict[str, Any]) -> np.ndarray:
  timeline.draw(folder / 'a.png', said)
  image = iio.imread(folder / 'a.png')[..., :3].astype(int)
  assert image.shape == (770, 1100, 3)
  return image


def panels() -> list[tuple[float, float, float, float]]:
  """Left, right, top and bottom of each panel in px, by matplotlib's own reckoning."""
  grid = GridSpec(3, 1, left=timeline.LEFT, right=timeline.RIGHT, top=0.85, bottom=0.075, hspace=0.32)
  places = (grid[row].get_position(Figure()) for row in range(3))
  return [(1100 * p.x0, 1100 * p.x1, 770 * (1 - p.y1), 770 * (1 - p.y0)) for p in places]


def at(said: dict[str, Any], panel: int, seconds: float, part: float) -> tuple[int, int]:
  """Row and column of the pixel of a time and a probability."""
  left, right, top, bottom = panels()[panel]
  end = max(said['seconds'], said['segments'][-1]['end'])
  return round(bottom + part * (top - bottom)), round(left + seconds / end * (right - left))


def rgb(number: int) -> np.ndarray:
  return np.array(list(bytes.fromhex(timeline.COLOURS[number][1:])))


def near(image: np.ndarray, row: int, column: int, colour: Any, *, reach: int = 2) -> bool:
  """Whether a colour is there, or a few pixels beside."""
  part = image[max(0, row - reach) : row + reach + 1, column - reach : column + reach + 1]
  return bool((np.abs(part - colour).max(-1) < 12).any())


def share_of(image: np.ndarray, said: dict[str, Any], panel: int, start: float, end: float, colour: Any) -> float:
  """How much of the ground of a stretch of a panel has a colour."""
  (top, left), (bottom, right) = at(said, panel, start, 0.85), at(said, panel, end, 0.6)
  return float((np.abs(image[top:bottom, left + 2 : right - 1] - colour).max(-1) < 3).mean())


@pytest.mark.parametrize('segments', [1, 2, 9, 40])
def test_points_lie_at_their_times_and_probabilities(tmp_path: pathlib.Path, segments: int) -> None:
  said = result(segments, without_face=[4], without_sound=[6])
  image = drawn(tmp_path, said)
  for segment, (panel, method), (number, name) in itertools.product(
    said['segments'], enumerate(timeline.METHODS), enumerate(CLASSES)
  ):
    if segment[method]:
      odds = segment[method]
      if min(abs(odds[name] - odds[other]) for other in CLASSES if other != name) < 0.04:
        continue  # dots that lie on each other
      middle = (segment['start'] + segment['end']) / 2
      assert near(image, *at(said, panel, middle, odds[name]), rgb(number)), (segment, method, name)


def test_what_is_missing_is_shaded_for_as_long_as_it_is(tmp_path: pathlib.Path) -> None:
  said = result(20, without_face=range(5, 10), without_sound=range(12, 20), how='')
  said['segments'][15]['visual'] = None  # without both
  image = drawn(tmp_path, said)
  edge = lambda number: 0.3 * number + 0.3275 - 0.15
  spans = {0: [(12, 20)], 1: [(5, 10), (15, 16)], 2: [(5, 10), (12, 20)]}
  for panel, holes in spans.items():
    inside = np.zeros(20, bool)
    for first, beyond in holes:
      inside[first:beyond] = True
    for number in range(1, 19):
      part = share_of(image, said, panel, edge(number), edge(number + 1), HOLE)
      assert (part > 0.3) == inside[number], (panel, number, part)


def test_what_is_filled_in_is_shaded_otherwise(tmp_path: pathlib.Path) -> None:
  said = result(10, without_face=[3, 4, 5])
  image = drawn(tmp_path, said)
  for number, filled in ((1, False), (3, True), (5, True), (8, False)):
    start = 0.3 * number + 0.1775
    assert (share_of(image, said, 2, start, start + 0.3, FILLED) > 0.3) == filled
    assert share_of(image, said, 2, start, start + 0.3, HOLE) < 0.02
    assert (share_of(image, said, 1, start, start + 0.3, HOLE) > 0.3) == filled


def test_titles_say_who_judged_and_what_was_missing() -> None:
  said = result(9, without_face=[1, 2], without_sound=[2])
  odds = said['methods']['hybrid']
  part = f'{odds["verdict"]} {100 * odds["confidence"]:.0f} %'
  assert timeline._said(said, 'hybrid') == f'{part}, 1 of 9 not judged, 1 of 9 filled in (gibbs)'
  assert timeline._said(said, 'visual').endswith(', 2 of 9 without a face')
  assert timeline._said(result(3, without_sound=range(3), by='visual'), 'audio') == 'no verdict, no segment has sound'
  assert ',' not in timeline._said(result(3), 'audio')


def test_an_hour_is_drawn_as_quickly_and_as_small_as_a_minute(tmp_path: pathlib.Path) -> None:
  said = result(12000, without_face=range(3000, 5000), how='')
  for segment, off in zip(said['segments'], itertools.cycle([0.09, -0.09]), strict=False):
    segment['audio'] = dict(zip(CLASSES, (0.1 + off, 0.2 - off, 0.3 + off, 0.4 - off), strict=True))
  start = time.process_time()
  image = drawn(tmp_path, said)
  assert time.process_time() - start < 8
  assert (tmp_path / 'a.png').stat().st_size < 600_000
  for number in range(len(CLASSES)):  # the lines have the means
    assert near(image, *at(said, 0, 1800.0, 0.1 + 0.1 * number), rgb(number), reach=1)
    assert not near(image, *at(said, 0, 1800.0, 0.15 + 0.1 * number), rgb(number), reach=1)
  assert share_of(image, said, 1, 1000, 1400, HOLE) > 0.3 and share_of(image, said, 1, 1600, 2000, HOLE) < 0.05


def test_means_are_of_what_is_known() -> None:
  values = np.array([[1.0, 5.0], [np.nan, 7.0], [np.nan, 1.0], [np.nan, 2.0], [4.0, 8.0]])
  np.testing.assert_array_equal(timeline._mean(values, np.array([0, 0, 1, 1, 2])), [[1, 6], [np.nan, 1.5], [4, 8]])


@pytest.mark.parametrize('count', [1, 2, 6, 10])
def test_names_stay_in_order_apart_and_in_the_panel(count: int) -> None:
  rng = np.random.default_rng(count)
  for wanted in [rng.dirichlet(np.ones(count)) for _ in range(50)] + [np.zeros(count), np.full(count, 0.99)]:
    places = timeline._apart(wanted, 0.098)
    order = np.argsort(wanted, kind='stable')
    assert count == 1 or np.diff(places[order]).min() > 0.098 - 1e-9
    assert places.min() > -1e-9 and places.max() < 1 + 1e-9
  free = np.linspace(0, 1, count)
  np.testing.assert_allclose(timeline._apart(free, 0.098), free)


def test_names_that_would_touch_move_as_little_as_they_can() -> None:
  np.testing.assert_allclose(timeline._apart(np.array([0.5, 0.5, 0.9]), 0.1), [0.45, 0.55, 0.9])


@pytest.mark.parametrize(
  ('seconds', 'text'), [(0, '0'), (4.5, '4.5'), (0.1 + 0.2, '0.3'), (59, '59'), (75, '1:15'), (3600, '1:00:00')]
)
def test_times_are_told_as_people_tell_them(seconds: float, text: str) -> None:
  assert timeline.clock(seconds) == text


@pytest.mark.parametrize(
  'name', ['злость', '喜び', 'غضب', '$\\frac{$', '$', '\\frac{a}{b}', 'a\nb\x1b[2J\udcff', '', 'e' * 500, '<b>&amp;']
)
def test_any_text_is_drawn(tmp_path: pathlib.Path, name: str) -> None:
  image = drawn(tmp_path, result(3, classes=[name, 'joy'], file=f'{name}.mp4'))
  assert (image[:, -6:] == 255).all()  # nothing runs out at the side


def test_texts_are_one_line_of_letters_that_there_are() -> None:
  assert timeline.lettered('a\nb\x1b[2J\udcff\u202e\ufffe', most=20) == 'a□b□[2J□□□'
  assert timeline.lettered('ärger', most=5) == 'ärger'
  short = timeline.lettered('the first and the last of many letters.mp4', most=20)
  assert len(short) == 20 and short.startswith('the first') and short.endswith('s.mp4')


def test_many_classes_are_drawn_the_likeliest_in_colour(tmp_path: pathlib.Path) -> None:
  drawn(tmp_path, result(9, classes=[f'emotion {number}' for number in range(40)]))


def test_the_same_result_makes_the_same_file(tmp_path: pathlib.Path) -> None:
  for name in 'ab':
    timeline.draw(tmp_path / name, result(9))
  assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()


CONES = {  # Machado, Oliveira and Fernandes 2009, severity 1
  'all': np.eye(3),
  'no red': [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
  'no green': [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
  'no blue': [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize('cones', CONES)
def test_colours_are_told_apart_by_people_with_any_two_kinds_of_cones(cones: str) -> None:
  from skimage.color import deltaE_ciede2000, rgb2lab

  colours = np.array([rgb(number) for number in range(len(timeline.COLOURS))]) / 255
  linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
  seen = np.clip(linear @ np.array(CONES[cones]).T, 0, 1)
  lab = rgb2lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055))
  assert min(deltaE_ciede2000(a, b) for a, b in itertools.combinations(lab, 2)) > 10.5

"""Figures of the page: plots hold the data's numbers in the page's colours, pictures hold the pixels."""

import base64
import re
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest

from emo_jax.report import figures


def paths(svg: str, style: str) -> list[np.ndarray]:
  """Points [n, 2] of each path whose style holds some words."""
  found = re.findall(r'<path d="([^"]+)"[^>]*style="([^"]+)"', svg)
  numbers = lambda d: np.array(re.findall(r'-?\d+\.?\d*', d), float).reshape(-1, 2)
  return [numbers(d) for d, of in found if style in of]


def pixels(uri: str) -> np.ndarray:
  head, _, data = uri.partition(',')
  assert head == 'data:image/png;base64'
  return iio.imread(base64.b64decode(data), extension='.png')


def bins(*clips: int) -> dict[str, Any]:
  """Equally wide bins, of which some have no clip."""
  edges = np.linspace(0, 1, len(clips) + 1)
  middle = lambda low, high, n: (low + high) / 2 if n else None
  of = [
    {'low': low, 'high': high, 'clips': n, 'confidence': middle(low, high, n), 'accuracy': middle(low, high, n)}
    for low, high, n in zip(edges[:-1], edges[1:], clips, strict=True)
  ]
  return {'ece': 0.125, 'nll': 1.0, 'bins': of}


DRAWN = {
  'learning': lambda name: figures.learning(name, 'net', 'loss', [[(0, 1.0), (9, 0.5)]], [[(0, 1.0), (9, 0.7)]]),
  'reliability': lambda name: figures.reliability(name, 'dbn', bins(1, 2, 3), bins(3, 2, 1)),
  'scatter': lambda name: figures.scatter(name, np.eye(2), np.arange(2), np.array([True, False]), label='x'),
}


@pytest.mark.parametrize('kind', DRAWN)
def test_plots_have_the_colours_of_the_page_and_no_others(kind: str) -> None:
  svg = DRAWN[kind]('a')
  assert 'var(--' in svg
  assert not re.findall(r'#[0-9a-f]{6}\b|rgb\(|black|white', svg)


@pytest.mark.parametrize('kind', DRAWN)
def test_plots_point_at_nothing_outside_them_and_at_nothing_of_each_other(kind: str) -> None:
  both = DRAWN[kind]('a') + DRAWN[kind]('b')
  ids = re.findall(r' id="([^"]+)"', both)
  assert len(ids) == len(set(ids))
  aims = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', both)
  assert {a or b for a, b in aims} <= set(ids)
  assert '://' not in both and 'DejaVu' not in both


@pytest.mark.parametrize('kind', DRAWN)
def test_the_same_data_make_the_same_plot(kind: str) -> None:
  assert DRAWN[kind]('a') == DRAWN[kind]('a')


def test_labels_are_escaped() -> None:
  svg = figures.scatter('a', np.eye(2), np.arange(2), np.ones(2, bool), label='"><script>x</script>')
  assert '<script>' not in svg and '&#34;&gt;&lt;script&gt;' in svg


def test_the_thick_line_is_the_mean_of_the_folds() -> None:
  folds = [[(0.0, 0.0), (10.0, 0.0)], [(0.0, 1.0), (5.0, 1.0), (10.0, 1.0)], [(0.0, 2.0), (20.0, 2.0)]]
  svg = figures.learning('a', 'net', 'loss', folds, [])
  low, middle, high = (path[0, 1] for path in paths(svg, 'opacity: 0.35'))
  (mean,) = paths(svg, 'stroke-width: 2')
  np.testing.assert_allclose(mean[:, 1], middle, atol=0.11)
  assert low > high and middle == pytest.approx((low + high) / 2, abs=0.11)
  assert 'training 1.00' in svg and 'held' not in svg


def test_the_mean_ends_where_the_first_fold_does() -> None:
  folds = [[(0.0, 1.0), (10.0, 1.0), (20.0, 9.0)], [(0.0, 3.0), (10.0, 3.0)]]
  svg = figures.learning('a', 'net', 'loss', [[(0.0, 1.0)]], folds)
  assert 'training 1.00, held 2.00' in svg


def test_bins_without_clips_leave_a_gap() -> None:
  svg = figures.reliability('a', 'dbn', bins(1, 0, 3, 4), bins(0, 0, 0, 1))
  accent = [line for line in svg.splitlines() if '<use' in line and 'var(--accent)' in line]
  muted = [line for line in svg.splitlines() if '<use' in line and 'stroke: var(--muted)' in line]
  assert len(muted) == 3 and len(accent) == 1
  (line,) = (d for d in re.findall(r'd="([^"]+)"[^>]*stroke: var\(--muted\); stroke-width: 1.6', svg))
  assert line.count('L') == 1  # from the third to the fourth
  assert '0.125 before' in svg


def test_reliability_without_any_clip_is_drawn() -> None:
  assert '<svg' in figures.reliability('a', 'dbn', bins(0, 0), bins(0, 0))


def test_dots_lie_where_the_points_do() -> None:
  rng = np.random.default_rng(0)
  points = rng.normal(size=(500, 2)) * (1, 3)
  marked = np.arange(500) < 40
  svg = figures.scatter('a', points, np.arange(500) % 2, marked, label='x')
  hollow = np.concatenate(paths(svg, 'var(--paper)'))[::2]
  ringed = points[:40][np.argsort(np.arange(40) % 2, kind='stable')]
  # Up to a shift and one scale; y grows downwards.
  slopes = [np.polyfit(ringed[:, axis], hollow[:, axis], 1)[0] for axis in (0, 1)]
  assert slopes[0] > 0 and slopes[1] == pytest.approx(-slopes[0], rel=1e-3)
  for axis, sign in ((0, 1), (1, -1)):
    assert np.corrcoef(ringed[:, axis], hollow[:, axis])[0, 1] * sign == pytest.approx(1, abs=1e-4)
  assert len(np.concatenate(paths(svg, 'var(--c0)'))) == len(np.concatenate(paths(svg, 'var(--c1)'))) == 500


def test_many_groups_share_colours_and_the_legend_agrees() -> None:
  names = [str(n) for n in range(10)]
  assert [colour for _, colour in figures.swatches(names)][8:] == ['var(--c0)', 'var(--c1)']
  svg = figures.scatter('a', np.arange(20.0).reshape(10, 2), np.arange(10), np.zeros(10, bool), label='x')
  assert len(paths(svg, 'var(--c0)')) == 2 and 'c8' not in svg


def test_points_that_are_all_equal_are_drawn() -> None:
  assert '<svg' in figures.scatter('a', np.zeros((3, 2)), np.zeros(3, int), np.zeros(3, bool), label='x')


def test_low_bands_are_at_the_bottom_and_cold_places_stay_as_they_are() -> None:
  image = np.zeros((64, 64))
  image[0] = 5.0  # the lowest band sounds
  heat = np.zeros((64, 64))
  heat[60:, 10] = 1.0  # and the network looks at high ones
  plain, hot = map(pixels, figures.sound_saliency(image, [heat]))
  assert (plain[63] == 255).all() and (plain[:63] == 0).all()
  changed = np.argwhere((plain != hot).any(-1))
  assert sorted(map(tuple, changed)) == [(row, 10) for row in range(4)]


def test_a_silent_image_is_drawn() -> None:
  (plain,) = map(pixels, figures.sound_saliency(np.full((64, 64), -80.0), []))
  assert plain.shape == (64, 64, 3)


def test_the_strip_shows_faces_from_the_first_to_the_last_each_under_its_heat() -> None:
  faces = np.repeat(np.arange(16, dtype=np.uint8)[:, None, None, None] * 10, 52 * 40 * 3, axis=1).reshape(16, 52, 40, 3)
  heat = np.zeros((16, 52, 40))
  heat[15] = 1.0
  plain, hot, cold = map(pixels, figures.face_saliency(faces, [heat, 0 * heat], shown=4, height=26))
  assert plain.shape == (26, 4 * 20 + 3 * 2, 3)
  assert plain[13, 10::22, 0].tolist() == [0, 50, 100, 150]
  np.testing.assert_array_equal(cold, plain)
  np.testing.assert_array_equal(hot[:, :66], plain[:, :66])
  assert (hot[:, 66:] != plain[:, 66:]).any(-1).all()

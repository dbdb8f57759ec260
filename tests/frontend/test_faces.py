"""Faces: where the eyes land in the crop, how gaps are filled, and what is found in noise and in real clips."""

import os
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from emo_jax.frontend import faces, media

RATE = 30.0
BOX = np.array([100.0, 50.0, 120.0, 120.0])
PAIR = np.array([[140.0, 97.0], [180.0, 97.0]])
DATA = pathlib.Path(os.environ.get('EMO_JAX_DATA', pathlib.Path(__file__).parents[2] / '../shared/data'))


def _film(count: int) -> Iterator[tuple[float, np.ndarray]]:
  """Frames whose first pixel says which frame they are, for detectors that are made up."""
  for i in range(count):
    yield i / RATE, np.full((240, 320, 3), i, np.uint8)


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
  """Replaces the cascades by a function of the frame's number."""

  def use(find: Callable[[int], tuple[np.ndarray, np.ndarray | None] | None]) -> None:
    monkeypatch.setattr(faces, '_find', lambda image, near, smallest: find(int(image[0, 0, 0])))

  return use


@pytest.mark.parametrize('size', [(150, 110), (112, 112), (75, 55), (300, 220)])
@pytest.mark.parametrize(('apart', 'angle'), [(38.0, 0.0), (55.0, 25.0), (31.0, -20.0), (140.0, 12.0)])
def test_eyes_land_where_documented(size: tuple[int, int], apart: float, angle: float) -> None:
  middle = np.array([163.3, 121.8])
  half = apart / 2 * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
  eyes = np.array([middle - half, middle + half])
  rows, columns = np.mgrid[:240, :320]
  for eye, column in zip(eyes, (0.25, 0.75), strict=True):
    spread = 2 * (apart / 12) ** 2
    blob = 255 * np.exp(-((columns - eye[0]) ** 2 + (rows - eye[1]) ** 2) / spread)
    crop = faces.align(np.repeat(blob[..., None], 3, axis=2).astype(np.uint8), eyes, size=size)
    assert crop.shape == (*size, 3) and crop.dtype == np.uint8
    weight = crop[..., 0].astype(float)
    at = [(weight * grid).sum() / weight.sum() for grid in np.mgrid[: size[0], : size[1]]]
    assert at == pytest.approx([faces.EYE_LINE * size[0] - 0.5, column * size[1] - 0.5], abs=0.6)


def test_beyond_the_edge_the_border_is_repeated() -> None:
  crop = faces.align(np.full((100, 100, 3), 77, np.uint8), np.array([[2.0, 5.0], [57.0, 5.0]]), size=(150, 110))
  assert (crop == 77).all()


def test_no_pair_of_eyes_is_refused() -> None:
  with pytest.raises(ValueError, match='no pair'):
    faces.align(np.zeros((100, 100, 3), np.uint8), np.zeros((2, 2)), size=(150, 110))


def test_gaps_are_interpolated_and_ends_held(detector: Callable[..., None]) -> None:
  # Found in frames 20-39 and 50-69 of 90, moving by 1 px a frame.
  detector(lambda i: (BOX + (i, 0, 0, 0), PAIR + (i, 0)) if 20 <= i < 40 or 50 <= i < 70 else None)
  track = faces.track(_film(90), detector='haar', every=1, min_face=0.2, hold=0.5)
  confidence = track.confidence
  assert track.times == pytest.approx(np.arange(90) / RATE)
  assert (confidence[20:40] == 1).all() and (confidence[50:70] == 1).all()
  assert confidence[44] == pytest.approx(1 - 5 / 15, abs=1e-5)
  assert confidence[[15, 74]] == pytest.approx([1 - 5 / 15] * 2, abs=1e-5)
  assert (confidence[:6] == 0).all() and (confidence[84:] == 0).all()
  # The smoothing pulls the last found frames back by about a pixel; between them the way is straight.
  assert track.eyes[44] == pytest.approx(PAIR + (44, 0), abs=0.3)
  assert track.box[44] == pytest.approx(BOX + (44, 0, 0, 0), abs=0.3)
  assert (track.eyes[:20] == track.eyes[20]).all() and (track.eyes[70:] == track.eyes[69]).all()
  assert track.eyes[20:40] == pytest.approx(PAIR + np.stack([np.arange(20, 40), np.zeros(20)], -1)[:, None], abs=1.3)


def test_every_other_frame(detector: Callable[..., None]) -> None:
  looked_at = []

  def find(i: int) -> tuple[np.ndarray, np.ndarray]:
    looked_at.append(i)
    return BOX, PAIR

  detector(find)
  track = faces.track(_film(21), detector='haar', every=2, min_face=0.2, hold=0.5)
  assert looked_at == list(range(0, 21, 2))
  assert track.eyes == pytest.approx(np.broadcast_to(PAIR, (21, 2, 2)), abs=1e-3)
  assert (track.confidence[::2] == 1).all()
  assert track.confidence[1::2] == pytest.approx(1 - 1 / 15, abs=1e-5)


def test_a_face_without_eyes_lends_its_box(detector: Callable[..., None]) -> None:
  # The eyes close for 1.7 s while the head moves 60 px to the right and stays.
  detector(lambda i: (BOX, PAIR) if i < 40 else (BOX + (60, 0, 0, 0), None if i < 91 else PAIR + (60, 0)))
  track = faces.track(_film(120), detector='haar', every=1, min_face=0.2, hold=0.5)
  assert track.eyes[60:] == pytest.approx(np.broadcast_to(PAIR + (60, 0), (60, 2, 2)), abs=1e-3)
  assert track.confidence[65] == 0.5
  assert track.confidence[42] == pytest.approx(1 - 3 / 15, abs=1e-5)


def test_jitter_is_smoothed_and_jumps_are_dropped(detector: Callable[..., None]) -> None:
  noise = np.random.default_rng(0).normal(0, 1, (60, 2, 2))
  detector(lambda i: (BOX, PAIR + noise[i] + (40 if i in (0, 17, 30, 31) else 0)))
  track = faces.track(_film(60), detector='haar', every=1, min_face=0.2, hold=0.5)
  assert np.abs(track.eyes - PAIR).max() < 3
  raw, smooth = (np.diff(e, n=2, axis=0).std() for e in (noise, track.eyes))
  assert smooth < 0.25 * raw
  assert (track.confidence[[0, 17, 30, 31]] < 1).all() and (track.confidence > 0.8).all()


def test_eyes_now_and_then_are_no_face(detector: Callable[..., None]) -> None:
  detector(lambda i: (BOX, PAIR if i % 25 == 0 else None))
  track = faces.track(_film(100), detector='haar', every=1, min_face=0.2, hold=0.5)
  assert not track.confidence.any() and not track.eyes.any() and not track.box.any()


def test_a_film_of_no_frames() -> None:
  track = faces.track([], detector='haar', every=1, min_face=0.2, hold=0.5)
  assert track.eyes.shape == (0, 2, 2) and track.box.shape == (0, 4) and track.confidence.shape == (0,)


@pytest.mark.parametrize('detector', ['haar', 'mtcnn'])
@pytest.mark.parametrize('grain', [1, 8, 16])
def test_noise_has_no_face(grain: int, detector: str) -> None:
  random = np.random.default_rng(grain)
  blocks = random.integers(0, 256, (30, -(-180 // grain), -(-240 // grain), 3), np.uint8)
  film = ((i / RATE, b.repeat(grain, 0).repeat(grain, 1)[:180, :240]) for i, b in enumerate(blocks))
  assert not faces.track(film, detector=detector, every=1, min_face=0.2, hold=0.5).confidence.any()


@pytest.mark.parametrize('detector', ['haar', 'mtcnn'])
def test_a_plain_film_and_a_gradient_have_no_face(detector: str) -> None:
  ramp = np.broadcast_to(np.linspace(0, 255, 240).astype(np.uint8)[None, :, None], (180, 240, 3))
  for image in (np.full((180, 240, 3), 90, np.uint8), ramp):
    film = ((i / RATE, image) for i in range(10))
    assert not faces.track(film, detector=detector, every=1, min_face=0.2, hold=0.5).confidence.any()


@pytest.mark.parametrize(('detector', 'apart'), [('haar', (0.25, 0.45)), ('mtcnn', (0.35, 0.55))])
@pytest.mark.parametrize('name', ['java_sed/video/07-01-03_01.mp4', 'crema_d_sample/VideoFlash/1001_DFA_HAP_XX.flv'])
def test_the_face_of_a_real_clip(name: str, detector: str, apart: tuple[float, float]) -> None:
  path = DATA / name
  if not path.exists():
    pytest.skip(f'no real clips: {path} is absent; set EMO_JAX_DATA')
  lit = np.array([image.mean() > 10 for _, image in media.frames(str(path))])  # some clips begin with black frames
  track = faces.track(media.frames(str(path)), detector=detector, every=1, min_face=0.2, hold=0.5)
  sure = track.confidence == 1
  assert sure[lit].mean() >= 0.9
  across = track.eyes[sure, 1, 0] - track.eyes[sure, 0, 0]
  share = across / track.box[sure, 2]
  assert ((share > apart[0]) & (share < apart[1])).all()
  middle = track.eyes[sure].mean(1)
  assert np.abs(np.diff(middle, axis=0)).max() < 0.3 * across.mean()

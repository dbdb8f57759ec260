"""Faces: where the eyes land in the crop, how gaps are filled, who is followed, what is found in noise and in clips."""

import os
import pathlib
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest

from emo_jax.frontend import faces, haar, halves, media
from tests.frontend.portraits import portrait

RATE = 30.0
BOX = np.array([100.0, 50.0, 120.0, 120.0])
PAIR = np.array([[140.0, 97.0], [180.0, 97.0]])
DATA = pathlib.Path(os.environ.get('EMO_JAX_DATA', pathlib.Path(__file__).parents[2] / '../shared/data'))


Face = tuple[np.ndarray, np.ndarray | None]  # box, eyes
SEARCH: dict[str, Any] = {'detector': 'haar', 'every': 1, 'min_face': 0.2, 'hold': 0.5}


def _wall(seed: int = 0) -> np.ndarray:
  """A picture in which every place looks its own."""
  rough = np.random.default_rng(seed).integers(0, 256, (60, 80), np.uint8)
  return cv2.resize(rough, (320, 240), interpolation=cv2.INTER_CUBIC)[..., None].repeat(3, 2)


def _film(count: int, picture: Callable[[int], np.ndarray] = lambda i: _wall()) -> Iterator[tuple[float, np.ndarray]]:
  """Frames whose first pixel says which frame they are, for detectors that are made up."""
  for i in range(count):
    image = picture(i).copy()
    image[0, 0] = i
    yield i / RATE, image


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
  """Replaces the cascades by who is in a frame, by its number; returns the frames that are looked at, as they come."""

  def use(people: Callable[[int], list[Face]]) -> list[int]:
    looked_at: list[int] = []

    def find(image: np.ndarray, near: np.ndarray | None, smallest: float) -> list[Face]:
      looked_at.append(int(image[0, 0, 0]))
      middle = lambda box: box[:2] + box[2:] / 2
      return [
        face
        for face in people(looked_at[-1])
        if near is None
        or ((np.abs(middle(face[0]) - middle(near)) < near[2:] / 2).all() and 0.7 < face[0][2] / near[2] < 1.4)
      ]

    monkeypatch.setattr(haar, 'find', find)
    return looked_at

  return use


def _at(x: float, y: float = 0, size: float = 1) -> Face:
  """A face of BOX and PAIR, moved by x and y, of another size."""
  return BOX * (1, 1, size, size) + (x, y, 0, 0), BOX[:2] + (x, y) + (PAIR - BOX[:2]) * size


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


def test_gaps_are_interpolated_and_ends_held(detector: Callable[..., list[int]]) -> None:
  # Found in frames 20-39 and 50-69 of 90, moving by 1 px a frame.
  detector(lambda i: [_at(i)] if 20 <= i < 40 or 50 <= i < 70 else [])
  track = faces.track(_film(90), **SEARCH)
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


def test_every_other_frame(detector: Callable[..., list[int]]) -> None:
  looked_at = detector(lambda i: [_at(0)])
  track = faces.track(_film(21), **{**SEARCH, 'every': 2})
  assert looked_at == list(range(0, 21, 2))
  assert track.eyes == pytest.approx(np.broadcast_to(PAIR, (21, 2, 2)), abs=1e-3)
  assert (track.confidence[::2] == 1).all()
  assert track.confidence[1::2] == pytest.approx(1 - 1 / 15, abs=1e-5)


def _swayed(i: int) -> np.ndarray:
  """x, y by which a head that sways is away from where it was."""
  return np.array([12 * np.sin(i / 4), 6 * np.cos(i / 3) - 6])


def test_between_detections_the_eyes_are_followed(detector: Callable[..., list[int]]) -> None:
  def picture(i: int) -> np.ndarray:
    shift = np.column_stack([np.eye(2), _swayed(i)])
    return cv2.warpAffine(_wall(), shift, (320, 240), borderMode=cv2.BORDER_REFLECT)

  looked_at = detector(lambda i: [_at(*_swayed(i))])
  track = faces.track(_film(61, picture), **{**SEARCH, 'every': 12})
  assert set(looked_at) == set(range(0, 61, 12))
  truth = PAIR + np.array([_swayed(i) for i in range(61)])[:, None]
  straight = np.stack([np.interp(range(61), range(0, 61, 12), column[::12]) for column in truth.reshape(61, 4).T], -1)
  assert np.abs(straight.reshape(61, 2, 2) - truth).max() > 8
  assert track.eyes == pytest.approx(truth, abs=0.5)
  assert (track.confidence[::12] == 1).all() and (track.confidence > 0.5).all()


def test_detections_correct_what_following_brings(detector: Callable[..., list[int]]) -> None:
  # The eyes move where the picture, by which they are followed, stands still.
  detector(lambda i: [_at(0.2 * i)])
  track = faces.track(_film(91), **{**SEARCH, 'every': 5})
  assert track.eyes[10:81] == pytest.approx(
    PAIR + 0.2 * np.stack([np.arange(10, 81), np.zeros(71)], -1)[:, None], abs=0.6
  )


def test_after_a_cut_the_face_is_looked_for_at_once(detector: Callable[..., list[int]]) -> None:
  looked_at = detector(lambda i: [_at(0 if i < 21 else 70, 0 if i < 21 else -30)])
  track = faces.track(_film(60, lambda i: _wall(i // 21)), **{**SEARCH, 'every': 8})
  assert 21 in looked_at and 20 not in looked_at
  assert track.eyes[:21] == pytest.approx(np.broadcast_to(PAIR, (21, 2, 2)), abs=0.5)
  assert track.eyes[21:] == pytest.approx(np.broadcast_to(PAIR + (70, -30), (39, 2, 2)), abs=0.5)


def test_where_following_is_lost_the_way_is_straight(detector: Callable[..., list[int]]) -> None:
  # Frames 20 to 26 show something else; then the face is 28 px to the right.
  detector(lambda i: [_at(0)] if i < 20 else [_at(28)] if i >= 27 else [])
  track = faces.track(_film(60, lambda i: _wall(i if 20 <= i < 27 else 0)), **{**SEARCH, 'every': 8})
  way = np.interp(np.arange(60), [19, 27], [0, 28])
  assert track.eyes == pytest.approx(PAIR + np.stack([way, 0 * way], -1)[:, None], abs=0.5)


def test_a_face_that_moves_far_is_looked_for_where_it_went(detector: Callable[..., list[int]]) -> None:
  # By the next detection it is beyond the old place's neighbourhood, and searches of the whole frame are counted too.
  looked_at = detector(lambda i: [_at(7 * i - 90)])
  picture = lambda i: np.roll(_wall(), 7 * i, 1)
  track = faces.track(_film(25, picture), **{**SEARCH, 'every': 12})
  assert looked_at == [0, 12, 24]
  assert track.eyes == pytest.approx(PAIR + np.stack([7 * np.arange(25) - 90, np.zeros(25)], -1)[:, None], abs=0.5)


def test_a_face_that_was_missed_is_looked_for_again_in_the_next_frame(detector: Callable[..., list[int]]) -> None:
  looked_at = detector(lambda i: [_at(0)] if i not in (16, 17) else [])
  track = faces.track(_film(30), **{**SEARCH, 'every': 8})
  assert sorted(set(looked_at)) == [0, 8, 16, 17, 18, 24]
  assert track.confidence[18] == 1 and track.confidence[17] == pytest.approx(1 - 1 / 15, abs=1e-5)


def test_closed_eyes_go_with_the_box_where_following_is_lost(detector: Callable[..., list[int]]) -> None:
  detector(lambda i: [_at(0)] if i < 20 else [(_at(28)[0], None)] if i < 40 else [_at(28)])
  track = faces.track(_film(60, lambda i: _wall(i // 20)), **{**SEARCH, 'every': 8})
  assert track.eyes[:20] == pytest.approx(np.broadcast_to(PAIR, (20, 2, 2)), abs=1)
  assert track.eyes[20:] == pytest.approx(np.broadcast_to(PAIR + (28, 0), (40, 2, 2)), abs=1)


def test_what_detections_add_to_following_is_smoothed(detector: Callable[..., list[int]]) -> None:
  noise = np.random.default_rng(0).normal(0, 1, (250, 2, 2))
  detector(lambda i: [(BOX, PAIR + noise[i])])
  track = faces.track(_film(250), **{**SEARCH, 'every': 5})
  assert (track.eyes - PAIR).std() < 0.6


def test_where_nobody_is_every_frame_is_looked_at(detector: Callable[..., list[int]]) -> None:
  looked_at = detector(lambda i: [_at(0)] if i >= 13 else [])
  track = faces.track(_film(40), **{**SEARCH, 'every': 10})
  assert looked_at == [*range(14), 20, 30]
  assert track.confidence[13] == 1 and track.confidence[12] == pytest.approx(1 - 1 / 15, abs=1e-5)


@pytest.mark.parametrize('every', [1, 5])
def test_of_two_faces_the_larger_one_is_followed_though_it_comes_later(
  detector: Callable[..., list[int]], every: int
) -> None:
  small, large = _at(-90, 0, 0.6), _at(60)
  detector(lambda i: [small] if i < 27 else [small, large])
  track = faces.track(_film(120), **{**SEARCH, 'every': every})
  assert track.eyes == pytest.approx(np.broadcast_to(large[1], (120, 2, 2)), abs=0.5)
  assert (track.confidence[:15] == 0).all() and (track.confidence[30:] > 0.7).all()
  assert track.others == pytest.approx(1, abs=0.05)
  said = faces.warnings(track)
  assert len(said) == 2 and 'several faces' in said[1] and f'{100 * (track.confidence > 0).mean():.0f} %' in said[0]


@pytest.mark.parametrize('every', [1, 5])
def test_a_larger_face_that_is_gone_soon_changes_nothing(detector: Callable[..., list[int]], every: int) -> None:
  steady, brief = _at(-90), _at(50, 0, 1.3)
  detector(lambda i: [steady, brief] if 30 <= i < 42 else [steady])
  track = faces.track(_film(120), **{**SEARCH, 'every': every})
  assert track.eyes == pytest.approx(np.broadcast_to(steady[1], (120, 2, 2)), abs=0.5)
  assert (track.confidence > 0.7).all() and faces.warnings(track) == []


@pytest.mark.parametrize('every', [1, 5])
def test_of_two_faces_that_come_and_go_one_is_followed(detector: Callable[..., list[int]], every: int) -> None:
  # One of them goes unseen now and then, when the other would be at hand.
  one, other = _at(-95), _at(60, 0, 0.95)
  detector(lambda i: [other] if i % 40 in range(20, 30) else [one, other])
  track = faces.track(_film(200), **{**SEARCH, 'every': every})
  followed = np.abs(track.eyes - one[1]).max((1, 2)) < 0.5
  assert followed.all() or not followed.any()


@pytest.mark.parametrize('every', [1, 5])
def test_where_a_film_is_cut_the_next_face_takes_over(detector: Callable[..., list[int]], every: int) -> None:
  one, other = _at(-90), _at(60, 0, 0.8)
  detector(lambda i: [one] if i < 62 else [other])
  track = faces.track(_film(120, lambda i: _wall(i // 62)), **{**SEARCH, 'every': every})
  assert track.eyes[:62] == pytest.approx(np.broadcast_to(one[1], (62, 2, 2)), abs=0.5)
  assert track.eyes[62:] == pytest.approx(np.broadcast_to(other[1], (58, 2, 2)), abs=0.5)
  assert (track.confidence > 0.7).all() and faces.warnings(track) == []


def test_a_second_face_that_is_seldom_found_is_no_crowd(detector: Callable[..., list[int]]) -> None:
  detector(lambda i: [_at(-90), _at(60)] if i % 5 == 0 else [_at(-90)])
  assert faces.warnings(faces.track(_film(200), **SEARCH)) == []


def test_a_face_that_is_large_of_a_sudden_is_the_same(detector: Callable[..., list[int]]) -> None:
  detector(lambda i: [_at(0) if i < 30 else _at(-30, -30, 1.5)])
  track = faces.track(_film(60), **SEARCH)
  assert (track.confidence == 1).all() and track.others == 0


def test_two_that_become_one_are_one(detector: Callable[..., list[int]]) -> None:
  detector(lambda i: [_at(60), _at(-90 + 3 * i)] if i < 50 else [_at(60)])
  track = faces.track(_film(200), **SEARCH)
  assert track.eyes == pytest.approx(np.broadcast_to(_at(60)[1], (200, 2, 2)), abs=0.5)
  assert track.others < 0.3


def test_a_pair_of_eyes_that_is_hardly_ever_there_fills_no_gap(detector: Callable[..., list[int]]) -> None:
  detector(lambda i: [_at(0)] if i < 60 else [_at(40, 30)] if i == 100 else [])
  track = faces.track(_film(160), **SEARCH)
  assert (track.confidence[75:] == 0).all() and (track.confidence[:60] == 1).all()


def test_a_face_without_eyes_lends_its_box(detector: Callable[..., list[int]]) -> None:
  # The eyes close for 1.7 s while the head moves 50 px to the right and stays.
  detector(lambda i: [_at(0) if i < 40 else _at(50) if i >= 91 else (_at(50)[0], None)])
  track = faces.track(_film(120), **SEARCH)
  assert track.eyes[60:] == pytest.approx(np.broadcast_to(PAIR + (50, 0), (60, 2, 2)), abs=1e-3)
  assert track.confidence[65] == 0.5
  assert track.confidence[42] == pytest.approx(1 - 3 / 15, abs=1e-5)


def test_jitter_is_smoothed_and_jumps_are_dropped(detector: Callable[..., list[int]]) -> None:
  noise = np.random.default_rng(0).normal(0, 1, (60, 2, 2))
  detector(lambda i: [(BOX, PAIR + noise[i] + (40 if i in (0, 17, 30, 31) else 0))])
  track = faces.track(_film(60), **SEARCH)
  assert np.abs(track.eyes - PAIR).max() < 3
  raw, smooth = (np.diff(e, n=2, axis=0).std() for e in (noise, track.eyes))
  assert smooth < 0.25 * raw
  assert (track.confidence[[0, 17, 30, 31]] < 1).all() and (track.confidence > 0.8).all()


def test_eyes_now_and_then_are_no_face(detector: Callable[..., list[int]]) -> None:
  detector(lambda i: [(BOX, PAIR if i % 25 == 0 else None)])
  track = faces.track(_film(100), **SEARCH)
  assert not track.confidence.any() and not track.eyes.any() and not track.box.any()


def test_a_film_of_no_frames() -> None:
  track = faces.track([], **SEARCH)
  assert track.eyes.shape == (0, 2, 2) and track.box.shape == (0, 4) and track.confidence.shape == (0,)


@pytest.mark.parametrize('detector', ['haar', 'mtcnn'])
@pytest.mark.parametrize('grain', [1, 8, 16])
def test_noise_has_no_face(grain: int, detector: str) -> None:
  random = np.random.default_rng(grain)
  blocks = random.integers(0, 256, (30, -(-180 // grain), -(-240 // grain), 3), np.uint8)
  film = ((i / RATE, b.repeat(grain, 0).repeat(grain, 1)[:180, :240]) for i, b in enumerate(blocks))
  assert not faces.track(film, **{**SEARCH, 'detector': detector}).confidence.any()


@pytest.mark.parametrize('detector', ['haar', 'mtcnn'])
def test_a_plain_film_and_a_gradient_have_no_face(detector: str) -> None:
  ramp = np.broadcast_to(np.linspace(0, 255, 240).astype(np.uint8)[None, :, None], (180, 240, 3))
  for image in (np.full((180, 240, 3), 90, np.uint8), ramp):
    film = ((i / RATE, image) for i in range(10))
    assert not faces.track(film, **{**SEARCH, 'detector': detector}).confidence.any()


@pytest.mark.parametrize(('detector', 'apart'), [('haar', (0.25, 0.45)), ('mtcnn', (0.35, 0.55))])
@pytest.mark.parametrize('name', ['java_sed/video/07-01-03_01.mp4', 'crema_d_sample/VideoFlash/1001_DFA_HAP_XX.flv'])
def test_the_face_of_a_real_clip(name: str, detector: str, apart: tuple[float, float]) -> None:
  path = DATA / name
  if not path.exists():
    pytest.skip(f'no real clips: {path} is absent; set EMO_JAX_DATA')
  lit = np.array([image.mean() > 10 for _, image in media.frames(str(path))])  # some clips begin with black frames
  track = faces.track(media.frames(str(path)), **{**SEARCH, 'detector': detector})
  sure = track.confidence == 1
  assert sure[lit].mean() >= 0.9
  across = track.eyes[sure, 1, 0] - track.eyes[sure, 0, 0]
  share = across / track.box[sure, 2]
  assert ((share > apart[0]) & (share < apart[1])).all()
  middle = track.eyes[sure].mean(1)
  assert np.abs(np.diff(middle, axis=0)).max() < 0.3 * across.mean()


def test_eyes_that_are_followed_are_those_that_are_found(data_root: pathlib.Path) -> None:
  path = data_root / 'java_sed/video/08-03-05_01.mp4'
  if not path.exists():
    pytest.skip(f'no {path}')
  every, followed = (faces.track(media.frames(str(path)), **{**SEARCH, 'every': every}) for every in (1, 8))
  apart = np.linalg.norm(every.eyes[:, 1] - every.eyes[:, 0], axis=1)
  away = np.linalg.norm(followed.eyes - every.eyes, axis=2).max(1) / apart
  assert np.median(away) < 0.03 and np.quantile(away, 0.9) < 0.06 and away.max() < 0.12
  moved = np.linalg.norm(every.eyes - every.eyes[0], axis=2).max(1) / apart
  assert moved.max() > 0.7  # standing still would not do
  assert (followed.confidence > 0).all()


def test_two_drawn_faces_side_by_side() -> None:
  small, small_eyes = portrait(apart=28, middle=(80, 140), speaker=1)
  both, large_eyes = portrait(apart=45, middle=(250, 120), speaker=2, onto=small)
  grain = np.random.default_rng(0).normal(0, 3, (5, *small.shape))
  film = [((small if i < 15 else both) + grain[i % 5]).clip(0, 255).astype(np.uint8) for i in range(120)]
  track = faces.track(((i / RATE, image) for i, image in enumerate(film)), **{**SEARCH, 'every': 5})
  assert np.abs(track.eyes[30:] - large_eyes).max() < 0.12 * 45
  alone = faces.track(((i / RATE, small) for i in range(20)), **{**SEARCH, 'every': 5})
  assert np.abs(alone.eyes - small_eyes).max() < 0.12 * 28
  assert faces.warnings(alone) == [] and 'several faces: the largest, steadiest was followed' in faces.warnings(track)


SETTINGS: dict[str, Any] = {**SEARCH, 'every': 5, 'size': (30, 22)}


def _prepared(path: pathlib.Path, target: pathlib.Path) -> dict[str, bytes]:
  """The files that the store makes of a film's faces."""
  assert halves.prepare_half('faces', str(path), str(target), SETTINGS)['reason'] == ''
  return {file.name: file.read_bytes() for file in target.parent.glob(f'{target.name}.npy')} | {
    name: array.tobytes() for name, array in np.load(target.with_suffix('.npz')).items()
  }


def test_a_film_that_is_decoded_twice_gives_the_same_bytes(
  encode: Callable[..., pathlib.Path], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  faces_of = (portrait(apart=45, middle=(150 + 2 * i, 120 + i), angle=i / 2)[0] for i in range(25))
  path = encode(tmp_path / 'a.mp4', images=faces_of)
  decoded, pictures = [], media.pictures
  monkeypatch.setattr(media, 'pictures', lambda *args: decoded.append(args[0]) or pictures(*args))
  once = _prepared(path, tmp_path / 'kept' / 'a')
  assert len(decoded) == 1
  monkeypatch.setattr(halves, 'KEPT', 10 * 270 * 360)
  twice = _prepared(path, tmp_path / 'not_kept' / 'a')
  assert len(decoded) == 3
  assert once == twice and len(once['a.npy']) > 25 * 30 * 22 * 3


def test_frames_that_are_kept_take_the_memory_that_they_say(
  encode: Callable[..., pathlib.Path], tmp_path: pathlib.Path
) -> None:
  if not pathlib.Path('/proc/self/statm').exists():
    pytest.skip('no /proc, which tells of memory')
  # In a process of its own, where nothing that is free already is taken for them.
  path = encode(tmp_path / 'a.mp4', images=[_wall()] * 300)
  code = (
    'import os, sys\n'
    'from emo_jax.frontend import media\n'
    'resident = lambda: int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")\n'
    'kept = []\n'
    'for _, picture in media.pictures(sys.argv[1]):\n'
    '  before = before if kept else resident()\n'
    '  picture.rgb()\n'
    '  kept.append(picture)\n'
    'print(resident() - before, sum(picture.nbytes for picture in kept))\n'
  )
  told = subprocess.run([sys.executable, '-c', code, str(path)], capture_output=True, text=True, check=True).stdout
  taken, said = map(int, told.split())
  assert said > 300 * 240 * 320 and taken < 1.5 * said + 10e6


def test_of_a_long_film_few_frames_are_in_memory_at_once(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, detector: Callable[..., list[int]]
) -> None:
  class Picture:
    nbytes = 1000

    def rgb(self) -> np.ndarray:
      return _wall()

  alive: weakref.WeakSet[Picture] = weakref.WeakSet()
  most = [0]

  def pictures(path: str, notes: Any = None) -> Iterator[tuple[float, Picture]]:
    for i in range(200):
      picture = Picture()
      alive.add(picture)
      most.append(len(alive))
      yield i / RATE, picture

  detector(lambda i: [_at(0)])
  monkeypatch.setattr(media, 'pictures', pictures)
  monkeypatch.setattr(media, 'probe', lambda path: media.Streams(True, False, 0))
  monkeypatch.setattr(halves, 'KEPT', 10_000)
  _prepared(tmp_path / 'a.mp4', tmp_path / 'store' / 'a')
  assert 10 <= max(most) <= 13
  assert len(np.load(tmp_path / 'store' / 'a.npy')) == 200

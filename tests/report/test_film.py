"""The film of a clip: box, bars, times and sound are read back from what was written; Chromium plays it."""

import itertools
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from emo_jax.frontend import media
from emo_jax.report import film, timeline
from tests.end_to_end import accidents
from tests.report.results import CLASSES, result

RATE = 44100
GREY = np.full((120, 160, 3), 90, np.uint8)


def track(times: Any, boxes: Any, confidence: Any = 1.0) -> dict[str, np.ndarray]:
  times = np.asarray(times, float)
  spread = lambda values, *shape: np.broadcast_to(np.asarray(values, float), (len(times), *shape))
  return {'times': times, 'box': spread(boxes, 4), 'confidence': spread(confidence)}


def seen(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """Times [F] and images [F, H, W, 3] as floats."""
  times, images = zip(*media.frames(str(path)), strict=True)
  return np.array(times), np.stack(images).astype(float)


def heard(path: pathlib.Path) -> np.ndarray:
  return np.concatenate(list(media.sound(str(path))))


def like(images: np.ndarray, colour: Any, *, off: float = 60) -> np.ndarray:
  """bool [..., H, W]: where an image has a colour, whatever H.264 did to it."""
  return np.abs(images - np.asarray(colour)).max(-1) < off


def boxed(image: np.ndarray) -> tuple[int, int, int, int] | None:
  """x, y, width and height of the box that is drawn; None without one."""
  yellow = np.argwhere(like(image, film.BOX))
  if len(yellow) < 8:
    return None
  (top, left), (bottom, right) = yellow.min(0), yellow.max(0)
  return left, top, right - left, bottom - top


def wave(seconds: float, rate: int = RATE, at: float | None = None) -> np.ndarray:
  """[1, samples]: silence, with a click of 5 ms at `at`."""
  samples = np.zeros((1, round(seconds * rate)), np.float32)
  if at is not None:
    samples[0, round(at * rate) : round((at + 0.005) * rate)] = 0.9
  return samples


def rgb(name: str) -> tuple[int, ...]:
  return tuple(bytes.fromhex(timeline.COLOURS[CLASSES.index(name)][1:]))


# the picture


@pytest.mark.parametrize('turn', [0, 90, 180])
def test_the_box_is_where_and_when_the_face_is(tmp_path: pathlib.Path, turn: int) -> None:
  accidents.film(tmp_path / 'a.mp4', [GREY] * 30, wave(1.2), turn=turn)
  times = np.arange(30) / 25
  height, width = (160, 120) if turn == 90 else (120, 160)
  boxes = [(10.0 + n, 20, 50, 60) for n in range(30)]
  sure = (np.arange(30) < 10) | (np.arange(30) >= 20)
  film.annotate(str(tmp_path / 'a.mp4'), result(3), track(times, boxes, sure), tmp_path / 'b.mp4')
  shown, images = seen(tmp_path / 'b.mp4')
  where = film.layout(width, height, rows=4, tallest=None)
  (left, top, wide, _), scale = where.picture, where.picture[3] / height
  assert scale > 1 or turn == 90  # small ones are enlarged
  for time, image in zip(shown, images, strict=True):
    frame = int(np.abs(times - time).argmin())
    found = boxed(image[top:, left : left + wide])
    assert (found is not None) == sure[frame], time
    if found:
      np.testing.assert_allclose(found, np.multiply(boxes[frame], scale), atol=4)


def test_without_a_track_no_box_is_drawn(tmp_path: pathlib.Path) -> None:
  accidents.film(tmp_path / 'a.mp4', [GREY] * 10, None)
  for name, nothing in (('b', None), ('c', track([], np.zeros((0, 4)), np.zeros(0)))):
    film.annotate(str(tmp_path / 'a.mp4'), result(1), nothing, tmp_path / f'{name}.mp4')
    assert not any(boxed(image) for image in seen(tmp_path / f'{name}.mp4')[1])


def test_a_box_beyond_the_picture_is_cut(tmp_path: pathlib.Path) -> None:
  accidents.film(tmp_path / 'a.mp4', [GREY] * 5, None)
  boxes = [(-1e9, -5, 2e9, 1e9), (1e300, 0, 1, 1), (50, 50, 0, 0), (-40, -40, 80, 80), (150, 110, 900, 900)]
  film.annotate(str(tmp_path / 'a.mp4'), result(1), track(np.arange(5) / 25, boxes), tmp_path / 'b.mp4')
  assert len(seen(tmp_path / 'b.mp4')[0]) >= 5


def test_frames_are_shown_when_they_were_however_they_come(tmp_path: pathlib.Path) -> None:
  times = [0.0, 0.04, 0.08, 0.2, 0.21, 0.5, 0.9, 0.933, 1.4]
  images = [np.full_like(GREY, 30 + 20 * number) for number in range(len(times))]
  accidents.film(tmp_path / 'a.mkv', images, wave(2.0), times=times, picture='mpeg4', sound='pcm_s16le')
  was = np.array([time for time, _ in media.pictures(str(tmp_path / 'a.mkv'))])
  film.annotate(str(tmp_path / 'a.mkv'), result(5), None, tmp_path / 'b.mp4')
  shown, images_back = seen(tmp_path / 'b.mp4')
  assert np.abs(shown[:, None] - was).min(0).max() < 0.002  # each is there
  assert np.diff(shown).max() < 1.6 * film.STEP  # and where they stand the bars go on
  assert shown[-1] == pytest.approx(result(5)['segments'][-1]['end'], abs=2 * film.STEP)
  level = images_back[:, 40:80, 40:80].mean((1, 2, 3))
  wanted = 30 + 20 * (np.searchsorted(was, shown + 0.002) - 1)
  np.testing.assert_allclose(level, wanted, atol=6)


SIZES = [
  (2, 2),
  (3, 5),
  (5, 3),
  (161, 121),
  (4000, 18),
  (18, 4000),
  (360, 270),
  (1080, 1920),
  (1920, 1080),
  (7680, 4320),
]


@pytest.mark.parametrize(('width', 'height'), SIZES)
@pytest.mark.parametrize('tallest', [None, 360, 1])
@pytest.mark.parametrize('rows', [1, 6, 8])
def test_there_is_room_for_all_whatever_the_size(width: int, height: int, tallest: int | None, rows: int) -> None:
  of = film.layout(width, height, rows=rows, tallest=tallest)
  assert of.width % 2 == 0 == of.height % 2 and min(of.width, of.height) >= 64
  assert of.width <= 1920 + 480 and of.height <= 1080 + 800
  spots = np.zeros((of.height, of.width), int)
  for x, y, w, h in (of.picture, of.panel):
    assert min(x, y) >= 0 < min(w, h)
    spots[y : y + h, x : x + w] += 1
    assert x + w <= of.width and y + h <= of.height
  assert spots.max() == 1
  assert of.picture[3] <= (tallest or 1080)
  if max(width, height) < 8 * min(width, height) and tallest != 1:
    assert of.picture[2] / of.picture[3] == pytest.approx(width / height, rel=0.02)
  _, lowest, _, high = film._bar(rows - 1, of.panel[2], of.unit)
  assert lowest + high + 1.4 * of.unit <= of.panel[3]  # bars, and below them what is missing


def test_letters_can_be_read_in_small_and_in_large_films() -> None:
  units = [film.layout(w, h, rows=6, tallest=None).unit for w, h in ((360, 270), (1920, 1080), (1080, 1920), (64, 48))]
  assert min(units) >= 10 and units[0] >= 14 and units[1] >= 36


@pytest.mark.parametrize(('width', 'height'), [(16, 16), (70, 20), (20, 70), (62, 48)])
def test_tiny_films_are_written(tmp_path: pathlib.Path, width: int, height: int) -> None:
  accidents.film(tmp_path / 'a.mkv', [np.full((height, width, 3), 200, np.uint8)] * 4, None, picture='mpeg4')
  film.annotate(str(tmp_path / 'a.mkv'), result(1), None, tmp_path / 'b.mp4')
  where = film.layout(width, height, rows=4, tallest=None)
  _, images = seen(tmp_path / 'b.mp4')
  assert images.shape[1:3] == (where.height, where.width)
  x, y, w, h = where.picture
  assert images[0, y + h // 2, x + w // 2] == pytest.approx([200] * 3, abs=12)


def test_the_picture_is_as_high_as_was_asked_for(tmp_path: pathlib.Path) -> None:
  accidents.film(tmp_path / 'a.mp4', [np.full((720, 1280, 3), 90, np.uint8)] * 3, None)
  film.annotate(str(tmp_path / 'a.mp4'), result(1), None, tmp_path / 'b.mp4', height=360)
  image = seen(tmp_path / 'b.mp4')[1][0]
  assert image.shape[0] == 360
  assert (np.abs(image[180] - 90).max(-1) < 10).sum() == pytest.approx(640, abs=4)


# the panel


def bars(image: np.ndarray, where: film.Layout) -> dict[str, float]:
  """How much of each class's bar is filled, by counting the pixels of its colour in a row through its middle."""
  x0, y0, width, _ = where.panel
  found = {}
  for row, name in enumerate(CLASSES):
    x, y, w, h = film._bar(row, width, where.unit)
    found[name] = like(image[y0 + y + h // 2, x0 + x : x0 + x + w], rgb(name)).mean()
  return found


@pytest.mark.parametrize('by', ['hybrid', 'audio'])
def test_bars_are_the_probabilities_of_who_judged_at_their_time(tmp_path: pathlib.Path, by: str) -> None:
  said = result(6, by=by, without_face=[2, 3] if by == 'hybrid' else range(6), how='')
  accidents.film(tmp_path / 'a.mp4', [GREY] * 60, wave(2.4))
  film.annotate(str(tmp_path / 'a.mp4'), said, None, tmp_path / 'b.mp4')
  where = film.layout(160, 120, rows=4, tallest=None)
  shown, images = seen(tmp_path / 'b.mp4')
  for number, segment in enumerate(said['segments']):
    middle = 0.3 * number + 0.3275
    image = images[np.abs(shown - middle).argmin()]
    wanted = segment[by] or dict.fromkeys(CLASSES, 0.0)
    assert bars(image, where) == pytest.approx(wanted, abs=0.04), number


def test_the_verdict_so_far_is_the_mean_up_to_now() -> None:
  said = result(6, without_face=[0, 3], how='')
  panel = film._panel(said, (0, 0, 200, 300), 14)
  odds = [list(segment['hybrid'].values()) if segment['hybrid'] else None for segment in said['segments']]
  assert np.isnan(panel.so_far[0]).all()
  for number in range(1, 6):
    np.testing.assert_allclose(panel.so_far[number], np.mean([of for of in odds[: number + 1] if of], axis=0))


def test_words_come_where_something_is_missing_or_filled_in() -> None:
  said = result(5, without_face=[1, 2], without_sound=[2, 3])
  panel = film._panel(said, (0, 0, 200, 300), 14)
  assert panel.notes == ['', 'face filled in', 'no sound, no face', 'sound filled in', '']
  below = [film._drawn(panel, time)[145:-8] for time in panel.times]
  inked = [(like(image, film.NOTE).sum() > 20) for image in below]
  assert inked == [False, True, True, True, False]


def test_the_line_at_the_bottom_says_how_much_has_been_played() -> None:
  panel = film._panel(result(5), (0, 0, 200, 300), 14)
  for share in (0.0, 0.5, 1.0, 7.0):
    line = film._drawn(panel, share * panel.seconds)[-1]
    assert like(line, film.DARK).mean() == pytest.approx(min(1.0, share), abs=0.01)


def test_of_many_classes_the_likeliest_have_bars() -> None:
  said = result(5, classes=[f'emotion {number}' for number in range(30)])
  panel = film._panel(said, (0, 0, 200, 300), 14)
  mean = np.mean([list(segment['hybrid'].values()) for segment in said['segments']], axis=0)
  assert panel.rows.tolist() == sorted(np.argsort(-mean)[: film.ROWS].tolist())


@pytest.mark.parametrize('name', ['злость', '喜び', 'غضب', '$\\frac{$', 'a\nb\x1b[2J\udcff', '', 'e' * 500, '<b>&amp;'])
def test_any_name_of_a_class_is_drawn(name: str) -> None:
  said = result(2, classes=[name, 'joy'])
  panel = film._panel(said, (0, 0, 200, 200), 14)
  image = film._drawn(panel, 0.5)
  assert image.shape == (200, 200, 3)
  x, y, _, h = film._bar(0, 200, 14)
  there = like(image[y : y + h, 7 : x - 4], film.GROUND, off=30)
  assert there.all() == (name == '')


def test_texts_are_as_high_as_asked_for_and_those_that_are_too_wide_get_smaller() -> None:
  low, high = (np.flatnonzero(film._text('H', px).max(1) > 128) for px in (20, 40))
  assert np.ptp(low) == pytest.approx(0.73 * 20, abs=1.5) and np.ptp(high) == pytest.approx(0.73 * 40, abs=1.5)
  assert np.flatnonzero(film._text('g', 20).max(1) > 128)[-1] > low[-1]
  assert film._fitted('contentment', 20, 60).shape[1] <= 60 < film._text('contentment', 20).shape[1]
  assert film._fitted('joy', 20, 60) is film._text('joy', 20)


# the sound


def first(mask: np.ndarray) -> int:
  return int(np.flatnonzero(mask)[0])


@pytest.mark.parametrize(
  ('ending', 'options'),
  [
    ('mp4', {}),
    ('mp4', {'rate': 48000}),
    ('mkv', {'rate': 37800, 'sound': 'pcm_s16le', 'picture': 'mpeg4'}),  # of no AAC
    ('mkv', {'rate': 96000, 'sound': 'pcm_s16le', 'picture': 'mpeg4'}),
    ('mkv', {'rate': 8000, 'sound': 'pcm_s16le', 'picture': 'mpeg4', 'times': 0.35 + np.arange(60) / 25}),
    ('flv', {'picture': 'flv', 'sound': 'libmp3lame'}),
  ],
)
def test_a_click_and_a_flash_come_together_as_they_did(tmp_path: pathlib.Path, ending: str, options: Any) -> None:
  options = {'rate': RATE, **options}
  times = options.get('times', np.arange(60) / 25)
  flash = int(np.abs(times - 1.2).argmin())
  images = [np.full_like(GREY, 230 if number == flash else 40) for number in range(60)]
  path = tmp_path / f'a.{ending}'
  accidents.film(path, images, wave(3.0, options['rate'], at=float(times[flash])), **options)
  film.annotate(str(path), result(8), None, tmp_path / 'b.mp4')
  came = []
  for one in (path, tmp_path / 'b.mp4'):
    shown, back = seen(one)
    sound = np.abs(heard(one))
    came.append(
      (shown[first(back[:, 40:80, 40:80].mean((1, 2, 3)) > 150)], first(sound > 0.4) / media.probe(str(one)).rate)
    )
    assert len(sound) / media.probe(str(one)).rate == pytest.approx(3.0, abs=0.1)  # to its end
  assert media.probe(str(tmp_path / 'b.mp4')).rate == {37800: 48000, 96000: 48000}.get(options['rate'], options['rate'])
  (flash_was, click_was), (flash_is, click_is) = came
  assert flash_is == pytest.approx(flash_was, abs=0.003)
  assert click_is == pytest.approx(click_was, abs=0.003)


def late(path: pathlib.Path, delay: float) -> None:
  """A film whose sound begins `delay` seconds after its picture; from then on the picture is light."""
  import av

  with av.open(str(path), 'w') as file:
    picture: Any = file.add_stream('mpeg4', rate=25)
    picture.width, picture.height, picture.pix_fmt = 160, 120, 'yuv420p'
    voice: Any = file.add_stream('pcm_s16le', rate=RATE, layout='mono')
    for number in range(60):
      image = np.full_like(GREY, 200 if number >= delay * 25 - 0.01 else 40)
      file.mux(picture.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
    block = av.AudioFrame.from_ndarray(wave(1.4), format='fltp', layout='mono')
    block.sample_rate, block.pts = RATE, round(delay * RATE)
    for packets in (voice.encode(block), voice.encode(), picture.encode()):
      file.mux(packets)


def test_the_films_clock_is_the_results(tmp_path: pathlib.Path) -> None:
  late(tmp_path / 'a.mkv', 1.0)
  assert next(media.pictures(str(tmp_path / 'a.mkv')))[0] == pytest.approx(-1.0, abs=0.01)
  film.annotate(str(tmp_path / 'a.mkv'), result(3), None, tmp_path / 'b.mp4')
  shown, images = seen(tmp_path / 'b.mp4')
  assert shown[0] == pytest.approx(0.0, abs=0.03)
  assert (images[:, 60, 60] > 150).all()
  assert len(heard(tmp_path / 'b.mp4')) / RATE == pytest.approx(1.4, abs=0.06)


def test_a_picture_that_comes_late_has_plain_ground_before_it(tmp_path: pathlib.Path) -> None:
  times = 1.0 + np.arange(10) / 25
  accidents.film(tmp_path / 'a.mkv', [GREY + 100] * 10, wave(2.0), times=times, picture='mpeg4', sound='pcm_s16le')
  film.annotate(str(tmp_path / 'a.mkv'), result(4), None, tmp_path / 'b.mp4')
  shown, images = seen(tmp_path / 'b.mp4')
  assert shown[0] == 0
  dark = images[:, 60, 60].mean(-1) < 90
  np.testing.assert_array_equal(dark, shown < 0.99)


def test_a_clip_without_sound_is_silent(tmp_path: pathlib.Path) -> None:
  accidents.film(tmp_path / 'a.mp4', [GREY] * 20, None)
  film.annotate(str(tmp_path / 'a.mp4'), result(1, without_sound=[0], by='visual'), None, tmp_path / 'b.mp4')
  assert media.probe(str(tmp_path / 'b.mp4')) == media.Streams(picture=True, sound=False, rate=0)


def test_a_clip_without_a_picture_has_plain_ground_and_bars(tmp_path: pathlib.Path) -> None:
  accidents.film(tmp_path / 'a.wav', None, wave(3.0, at=1.5), sound='pcm_s16le')
  said = result(8, without_face=range(8), how='', by='audio')
  film.annotate(str(tmp_path / 'a.wav'), said, None, tmp_path / 'b.mp4', height=360)
  shown, images = seen(tmp_path / 'b.mp4')
  assert np.diff(shown) == pytest.approx(film.STEP, abs=1e-3)
  assert shown[-1] == pytest.approx(said['segments'][-1]['end'], abs=2 * film.STEP)
  assert first(np.abs(heard(tmp_path / 'b.mp4')) > 0.4) / RATE == pytest.approx(1.5, abs=0.003)
  middle = images[0, 150:210, :640]
  assert like(middle[:20], film.DARK).all() and 20 < like(middle, film.GROUND).sum() < 4000  # the words "no picture"
  where = film.layout(*film.PLAIN, rows=4, tallest=360)
  assert bars(images[np.abs(shown - 0.3275).argmin()], where) == pytest.approx(said['segments'][0]['audio'], abs=0.04)


def test_the_sound_may_come_from_a_file_of_its_own(tmp_path: pathlib.Path) -> None:
  accidents.film(tmp_path / 'a.mp4', [GREY] * 50, wave(2.0, at=0.5))
  accidents.film(tmp_path / 'a.wav', None, wave(2.0, 16000, at=1.5), sound='pcm_s16le', rate=16000)
  film.annotate(str(tmp_path / 'a.mp4'), result(5), None, tmp_path / 'b.mp4', sound=str(tmp_path / 'a.wav'))
  loud = np.flatnonzero(np.abs(heard(tmp_path / 'b.mp4')) > 0.3) / 16000
  assert loud[0] == pytest.approx(1.5, abs=0.003) and loud[-1] < 1.52


def test_nothing_is_written_of_what_is_no_media_file(tmp_path: pathlib.Path) -> None:
  (tmp_path / 'a.mp4').write_bytes(b'nothing' * 100)
  with pytest.raises(media.UnreadableMedia, match=r'a\.mp4'):
    film.annotate(str(tmp_path / 'a.mp4'), result(1), None, tmp_path / 'b.mp4')
  assert not (tmp_path / 'b.mp4').exists()


def test_a_place_that_cannot_be_written_is_an_os_error(tmp_path: pathlib.Path) -> None:
  accidents.film(tmp_path / 'a.mp4', [GREY] * 3, None)
  with pytest.raises(OSError, match='no_folder'):
    film.annotate(str(tmp_path / 'a.mp4'), result(1), None, tmp_path / 'no_folder/b.mp4')


def test_time_stamps_that_leap_far_ahead_make_no_endless_film(tmp_path: pathlib.Path) -> None:
  leap = 40000.0
  accidents.film(tmp_path / 'a.mkv', [GREY] * 3, None, times=[0.0, 0.04, leap], picture='mjpeg')
  film.annotate(str(tmp_path / 'a.mkv'), result(3), None, tmp_path / 'b.mp4')
  assert len(list(media.pictures(str(tmp_path / 'b.mp4')))) < 40


def test_time_stamps_that_no_film_has_are_said(tmp_path: pathlib.Path) -> None:
  accidents.film(tmp_path / 'a.mkv', [GREY] * 3, None, times=[0.0, 0.04, 1e6], picture='mjpeg')
  with pytest.raises(OSError, match=r'b\.mp4 cannot be written'):
    film.annotate(str(tmp_path / 'a.mkv'), result(3), None, tmp_path / 'b.mp4')


# as a film


def boxes(content: bytes) -> list[bytes]:
  """The names of an MP4 file's outermost parts."""
  names, place = [], 0
  while place < len(content):
    names.append(content[place + 4 : place + 8])
    place += int.from_bytes(content[place : place + 4], 'big')
  return names


def test_the_index_comes_first_for_browsers_to_play_at_once(tmp_path: pathlib.Path) -> None:
  accidents.film(tmp_path / 'a.mp4', [GREY] * 10, wave(0.4))
  film.annotate(str(tmp_path / 'a.mp4'), result(1), None, tmp_path / 'b.mp4')
  names = boxes((tmp_path / 'b.mp4').read_bytes())
  assert names.index(b'moov') < names.index(b'mdat')


PAGE = '<body style="margin:0"><video muted autoplay src="b.mp4"></video>'
PLAYED = '() => { const v = document.querySelector("video"); return v.error || v.currentTime > 0.7 }'


def test_chromium_plays_it(tmp_path: pathlib.Path, browser: Any) -> None:
  accidents.film(tmp_path / 'a.mp4', [GREY] * 50, wave(2.0, at=0.1))
  said = result(5)
  for segment in said['segments']:
    segment['hybrid'] = dict.fromkeys(CLASSES, 1.0)
  film.annotate(str(tmp_path / 'a.mp4'), said, None, tmp_path / 'b.mp4')
  (tmp_path / 'a.html').write_text(PAGE)
  tab = browser.new_page(viewport={'width': 800, 'height': 600})
  tab.goto((tmp_path / 'a.html').as_uri())
  tab.wait_for_function(PLAYED, timeout=20000)
  of = tab.evaluate(
    '(v => [v.error?.message, v.videoWidth, v.videoHeight, v.duration, v.webkitAudioDecodedByteCount])'
    '(document.querySelector("video"))'
  )
  shot = tab.screenshot()
  where = film.layout(160, 120, rows=4, tallest=None)
  assert of[:3] == [None, where.width, where.height]
  assert of[3] == pytest.approx(2.0, abs=0.1) and of[4] > 0
  import imageio.v3 as iio

  for row, name in enumerate(CLASSES):
    x, y, w, h = film._bar(row, where.panel[2], where.unit)
    bar = iio.imread(shot, extension='.png')[y + h // 2, where.panel[0] + x + w // 2, :3]
    np.testing.assert_allclose(bar, rgb(name), atol=9)  # by the matrix that the file names


MEMORY = """
import re, sys
from emo_jax.report import film
from tests.report.results import result
film.annotate(sys.argv[1], result(int(sys.argv[2])), None, sys.argv[1] + '.film.mp4')
print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path: pathlib.Path) -> None:
  used = []
  images = [np.roll(np.random.default_rng(0).integers(0, 255, GREY.shape, np.uint8), n, 0) for n in range(25)]
  for minutes in (1, 6):
    path = tmp_path / f'{minutes}.mp4'
    endless = itertools.islice(itertools.cycle(images), minutes * 60 * 25)
    accidents.film(path, endless, wave(60.0 * minutes))
    command = [sys.executable, '-c', MEMORY, str(path), str(200 * minutes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    used.append(int(done.stdout) / 1024)  # MB
  assert used[1] - used[0] < 30, used

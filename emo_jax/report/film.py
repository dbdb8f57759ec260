"""A clip with its face box and its emotions drawn in, as a film that browsers play (pipeline step: predict).

Beside the picture (below it, where it is upright) stands a panel: the verdict so far, a bar for each class, what is
missing or filled in. Everything is streamed; the clip's files are opened by frontend/media.py alone.
"""

import dataclasses
import functools
import itertools
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from emo_jax.frontend import media
from emo_jax.report import timeline

LARGEST = 1920, 1080  # px, width and height of the picture at most
LEAST = 144  # px of height: smaller pictures are enlarged
PLAIN = 640, 360  # px of a clip without a picture
STEP = 0.1  # seconds between frames at most: the bars move where the picture stands still, or where there is none
TICKS = 12800  # a second, in which frames are timed; MP4 has 2^31 of them from one to the next: 46 hours
PLACE = pathlib.Path(__file__).parents[2]  # of the package; not whatever lies where the program was started
DRAWING = 'import json, sys; from emo_jax.report import film; film.annotate(**json.load(sys.stdin))'
DRAW = (sys.executable, '-c', DRAWING)
ROWS = 8  # classes with a bar at most, the likeliest of the clip
RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # Hz, of AAC that all browsers play
HEAD = 4.2  # units above the first bar
GROUND, TRACK, DARK, GREY = (250, 250, 251), (226, 229, 234), (28, 33, 40), (93, 100, 112)  # RGB
BOX, NOTE = (255, 214, 0), (150, 60, 0)
BT601 = 6  # what FFmpeg calls the matrix by which swscale makes luma and chroma of RGB

Track = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Layout:
  """Where everything stands, in px: picture and panel are (x, y, width, height); `unit` is the height of letters."""

  width: int
  height: int
  picture: tuple[int, int, int, int]
  panel: tuple[int, int, int, int]
  unit: int


def layout(width: int, height: int, *, rows: int, tallest: int | None) -> Layout:
  """A place for a picture of this size and for a panel with so many bars; even sizes, as H.264 wants them.

  Args:
    tallest: px of the picture's height at most; None: its own, up to 1080.
  """
  scale = min(max(1.0, LEAST / height), (tallest or LARGEST[1]) / height, LARGEST[1] / height, LARGEST[0] / width)
  w, h = max(1, round(scale * width)), max(1, round(scale * height))
  beside = width >= height
  lines = HEAD + 1.6 * rows + 1.6
  unit = round(np.clip(min(h / lines, h / 18) if beside else w / 24, 10, 40))
  across, down = 12 * unit, round(lines * unit)
  if beside:
    total = w + across, max(h, down)
    panel = w, 0, across, total[1]
  else:
    total = max(w, across), h + down
    panel = 0, h, total[0], down
  left, top = (0, (total[1] - h) // 2) if beside else ((total[0] - w) // 2, 0)
  return Layout(total[0] + total[0] % 2, total[1] + total[1] % 2, (left, top, w, h), panel, unit)


@functools.lru_cache(maxsize=512)
def _text(text: str, px: float, bold: bool = False) -> np.ndarray:
  """A line of text as coverage, uint8 [h, w]; its base line lies at the same height whatever the letters."""
  import matplotlib
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  with matplotlib.rc_context({'font.family': list(timeline.fonts()), 'text.parse_math': False}):
    figure = Figure(dpi=72, figsize=(1, 1.3 * px / 72))
    canvas = FigureCanvasAgg(figure)
    drawn = figure.text(0, 0.28, text, fontsize=px, fontweight='bold' if bold else 'normal')
    wide = max(1.0, drawn.get_window_extent(canvas.get_renderer()).x1 + 1)
    figure.set_size_inches(wide / 72, 1.3 * px / 72)
    figure.patch.set_visible(False)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., 3])


def _put(image: np.ndarray, cover: np.ndarray, x: int, y: int, colour: tuple[int, int, int], *, within: int) -> None:
  """Draws coverage [h, w] into an image with its upper left corner at x, y >= 0, at most `within` px wide."""
  part = image[y : y + cover.shape[0], x : x + min(cover.shape[1], max(0, within))]
  alpha = cover[: part.shape[0], : part.shape[1], None] / 255.0
  part[:] = (part * (1 - alpha) + np.array(colour) * alpha).round().astype(np.uint8)


def _fitted(text: str, px: float, room: int) -> np.ndarray:
  """As _text, with smaller letters where it would be wider than `room` px."""
  smaller = (_text(text, px * 0.9**steps) for steps in range(12))
  return next((cover for cover in smaller if cover.shape[1] <= room), _text(text, px * 0.9**12))


def _colour(number: int) -> tuple[int, int, int]:
  """The colour of a class, as in the timeline, RGB."""
  text = timeline.COLOURS[number % len(timeline.COLOURS)]
  red, green, blue = bytes.fromhex(text[1:])
  return red, green, blue


@dataclasses.dataclass(frozen=True)
class Panel:
  """What is drawn beside the picture.

  Attributes:
    ground: uint8 RGB [h, w, 3], all that does not move.
    names: of each class, to be drawn.
    rows: int [R], the classes that have a bar, in their order.
    times: float [S], the middle of each segment in seconds.
    odds: float [S, C], of each segment; NaN where it was not judged.
    so_far: float [S, C], mean of the odds up to this segment; NaN before the first that was judged.
    notes: of each segment, what is missing or filled in.
    seconds: of the clip.
    unit: px, the height of letters.
  """

  ground: np.ndarray
  names: list[str]
  rows: np.ndarray
  times: np.ndarray
  odds: np.ndarray
  so_far: np.ndarray
  notes: list[str]
  seconds: float
  unit: int


def _note(segment: Mapping[str, Any]) -> str:
  if segment['filled']:
    return f'{segment["filled"]} filled in'
  lacks = [f'no {half}' for half in ('sound', 'face') if not segment[f'has_{half}']]
  return ', '.join(lacks)


def _panel(result: Mapping[str, Any], place: tuple[int, int, int, int], unit: int) -> Panel:
  """The panel of a result, to be drawn at a place (x, y, width, height) with letters of `unit` px."""
  _, _, width, height = place
  segments, classes = result['segments'], result['classes']
  odds = timeline.scores(segments, result['by'], classes)
  known = np.isfinite(odds).all(1)
  counts = np.cumsum(known)[:, None]
  so_far = np.where(counts > 0, np.cumsum(np.where(known[:, None], odds, 0.0), 0) / np.maximum(counts, 1), np.nan)
  likely = np.argsort(-np.nan_to_num(so_far[-1]), kind='stable')
  rows = np.sort(likely[:ROWS])
  names = [timeline.lettered(name, most=24) for name in classes]
  ground = np.full((height, width, 3), GROUND, np.uint8)
  whole = f'whole clip: {timeline.lettered(result["verdict"], most=16)} {timeline.share(result["confidence"])}'
  left = unit // 2
  for line, y in (('so far', 0.3), (whole, 2.6)):
    _put(ground, _fitted(line, 0.75 * unit, width - left), left, round(y * unit), GREY, within=width - left)
  for row, number in enumerate(rows):
    x, y, w, h = _bar(row, width, unit)
    room = x - left - unit // 4
    name = _fitted(names[number], 0.85 * unit, room)
    _put(ground, name, left, max(0, y + (h - name.shape[0]) // 2), DARK, within=room)
    ground[y : y + h, x : x + w] = TRACK
  notes = [_note(segment) for segment in segments]
  return Panel(ground, names, rows, timeline.middles(segments), odds, so_far, notes, result['seconds'], unit)


def _bar(row: int, width: int, unit: int) -> tuple[int, int, int, int]:
  """x, y, width and height of a class's bar when it is full."""
  x = min(6 * unit, width // 2)
  return x, round((HEAD + 1.6 * row) * unit), width - x - unit // 2, round(0.9 * unit)


def _nearest(times: np.ndarray, time: float) -> int:
  """The place in ascending times [n], n >= 1, of what is nearest to a time."""
  after = int(np.clip(np.searchsorted(times, time), 1, max(1, len(times) - 1)))
  return after if after < len(times) and times[after] - time < time - times[after - 1] else after - 1


def _drawn(panel: Panel, time: float) -> np.ndarray:
  """The panel at a time in seconds, uint8 RGB [h, w, 3]."""
  image, unit, at = panel.ground.copy(), panel.unit, _nearest(panel.times, time)
  height, width = image.shape[:2]
  so_far, left = panel.so_far[at], unit // 2
  if np.isfinite(so_far).all():
    # No share: it would be a mean over segments, which is calibrated for segments, beside that of the whole clip.
    name = _fitted(panel.names[int(so_far.argmax())], unit, width - left)
    _put(image, name, left, round(1.1 * unit), DARK, within=width - left)
  for row, number in enumerate(panel.rows):
    x, y, w, h = _bar(row, width, unit)
    filled = round(w * float(np.nan_to_num(panel.odds[at, number])))
    image[y : y + h, x : x + filled] = _colour(int(number))
  if panel.notes[at]:
    y = round((HEAD + 1.6 * len(panel.rows)) * unit)
    _put(image, _text(panel.notes[at], 0.75 * unit), left, y, NOTE, within=width - left)
  played = round(width * min(1.0, time / panel.seconds)) if panel.seconds else 0
  image[height - max(2, unit // 5) :, :played] = DARK
  return image


def _box(image: np.ndarray, track: Track | None, time: float, scale: float) -> None:
  """Draws the face box of the frame of this time into its scaled picture."""
  import cv2

  if track is None or not len(track['times']):
    return
  frame = _nearest(track['times'], time)
  if abs(track['times'][frame] - time) > STEP / 2 or track['confidence'][frame] <= 0:
    return
  x, y, width, height = np.clip(np.asarray(track['box'][frame], float) * scale, -1e4, 1e4)
  corners = (round(x), round(y)), (round(x + width), round(y + height))
  thick = max(2, image.shape[0] // 180)
  cv2.rectangle(image, *corners, DARK, thick + 2, cv2.LINE_AA)
  cv2.rectangle(image, *corners, BOX, thick, cv2.LINE_AA)


def _paced(pictures: Iterator[tuple[float, Any]], plain: Any, end: float) -> Iterator[tuple[float, Any]]:
  """Pictures with their times from 0 on, and between them again the one that stands there, every STEP until `end`.

  Before the first one there is the plain ground. What is shown before the sound begins belongs to no segment: only the
  last of that is kept, as it stands when the sound begins.
  """
  shown, due = plain, 0.0
  for time, picture in itertools.chain(pictures, [(end + STEP / 2, None)]):
    while due + STEP / 2 < min(time, end):
      yield due, shown
      due += STEP
    if picture is None:
      return
    shown = picture
    if time >= 0:
      yield time, shown
      due = time + STEP


def _begun(stream: Iterator[Any]) -> tuple[Any, Iterator[Any]]:
  """The first of a stream, and all of it; None and nothing where it cannot be decoded or is not there."""
  try:
    first = next(stream)
  except (media.UnreadableMedia, StopIteration):
    return None, iter(())
  return first, itertools.chain([first], stream)


def _frames(
  path: str, result: Mapping[str, Any], track: Track | None, tallest: int | None
) -> tuple[Layout, Iterator[tuple[float, np.ndarray]]]:
  """The layout, and the frames of the film: seconds and uint8 RGB [H, W, 3]."""
  import cv2

  first, pictures = _begun(media.frames(path))
  width, height = PLAIN if first is None else first[1].shape[1::-1]
  where = layout(width, height, rows=min(ROWS, len(result['classes'])), tallest=tallest)
  panel = _panel(result, where.panel, where.unit)
  _, _, w, h = where.picture
  plain = np.full((h, w, 3), DARK, np.uint8)
  if first is None:
    words = _text('no picture', where.unit)
    _put(plain, words, max(0, (w - words.shape[1]) // 2), h // 2, GROUND, within=w)

  def scaled() -> Iterator[tuple[float, np.ndarray]]:
    for time, image in pictures:
      shrinks = h < image.shape[0]
      image = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
      _box(image, track, time, h / height)
      yield time, image

  def composed() -> Iterator[tuple[float, np.ndarray]]:
    for time, image in _paced(scaled(), plain, result['segments'][-1]['end']):
      canvas = np.full((where.height, where.width, 3), GROUND, np.uint8)
      for part, (x, y, wide, tall) in ((image, where.picture), (_drawn(panel, time), where.panel)):
        canvas[y : y + tall, x : x + wide] = part
      yield time, canvas

  return where, composed()


class _Writer:
  """An MP4 file that is being written: H.264 at the frames' own times, AAC.

  Args:
    rate: of the sound in Hz, 0 without any.
  """

  def __init__(self, container: Any, where: Layout, rate: int):
    options = {'preset': 'veryfast', 'crf': '23', 'g': '60'}
    self.container, self.rate, self.heard, self.last = container, rate, 0, -1
    self.picture = container.add_stream('libx264', rate=30, options=options)
    self.picture.width, self.picture.height, self.picture.pix_fmt = where.width, where.height, 'yuv420p'
    self.picture.codec_context.time_base = Fraction(1, TICKS)
    self.picture.codec_context.colorspace = BT601
    self.voice = container.add_stream('aac', rate=rate if rate in RATES else RATES[-1], layout='mono') if rate else None

  def show(self, time: float, image: np.ndarray) -> None:
    """Takes a frame, uint8 RGB, and its time in seconds; one that is not after the last is left out."""
    import av

    if (tick := round(time * TICKS)) <= self.last:
      return
    frame = av.VideoFrame.from_ndarray(image, format='rgb24').reformat(format='yuv420p')
    frame.pts, frame.time_base, self.last = tick, Fraction(1, TICKS), tick
    self.container.mux(self.picture.encode(frame))

  def say(self, block: np.ndarray) -> None:
    """Takes the next samples, float32 [n]."""
    import av

    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block[None]), format='fltp', layout='mono')
    frame.sample_rate, frame.pts, frame.time_base = self.rate, self.heard, Fraction(1, self.rate)
    self.heard += len(block)
    self.container.mux(self.voice.encode(frame))  # type: ignore[union-attr]

  def end(self) -> None:
    """Writes what the encoders still hold."""
    for stream in (self.picture, self.voice):
      if stream is not None:
        self.container.mux(stream.encode())


def annotate_apart(
  path: str,
  result: Mapping[str, Any],
  track: Track | None,
  target: str | pathlib.Path,
  *,
  seconds: float | None = None,
  height: int | None = None,
  sound: str | None = None,
) -> None:
  """As `annotate`, in a process of its own: it decodes the clip once more, and whatever that does ends there.

  Args:
    seconds: after which it is given up.

  Raises:
    OSError: there is no film, for whatever reason.
  """
  arrays = None if track is None else {name: track[name].tolist() for name in ('times', 'box', 'confidence')}
  job: dict[str, Any] = {'path': os.path.abspath(path), 'target': os.path.abspath(target), 'result': dict(result)}
  job |= {'track': arrays, 'height': height, 'sound': sound and os.path.abspath(sound)}
  try:
    done = subprocess.run(
      DRAW, input=json.dumps(job).encode(), capture_output=True, cwd=PLACE, timeout=seconds, check=False
    )
  except subprocess.TimeoutExpired as error:
    raise OSError(f'drawing it takes longer than {seconds:g} s') from error
  if done.returncode:
    said = done.stderr.decode(errors='replace').strip().rpartition('\n')[2]
    raise OSError(f'drawing it failed ({said or f"exit status {done.returncode}"})')


def annotate(
  path: str,
  result: Mapping[str, Any],
  track: Track | None,
  target: str | pathlib.Path,
  *,
  height: int | None = None,
  sound: str | None = None,
) -> None:
  """Writes a clip as an MP4 film (H.264, AAC, index in front) with its face box and its emotions over time.

  The film's time is the result's: 0 is the first sample of the sound. A clip without a picture has plain ground in its
  place, one without sound is silent. Frames are shown when they were, upright. Memory does not grow with the length.

  Args:
    path: the clip.
    result: what inference.judge gives, with one segment at least.
    track: of its frames the times [F] in seconds, box [F, 4] (x, y, width, height in px) and confidence [F], 0 without
      a face, as in the store's facts of 'faces'; None: no box is drawn.
    target: where to write; what is there is replaced.
    height: of the picture in px at most (the panel may need more); None: its own, up to 1080.
    sound: the file that has the sound, where `path` has it not.

  Raises:
    media.UnreadableMedia: neither sound nor picture can be decoded.
    OSError: the film cannot be written.
  """
  import av

  voice = str(sound or path)
  spoken, blocks = _begun(media.sound(voice))
  where, frames = _frames(str(path), result, track, height)
  if spoken is None and not media.probe(str(path)).picture:
    raise media.UnreadableMedia(f'{path}: holds neither sound nor picture that can be decoded')
  rate = media.probe(voice).rate if spoken is not None else 0
  try:
    with av.open(str(target), 'w', format='mp4', options={'movflags': 'faststart'}) as container:
      writer = _Writer(container, where, rate)
      for time, image in frames:
        while rate and writer.heard < time * rate and (block := next(blocks, None)) is not None:
          writer.say(block)
        writer.show(time, image)
      for block in blocks:
        writer.say(block)
      writer.end()
  except av.error.FFmpegError as error:
    raise OSError(f'{target} cannot be written: {error.strerror or error}') from error

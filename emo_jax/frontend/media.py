"""Media files to arrays: the one place where containers and codecs are opened (pipeline step: clips in).

Everything is streamed, so a long clip never lies whole in memory. PyAV does the decoding (its wheel brings FFmpeg's
libraries). Frame counts, durations and average rates that containers claim are never used: they are missing or wrong
in FLV and MKV files and in some MP4 files; only what is really decoded counts.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np


class UnreadableMedia(ValueError):
  """A file that holds nothing that can be decoded; the message says which file and why."""


@dataclasses.dataclass(frozen=True)
class Streams:
  """Which streams a media file has. `rate` is the sample rate in Hz, 0 where there is no sound."""

  picture: bool
  sound: bool
  rate: int


def _open(path: str) -> Any:
  import av

  try:
    return av.open(str(path))
  except (av.error.FFmpegError, OSError) as error:
    raise UnreadableMedia(f'{path}: cannot be opened as sound or film ({error}); is it a media file?') from error


def _film(container: Any) -> Any:
  """The first picture stream that is a film and not the cover of a sound file; None without one."""
  import av

  cover = av.stream.Disposition.attached_pic
  return next((stream for stream in container.streams.video if not stream.disposition & cover), None)


def _decoded(path: str, container: Any, stream: Any) -> Iterator[Any]:
  """The decoded frames of one stream. What comes before an error in mid-file is kept: half a clip is still a clip."""
  import av

  seen = False
  try:
    for frame in container.decode(stream):
      seen = True
      yield frame
  except (av.error.FFmpegError, OSError) as error:
    if not seen:
      raise UnreadableMedia(f'{path}: the {stream.type} stream cannot be decoded ({error})') from error


def probe(path: str) -> Streams:
  """Looks which streams a file has. Covers of sound files do not count as film.

  Raises:
    UnreadableMedia: nothing in the file can be decoded.
  """
  with _open(path) as container:
    film = _film(container)
    audio = container.streams.audio
    if film is None and not audio:
      raise UnreadableMedia(f'{path}: holds neither sound nor picture')
    return Streams(film is not None, bool(audio), int(audio[0].rate or 0) if audio else 0)


def sound(path: str) -> Iterator[np.ndarray]:
  """The first channel of a file's sound at its native rate (method.md A1), in blocks.

  Yields:
    float32 [samples], full scale 1.

  Raises:
    UnreadableMedia: no sound could be decoded.
  """
  import av

  with _open(path) as container:
    if not container.streams.audio:
      raise UnreadableMedia(f'{path}: has no sound')
    to_float = av.AudioResampler(format='fltp')  # the sample format alone: rate and channels stay as they are
    seen = False
    for frame in _decoded(path, container, container.streams.audio[0]):
      frame.pts = None  # gaps in the time stamps are not filled with silence
      for block in to_float.resample(frame):
        seen = True
        yield np.nan_to_num(block.to_ndarray()[0], posinf=1.0, neginf=-1.0)
    if not seen:
      raise UnreadableMedia(f'{path}: its sound stream holds no samples')


def frames(path: str) -> Iterator[tuple[float, np.ndarray]]:
  """The frames of a film with the times at which they are shown.

  Yields:
    time in seconds from the first sample of the file's sound (without sound: from the container's start), uint8 RGB
    [H, W, 3].

  Raises:
    UnreadableMedia: no picture could be decoded.
  """
  with _open(path) as container:
    stream = _film(container)
    if stream is None:
      raise UnreadableMedia(f'{path}: has no picture')
    stream.thread_type = 'AUTO'
    start = (container.start_time or 0) / 1e6  # microseconds
    if container.streams.audio and container.streams.audio[0].start_time is not None:
      start = float(container.streams.audio[0].start_time * container.streams.audio[0].time_base)
    last = -np.inf
    for frame in _decoded(path, container, stream):
      # A frame without a time stamp follows the one before at the stream's nominal rate.
      time = max(last, 0.0) + 1 / float(stream.base_rate or 25) if frame.time is None else frame.time - start
      if time > last:
        last = time
        yield time, frame.to_ndarray(format='rgb24')
    if last == -np.inf:
      raise UnreadableMedia(f'{path}: its picture stream holds no frames')

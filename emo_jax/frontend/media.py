"""Media files to arrays: the one place where containers and codecs are opened (pipeline step: clips in).

Everything is streamed, so a long clip never lies whole in memory. PyAV does the decoding (its wheel brings FFmpeg's
libraries). Frame counts, durations and average rates that containers claim are missing or wrong in FLV and MKV files
and in some MP4 files, so only what is really decoded counts; a claim is good for a warning that a file breaks off.
"""

import dataclasses
import itertools
import os
import stat
from collections.abc import Iterator
from typing import Any

import numpy as np

MAX_PIXELS = 64 << 20  # of a frame: 8K films have half of it; what claims more is out for the memory
STATED = ('asf', 'avi', 'flac', 'flv', 'matroska,webm', 'mov,mp4,m4a,3gp,3g2,mj2')  # their headers state a length
# FFmpeg's names of all that is opened. Others it would know by their content, whatever the file is called, are lists:
# they have it open further files, and a clip is known by the bytes of its own.
FORMATS = (
  *('aac', 'ac3', 'aiff', 'amr', 'ape', 'asf', 'au', 'avi', 'caf', 'dv', 'flac', 'flv', 'gif', 'h264', 'hevc', 'ivf'),
  *('m4v', 'matroska', 'mjpeg', 'mov', 'mp3', 'mpeg', 'mpegts', 'mpegvideo', 'mxf', 'nistsphere', 'nut', 'ogg', 'rm'),
  *('voc', 'w64', 'wav', 'webm', 'wtv', 'wv', 'yuv4mpegpipe'),
)
BREAKS_OFF = 0.25, 0.05  # seconds, and share of the claimed length, that may be missing at the end
SILENT = 1e-3  # of full scale (-60 dB): no voice is below it


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
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe or a device would be waited for, or never end
      raise UnreadableMedia(f'{path}: cannot be opened: it is no regular file')
    # As a file and nothing else: a name may look like an address.
    only = {'protocol_whitelist': 'file', 'format_whitelist': ','.join(FORMATS)}
    return av.open(f'file:{path}', options={**only, 'max_pixels': str(MAX_PIXELS)}, metadata_errors='replace')
  except av.error.ArgumentError as error:  # what FFmpeg says of a format that is not on the list
    kinds = ', '.join(FORMATS)
    raise UnreadableMedia(f'{path}: cannot be opened: damaged, or of no kind that is read here ({kinds})') from error
  except (av.error.FFmpegError, OSError) as error:
    why = error.strerror or error
    raise UnreadableMedia(f'{path}: cannot be opened as sound or film ({why}); is it a media file?') from error


def _film(container: Any) -> Any:
  """The first picture stream that is a film and not the cover of a sound file; None without one."""
  import av

  cover = av.stream.Disposition.attached_pic
  films = (stream for stream in container.streams.video if not stream.disposition & cover)
  return next((stream for stream in films if stream.codec_context), None)


def _voice(container: Any) -> Any:
  """The first sound stream of a codec that is known; None without one."""
  return next((stream for stream in container.streams.audio if stream.codec_context), None)


def _claimed_end(container: Any, stream: Any) -> float:
  """When a stream ends, in seconds, as its container says; 0 where it says nothing and FFmpeg would guess."""
  if container.format.name not in STATED:
    return 0.0
  if container.format.name == 'avi':  # its lengths are guessed from the file's size; the header's stand as counts
    return float(stream.frames * stream.time_base)
  if stream.duration is not None:
    return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
  return ((container.start_time or 0) + (container.duration or 0)) / 1e6  # microseconds


def _decoded(path: str, container: Any, stream: Any, notes: list[str]) -> Iterator[Any]:
  """The decoded frames of one stream; what cannot be decoded is left out: half a clip is still a clip."""
  import av

  what = {'video': 'the picture', 'audio': 'the sound'}[stream.type]
  seen, start, end = False, 0.0, 0.0  # seconds
  bad: list[str] = []  # of each packet that cannot be decoded, or not well
  try:
    for packet in container.demux(stream):
      try:
        decoded = packet.decode()
      except (av.error.FFmpegError, OSError) as error:
        bad.append(f'at {end - start:.2f} s: {error.strerror or error}')
        continue
      for frame in decoded:
        if frame.time is not None:
          start = start if seen else frame.time
          end = frame.time + float((frame.duration or 0) * frame.time_base)
        seen = True
        if frame.is_corrupt:
          bad.append(f'at {end - start:.2f} s: bad data')
        yield frame
  except (av.error.FFmpegError, OSError) as error:
    bad.append(f'from {end - start:.2f} s on: {error.strerror or error}')
  if not seen:
    raise UnreadableMedia(f'{path}: {what} cannot be decoded ({bad[0] if bad else "it holds nothing"})')
  if bad:
    notes.append(f'{what} is damaged in places, {len(bad)} in all, the first {bad[0]}')
  claimed = _claimed_end(container, stream)
  if claimed - end > max(BREAKS_OFF[0], BREAKS_OFF[1] * (claimed - start)):
    notes.append(f'{what} breaks off after {end - start:.2f} s of the {claimed - start:.2f} s that the file claims')


def probe(path: str) -> Streams:
  """Looks which streams a file has. Covers of sound files do not count as film.

  Raises:
    UnreadableMedia: nothing in the file can be decoded.
  """
  with _open(path) as container:
    film, voice = _film(container), _voice(container)
    if film is None and voice is None:
      raise UnreadableMedia(f'{path}: holds neither sound nor picture that can be decoded')
    return Streams(film is not None, voice is not None, int(voice.rate or 0) if voice else 0)


def _channels(frame: Any) -> np.ndarray:
  """The samples of a sound frame, float32 [channels, samples], full scale 1."""
  samples = frame.to_ndarray()
  if not frame.format.is_planar:
    samples = samples.reshape(-1, frame.layout.nb_channels).T
  if samples.dtype == np.uint8:
    return (samples.astype(np.float32) - 128) / 128
  if samples.dtype.kind == 'i':
    return samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
  return samples.astype(np.float32)


def sound(path: str, notes: list[str] | None = None) -> Iterator[np.ndarray]:
  """The first channel of a file's sound at its native rate (method.md A1), in blocks.

  Args:
    notes: takes sentences about what was odd, the last of them when the sound is at its end.

  Yields:
    float32 [samples], full scale 1, finite, at the rate that `probe` names.

  Raises:
    UnreadableMedia: no sound could be decoded.
  """
  import av

  notes = [] if notes is None else notes
  with _open(path) as container:
    stream = _voice(container)
    if stream is None:
      raise UnreadableMedia(f'{path}: has no sound')
    rate = int(stream.rate or 0)
    to_rate: dict[int, Any] = {}  # of each other sample rate that comes in mid-file
    peaks: list[float] = []
    count = lost = 0
    for frame in _decoded(path, container, stream, notes):
      channels = _channels(frame)
      lost += int(np.sum(~np.isfinite(channels[0])))
      channels = np.nan_to_num(channels, posinf=1.0, neginf=-1.0)
      count += channels.shape[1]
      peaks = [max(pair) for pair in itertools.zip_longest(peaks, np.abs(channels).max(1, initial=0), fillvalue=0.0)]
      if frame.sample_rate == rate:
        yield channels[0]
        continue
      resampler = to_rate.setdefault(frame.sample_rate, av.AudioResampler(format='fltp', rate=rate))
      first = av.AudioFrame.from_ndarray(np.ascontiguousarray(channels[:1]), format='fltp', layout='mono')
      first.sample_rate = frame.sample_rate
      yield from (block.to_ndarray()[0] for block in resampler.resample(first))
    if to_rate:
      notes.append(f'parts of the sound have {", ".join(map(str, to_rate))} Hz: brought to {rate} Hz')
    if lost:
      notes.append(f'{lost / count:.0%} of the samples are no finite numbers')
    notes += _odd_channels(peaks)


def _odd_channels(peaks: list[float]) -> list[str]:
  """What there is to say of a sound's channels, the peak of each given: all but the first are left out."""
  said = [f'the sound has {len(peaks)} channels: the first alone is used'] if len(peaks) > 2 else []
  heard = [str(number) for number, peak in enumerate(peaks, 1) if peak >= SILENT]
  if heard and heard[0] != '1':
    said.append(f'channel 1, which is used, is silent; channel {", ".join(heard)} of {len(peaks)} is not')
  return said


@dataclasses.dataclass(frozen=True)
class Picture:
  """A frame as the decoder left it, mostly half as large as RGB, to be kept; width and height as stored, in px."""

  frame: Any
  width: int
  height: int
  scaler: Any  # the film's; a frame that is asked for RGB makes its own, larger than itself, and keeps it

  @property
  def nbytes(self) -> int:
    """Bytes in memory."""
    return sum(plane.buffer_size for plane in self.frame.planes)

  def rgb(self) -> np.ndarray:
    """The picture, upright, uint8 RGB [H, W, 3]."""
    image = self.scaler.reformat(self.frame, format='rgb24', width=self.width, height=self.height).to_ndarray()
    return np.ascontiguousarray(np.rot90(image, round(self.frame.rotation / 90)))  # counter-clockwise


def frames(path: str, notes: list[str] | None = None) -> Iterator[tuple[float, np.ndarray]]:
  """The frames of a film as uint8 RGB [H, W, 3], upright, with their times: see `pictures`."""
  return ((time, picture.rgb()) for time, picture in pictures(path, notes))


def pictures(path: str, notes: list[str] | None = None) -> Iterator[tuple[float, Picture]]:
  """The frames of a film with the times at which they are shown.

  Args:
    notes: takes sentences about what was odd, the last of them when the film is at its end.

  Yields:
    time in seconds from the first sample of the file's sound (without sound: from the container's start), picture. A
    film that changes its size is scaled to the first frame's.

  Raises:
    UnreadableMedia: no picture could be decoded, or frames are larger than MAX_PIXELS.
  """
  import av

  notes = [] if notes is None else notes
  with _open(path) as container:
    stream, voice = _film(container), _voice(container)
    if stream is None:
      raise UnreadableMedia(f'{path}: has no picture')
    context = stream.codec_context
    if context.width * context.height > MAX_PIXELS:
      raise UnreadableMedia(f'{path}: its frames of {context.width}x{context.height} pixels are larger than any film')
    context.options = {'max_pixels': str(MAX_PIXELS)}
    stream.thread_type = 'AUTO'
    start = (container.start_time or 0) / 1e6  # microseconds
    if voice is not None and voice.start_time is not None:
      start = float(voice.start_time * voice.time_base)
    last, sizes, late, scaler = -np.inf, [], 0, av.video.reformatter.VideoReformatter()
    for frame in _decoded(path, container, stream, notes):
      # A frame without a time stamp follows the one before at the stream's nominal rate.
      time = max(last, 0.0) + 1 / float(stream.base_rate or 25) if frame.time is None else frame.time - start
      if (frame.width, frame.height) not in sizes:
        sizes.append((frame.width, frame.height))
      if time <= last:
        late += 1
        continue
      last = time
      yield time, Picture(frame, *sizes[0], scaler)
    if late:
      notes.append(f'{late} frames of the picture are left out: their times are not after those before them')
    if len(sizes) > 1:
      notes.append(f'the picture changes its size in mid-film: {", ".join(f"{w}x{h}" for w, h in sizes)}')

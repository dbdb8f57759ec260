"""The table of accidents: what archives hold beside whole films, and what is to come of each.

A film shows a drawn face for 1.8 s at 25 frames a second and has sound of 44.1 kHz, but for what its accident changes.
"""

import dataclasses
import os
import pathlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

RATE, FPS = 44100, 25


@dataclasses.dataclass(frozen=True)
class Take:
  """What films are made of: images uint8 RGB [F, H, W, 3] at 25 a second, wave float32 [samples] at 44.1 kHz."""

  images: np.ndarray
  wave: np.ndarray

  def at(self, fps: int) -> np.ndarray:
    """The images at another rate."""
    return self.images[np.arange(len(self.images) * fps // FPS) * FPS // fps]

  def rated(self, rate: int) -> np.ndarray:
    """The wave [1, samples] at another rate."""
    count = len(self.wave) * rate // RATE
    return np.interp(np.arange(count) / rate, np.arange(len(self.wave)) / RATE, self.wave)[None]


@dataclasses.dataclass(frozen=True)
class Accident:
  """What is fed, and what is to come out.

  Attributes:
    fed: in words.
    name: of the file.
    make: writes what belongs there.
    out: 'used' (both halves, and nothing to say), 'warned' (a half at least), or 'rejected'.
    says: what is among the warnings, or in the reason.
    sound: the name of a sound file beside the film.
  """

  fed: str
  name: str
  make: Callable[[pathlib.Path, Take], Any]
  out: str = 'used'
  says: str = ''
  sound: str = ''


def film(
  path: pathlib.Path,
  images: Iterable[np.ndarray] | None,
  waves: np.ndarray | None,
  *,
  picture: str = 'libx264',
  sound: str = 'aac',
  fps: int = FPS,
  times: Sequence[float] | None = None,
  rate: int = RATE,
  turn: int = 0,
  container: str | None = None,
  **options: str,
) -> None:
  """Writes images [H, W, 3] and waves [channels, samples], either of which may be missing.

  `times`, in seconds, are those of the images, else `fps` says how many there are in a second; `turn`: degrees,
  counter-clockwise, by which players are told to turn them.
  """
  import av

  with av.open(str(path), 'w', format=container, options=options) as file:
    streams: list[tuple[Any, Iterator[Any]]] = []
    if images is not None:
      images = list(images)
      stream: Any = file.add_stream(picture, rate=fps)
      stream.height, stream.width = images[0].shape[:2]
      stream.pix_fmt = 'yuvj420p' if picture == 'mjpeg' else 'yuv420p'
      stream.bit_rate = 2_000_000
      if times is not None:
        stream.codec_context.time_base = Fraction(1, 1000)
      if turn:
        stream.set_display_rotation(turn)
      streams.append((stream, _pictures(images, times)))
    if waves is not None:
      layout = {1: 'mono', 2: 'stereo', 6: '5.1'}[len(waves)]
      block = av.AudioFrame.from_ndarray(np.ascontiguousarray(waves, np.float32), format='fltp', layout=layout)
      block.sample_rate = rate
      streams.append((file.add_stream(sound, rate=rate, layout=layout), iter([block])))
    for stream, frames in streams:
      for frame in (*frames, None):
        file.mux(stream.encode(frame))


def _pictures(images: Iterable[np.ndarray], times: Sequence[float] | None) -> Iterator[Any]:
  import av

  for number, image in enumerate(images):
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format='rgb24')
    if times is not None:
      frame.pts, frame.time_base = round(1000 * times[number]), Fraction(1, 1000)
    yield frame


def whole(path: pathlib.Path, take: Take, **options: Any) -> None:
  """A film with all it needs."""
  film(path, take.images, take.wave[None], **options)


def _cut(path: pathlib.Path, take: Take, **options: Any) -> None:
  whole(path, take, **options)
  path.write_bytes(path.read_bytes()[: int(0.6 * path.stat().st_size)])


def _damaged(path: pathlib.Path, take: Take) -> None:
  whole(path, take, picture='mpeg4', sound='libmp3lame')
  content = bytearray(path.read_bytes())
  middle = content.index(b'00dc', len(content) // 2) + 8  # a chunk of the picture's
  content[middle + 100 : middle + 1000] = bytes(900)
  path.write_bytes(content)


def _giant(path: pathlib.Path, take: Take) -> None:
  """A motion JPEG whose pictures claim to be of 65000 x 65000 pixels."""
  whole(path, take, picture='mjpeg', sound='libmp3lame')
  start, (height, width) = b'\xff\xc0\x00\x11\x08', take.images.shape[1:3]
  claim, truth = struct.pack('>HH', 65000, 65000), struct.pack('>HH', height, width)
  content = path.read_bytes()
  assert start + truth in content
  path.write_bytes(content.replace(start + truth, start + claim))


def _boastful(path: pathlib.Path, take: Take) -> None:
  """An mp4 whose sample table claims 60000 x 60000 pixels; the pictures themselves are small."""
  whole(path, take)
  content = bytearray(path.read_bytes())
  entry = content.index(b'avc1', content.index(b'stsd'))
  content[entry + 28 : entry + 32] = struct.pack('>HH', 60000, 60000)
  path.write_bytes(content)


def _cover(path: pathlib.Path, take: Take) -> None:
  import av

  with av.open(str(path), 'w') as file:
    voice, art = file.add_stream('libmp3lame', rate=RATE, layout='mono'), file.add_stream('mjpeg', rate=1)
    art.height, art.width, art.pix_fmt = *take.images.shape[1:3], 'yuvj420p'
    art.disposition = av.stream.Disposition.attached_pic
    block = av.AudioFrame.from_ndarray(take.wave[None].astype(np.float32), format='fltp', layout='mono')
    block.sample_rate = RATE
    for stream, frame in ((art, next(_pictures(take.images[:1], None))), (voice, block)):
      for part in (frame, None):
        file.mux(stream.encode(part))


def _resized(path: pathlib.Path, take: Take) -> None:
  """Two transport streams joined, the second one with larger pictures."""
  times = np.arange(len(take.images)) / FPS
  film(path, take.images, None, times=times.tolist())
  first = path.read_bytes()
  film(path, np.repeat(np.repeat(take.images, 2, 1), 2, 2), None, times=(times + len(times) / FPS + 0.1).tolist())
  path.write_bytes(first + path.read_bytes())


def _rates(path: pathlib.Path, take: Take) -> None:
  """Two sounds of different rates joined."""
  film(path, None, take.wave[None])
  first = path.read_bytes()
  film(path, None, take.rated(48000), rate=48000)
  path.write_bytes(first + path.read_bytes())


def _background(take: Take) -> np.ndarray:
  """The images without the face: their left edge, repeated."""
  return np.tile(take.images[:, :, :40], (1, 1, 8, 1))


def _several(take: Take) -> np.ndarray:
  """The face twice, on the left at three quarters of its size."""
  import cv2

  small = [cv2.copyMakeBorder(cv2.resize(image, (240, 180)), 30, 30, 40, 40, 1) for image in take.images]
  return np.concatenate([np.stack(small), take.images], axis=2)


def _four_k(path: pathlib.Path, take: Take) -> None:
  import cv2

  large = (cv2.resize(image, (2880, 2160)) for image in take.images[:20])
  film(
    path, [cv2.copyMakeBorder(image, 0, 0, 480, 480, 1) for image in large], take.wave[None, :35280], picture='mpeg4'
  )


def _texts(*lines: str) -> Callable[[pathlib.Path, Take], Any]:
  return lambda path, take: path.write_text('\n'.join(lines) * 20)


def _of(**options: Any) -> Callable[[pathlib.Path, Take], Any]:
  return lambda path, take: whole(path, take, **options)


def _turned(degrees: int) -> Callable[[pathlib.Path, Take], Any]:
  return lambda path, take: film(
    path, np.rot90(take.images, -degrees // 90, axes=(1, 2)), take.wave[None], turn=degrees
  )


def _heard(change: Callable[[np.ndarray], Any], **options: Any) -> Callable[[pathlib.Path, Take], Any]:
  """A film with these channels, made of the wave [samples]."""
  return lambda path, take: film(path, take.images, np.array(change(take.wave)), **options)


AVI, FLV, MKV = (
  {'picture': picture, 'sound': sound}
  for picture, sound in (('mpeg4', 'libmp3lame'), ('flv', 'libmp3lame'), ('libx264', 'aac'))
)
ACCIDENTS = [
  Accident('a whole film', 'whole.mp4', whole),
  *(
    Accident(f'a whole film, {name}', name, _of(**codecs))
    for name, codecs in (('whole.avi', AVI), ('whole.flv', FLV), ('whole.mkv', MKV))
  ),
  # Files
  Accident('mp4 cut in the middle, its index lost', 'cut.mp4', _cut, 'rejected', 'cannot be opened'),
  Accident(
    'mp4 cut in the middle, the index first',
    'cut_after_index.mp4',
    lambda path, take: _cut(path, take, movflags='faststart'),
    'warned',
    'the picture breaks off after',
  ),
  *(
    Accident(f'{name[-3:]} cut in the middle', name, lambda p, take, c=codecs: _cut(p, take, **c), 'warned', says)
    for name, codecs, says in (
      ('cut.avi', AVI, 'the picture breaks off after'),
      ('cut.flv', FLV, 'the sound breaks off after'),
      ('cut.mkv', MKV, 'the sound breaks off after'),
    )
  ),
  Accident('avi with 900 bytes overwritten', 'damaged.avi', _damaged, 'warned', 'the picture is damaged in places'),
  Accident('a file of no bytes', 'empty.mp4', lambda path, take: path.touch(), 'rejected', 'cannot be opened'),
  Accident('mp4 named .avi', 'really_mp4.avi', _of(container='mp4')),
  Accident('avi named .mp4', 'really_avi.mp4', _of(container='avi', **AVI)),
  Accident('text named .mp4', 'text.mp4', _texts('this is no film'), 'rejected', 'cannot be opened'),
  Accident(
    "a server's error page named .mp4",
    'page.mp4',
    _texts('<!DOCTYPE html>', '<html><body><h1>404 Not Found</h1></body></html>'),
    'rejected',
    'cannot be opened',
  ),
  Accident('a folder named .mp4', 'folder.mp4', lambda path, take: path.mkdir(), 'rejected', 'no regular file'),
  Accident('a named pipe', 'pipe.mp4', lambda path, take: os.mkfifo(path), 'rejected', 'no regular file'),
  Accident('a link to itself', 'loop.mp4', lambda path, take: path.symlink_to(path), 'rejected', 'symbolic links'),
  Accident('a file that has vanished', 'gone.mp4', lambda path, take: None, 'rejected', 'No such file'),
  Accident(
    'a file that cannot be read (EIO)',
    'sick.mp4',
    lambda path, take: path.symlink_to('/proc/self/mem'),
    'rejected',
    'Input/output error',
  ),
  *(
    Accident(
      'a file that may not be read',
      'private.mp4',
      lambda path, take: (whole(path, take), path.chmod(0)),
      'rejected',
      'Permission denied',
    )
    for _ in range(os.geteuid() != 0)  # root may read everything
  ),
  Accident('a film whose sound file has vanished', 'mute.mkv', _of(**MKV), 'warned', 'No such file', sound='gone.wav'),
  Accident('pictures that claim 65000 x 65000 pixels', 'giant.avi', _giant, 'warned', 'the picture cannot be decoded'),
  Accident('an mp4 header that claims 60000 x 60000 pixels', 'boastful.mp4', _boastful),
  # Names
  Accident('a name with spaces', 'a film  with spaces.mp4', whole),
  Accident('a name with quotes', 'it\'s "so", or so.mp4', whole),
  Accident('a name with a newline', 'two\nlines.mp4', whole),
  Accident('a name that is not ASCII', 'größe 喜び.mp4', whole),
  Accident('a name that is not UTF-8', os.fsdecode(b'\xe9t\xe9.mp4'), whole),
  Accident('a name with a colon and a percent sign', 'http:%d.mp4', whole),
  # Picture
  Accident(
    'sound alone in an mp4',
    'sound.mp4',
    lambda path, take: film(path, None, take.wave[None]),
    'warned',
    'sound.mp4 has no picture',
  ),
  Accident('an mp3 with a cover', 'cover.mp3', _cover, 'warned', 'cover.mp3 has no picture'),
  *(
    Accident(
      f'{fps} frames a second', f'fps{fps}.mp4', lambda p, take, f=fps: film(p, take.at(f), take.wave[None], fps=f)
    )
    for fps in (15, 24, 30, 50, 60)
  ),
  Accident(
    'a variable frame rate',
    'vfr.mp4',
    lambda path, take: whole(path, take, times=(0.04 * np.arange(len(take.images)) ** 1.1 * 0.7).tolist()),
  ),
  *(Accident(f'turned by {turn} degrees', f'turned{turn}.mp4', _turned(turn)) for turn in (90, 180, 270)),
  Accident('portrait', 'portrait.mp4', lambda path, take: film(path, take.images[:, :, 70:250], take.wave[None])),
  Accident('4K', 'four_k.mp4', _four_k),
  Accident('a size that changes in mid-film', 'resized.ts', _resized, 'warned', 'the picture changes its size'),
  Accident(
    'several faces',
    'several.mp4',
    lambda path, take: film(path, _several(take), take.wave[None]),
    'warned',
    'several faces',
  ),
  Accident(
    'a face that leaves the picture',
    'leaving.mp4',
    lambda path, take: film(path, np.concatenate([take.images, _background(take)]), np.tile(take.wave, 2)[None]),
    'warned',
    'the face is seen in',
  ),
  Accident(
    'no face',
    'faceless.mp4',
    lambda path, take: film(path, _background(take), take.wave[None]),
    'warned',
    'no face was found',
  ),
  # Sound
  Accident(
    'pictures alone',
    'pictures.mp4',
    lambda path, take: film(path, take.images, None),
    'warned',
    'pictures.mp4 has no sound',
  ),
  *(
    Accident(
      f'sound of {rate} Hz',
      f'rate{rate}.mp4',
      lambda path, take, r=rate: film(path, take.images, take.rated(r), rate=r),
      'warned' if rate == 8000 else 'used',
      'nothing above 4000 Hz' if rate == 8000 else '',
    )
    for rate in (8000, 16000, 22050, 48000)
  ),
  Accident('a sample rate that changes in mid-file', 'rates.aac', _rates, 'warned', 'parts of the sound have'),
  Accident('stereo', 'stereo.mp4', _heard(lambda wave: [wave, 0.5 * wave])),
  Accident('5.1', 'five_one.mp4', _heard(lambda wave: [wave] * 6), 'warned', '6 channels: the first alone is used'),
  Accident(
    'stereo, nothing on the left', 'right.mp4', _heard(lambda wave: [0 * wave, wave]), 'warned', 'channel 2 of 2 is not'
  ),
  Accident('silence', 'silence.mp4', _heard(lambda wave: [0 * wave]), 'warned', 'the sound is silent'),
  Accident(
    'clipping', 'clipped.mp4', _heard(lambda wave: [np.clip(30 * wave, -1, 1)]), 'warned', 'samples are clipped'
  ),
  Accident(
    'samples that are no numbers',
    'nan.mkv',
    _heard(lambda wave: [np.where(np.arange(len(wave)) % 4, wave, np.nan)], sound='pcm_f32le'),
    'warned',
    '25% of the samples are no finite numbers',
  ),
  # Length
  Accident(
    'a film of 0.1 s',
    'short.mp4',
    lambda path, take: film(path, take.images[:3], take.wave[None, :4410]),
    'warned',
    'the sound is shorter than a window',
  ),
  Accident(
    'a sound of 0.02 s',
    'click.wav',
    lambda path, take: film(path, None, take.wave[None, :882], sound='pcm_s16le'),
    'rejected',
    'shorter than one frame of 25 ms',
  ),
]
LONG = [
  Accident(
    'a film of 10 min',
    'long.mp4',
    lambda path, take: film(
      path, (image for _ in range(341) for image in take.images), np.tile(take.wave, 341)[None], picture='mpeg4'
    ),
  )
]

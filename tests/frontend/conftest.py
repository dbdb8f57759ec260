"""Small real media files for the front end's tests."""

import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest


def _encode(
  path: pathlib.Path,
  *,
  images: Iterable[np.ndarray] = (),
  picture: str = 'libx264',
  fps: int = 25,
  wave: np.ndarray | None = None,
  sound: str = 'aac',
  rate: int = 44100,
  **options: str,
) -> pathlib.Path:
  """Writes uint8 RGB images [H, W, 3] and an int16 wave [channels, samples]; the name's ending says the container."""
  import av

  with av.open(str(path), 'w', options=options) as container:
    streams: list[tuple[Any, list[Any]]] = []
    if images := list(images):
      film: Any = container.add_stream(picture, rate=fps)
      film.height, film.width, film.pix_fmt = *images[0].shape[:2], 'yuv420p'
      film.bit_rate = 1_000_000
      streams.append((film, [av.VideoFrame.from_ndarray(image, format='rgb24') for image in images]))
    if wave is not None:
      layout = {1: 'mono', 2: 'stereo', 6: '5.1'}[len(wave)]
      voice: Any = container.add_stream(sound, rate=rate, layout=layout)
      frame = av.AudioFrame.from_ndarray(wave.T.reshape(1, -1).copy(), format='s16', layout=layout)
      frame.rate = rate
      streams.append((voice, [frame]))
    for stream, frames in streams:
      for frame in [*frames, None]:
        container.mux(stream.encode(frame))
  return path


@pytest.fixture(scope='session')
def encode() -> Callable[..., pathlib.Path]:
  return _encode

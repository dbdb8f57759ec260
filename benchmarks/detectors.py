"""Haar cascades against MTCNN on 200 real frames one by one, then through whole films, on one thread in one run.

  python benchmarks/detectors.py [--data=DIR] [--pictures=DIR] [--films=N]

The frames: the middle one of each java_sed clip (192) and CREMA-D sample (6), two of the RAVDESS sample. What is said
of eyes is in units of the distance between the two. `--pictures` draws what was found, a PNG a frame: Haar yellow,
MTCNN cyan. The films: N clips of java_sed, evenly among the sorted ones, one of CREMA-D, the one of RAVDESS.
"""

import itertools
import pathlib
import time
from collections.abc import Callable, Iterator

import cv2
import imageio.v3 as iio
import numpy as np
from absl import app, flags

from emo_jax.frontend import faces, haar, media, mtcnn

DATA = flags.DEFINE_string('data', '../shared/data', 'The folder with java_sed, crema_d_sample and ravdess_sample.')
PICTURES = flags.DEFINE_string('pictures', None, 'Where to draw the frames with what was found; nowhere unless set.')
FILMS = flags.DEFINE_integer('films', 8, 'Clips of java_sed that are followed from end to end.', lower_bound=1)

FIND: dict[str, Callable] = {'haar': haar.find, 'mtcnn': mtcnn.find}
COLOURS = {'haar': (255, 220, 0), 'mtcnn': (0, 255, 255)}
CORPORA = (('java_sed/video/*.mp4', 1), ('crema_d_sample/VideoFlash/*.flv', 1), ('ravdess_sample/*/*.mp4', 2))
MIN_FACE = 0.2  # share of the frame's height, as in configs/default.py

Found = tuple[np.ndarray, np.ndarray | None] | None


def clips(pattern: str) -> list[pathlib.Path]:
  found = sorted(pathlib.Path(DATA.value).glob(pattern))
  if not found:
    raise SystemExit(f'detectors.py: no {pattern} in {DATA.value}; set --data')
  return found


def still_frames() -> Iterator[tuple[str, np.ndarray]]:
  """Name and uint8 RGB [H, W, 3] of each frame: of n from a film, the middles of its n equal parts."""
  for pattern, wanted in CORPORA:
    for path in clips(pattern):
      count = sum(1 for _ in media.frames(str(path)))
      for part in range(wanted):
        number = (2 * part + 1) * count // (2 * wanted)
        _, image = next(itertools.islice(media.frames(str(path)), number, None))
        yield f'{path.stem}_{number}', image


def draw(image: np.ndarray, found: dict[str, Found]) -> np.ndarray:
  """The frame, 720 px high, with each detector's box and crosses on the eyes."""
  zoom = 720 / image.shape[0]
  picture = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
  for name, face in found.items():
    if face is not None:
      x, y, width, height = (int(v) for v in face[0] * zoom)
      cv2.rectangle(picture, (x, y), (x + width, y + height), COLOURS[name])
      for eye in () if face[1] is None else (face[1] + 0.5) * zoom:
        cv2.drawMarker(picture, tuple(int(v) for v in eye), COLOURS[name], cv2.MARKER_CROSS, 16)
  return picture


def one_by_one() -> None:
  """Both detectors on every still frame; prints the table."""
  found: dict[str, list[Found]] = {name: [] for name in FIND}
  times: dict[str, list[float]] = {name: [] for name in FIND}
  for title, image in still_frames():
    for name, find in FIND.items():
      start = time.perf_counter()
      seen = find(image, None, MIN_FACE * image.shape[0])
      times[name].append(1e3 * (time.perf_counter() - start))
      found[name].append(max(seen, key=lambda face: face[0][2], default=None))
    if PICTURES.value:
      folder = pathlib.Path(PICTURES.value)
      folder.mkdir(parents=True, exist_ok=True)
      iio.imwrite(folder / f'{title}.png', draw(image, {name: results[-1] for name, results in found.items()}))
  print(f'{len(times["haar"])} frames      faces %   eye pairs %   ms a frame (median)')
  for name, results in found.items():
    seen = [face for face in results if face is not None]
    paired = [face for face in seen if face[1] is not None]
    shares = (100 * len(part) / len(results) for part in (seen, paired))
    print('{:12s}{:12.1f}{:14.1f}{:14.1f}'.format(name, *shares, np.median(times[name])))
  both = [(h[1], m[1]) for h, m in zip(*found.values(), strict=True) if h and m and h[1] is not None]
  away = [np.linalg.norm(h - m, axis=1).max() / np.linalg.norm(m[1] - m[0]) for h, m in both]
  print(f'worse eye, haar to mtcnn: median {np.median(away):.3f}, 90th percentile {np.quantile(away, 0.9):.3f}')


def followed() -> None:
  """Both detectors through whole films; prints the table."""
  java, crema, ravdess = (clips(pattern) for pattern, _ in CORPORA)
  films = [java[i * len(java) // FILMS.value] for i in range(FILMS.value)] + crema[:1] + ravdess[:1]
  print('\nfilm                     frames   found in % (haar, mtcnn)   ms a frame (haar, mtcnn)')
  for path in films:
    frames = list(media.frames(str(path)))
    sure, spent = [], []
    for name in FIND:
      start = time.perf_counter()
      track = faces.track(frames, detector=name, every=1, min_face=MIN_FACE, hold=1.0)
      spent.append(1e3 * (time.perf_counter() - start) / len(frames))
      sure.append(100 * np.mean(track.confidence == 1))
    print(f'{path.stem:24s}{len(frames):7d}{sure[0]:16.1f}{sure[1]:8.1f}{spent[0]:20.1f}{spent[1]:8.1f}', flush=True)


def main(argv: list[str]) -> None:
  """Prints both tables."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  one_by_one()
  followed()


if __name__ == '__main__':
  app.run(main)

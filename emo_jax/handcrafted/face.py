"""A clip's face to one vector by rules that nobody trained (pipeline step: handcrafted).

Static appearance: HOG (Dalal and Triggs 2005) and uniform LBP (Ojala 2002). Dynamic: LBP-TOP (Zhao and Pietikainen
2007), LBP on slices of the film along x and y (XY), x and time (XT), y and time (YT). Its XY part is the mean over
frames of the static LBP, which therefore stands there once.
"""

from collections.abc import Iterable, Iterator

import numpy as np

CELLS = 4  # histograms of LBP-TOP: a grid of so many by so many cells of the face
RADIUS = 1  # px, and frames
NEIGHBOURS = 8
CODES = NEIGHBOURS * (NEIGHBOURS - 1) + 3  # uniform patterns by their rotation, and one for all others
PLANES = ('xy', 'xt', 'yt')
HOG_CELL = 8  # px
HOG_BLOCK = 2  # cells
ORIENTATIONS = 8


def names(size: int) -> list[str]:
  """What the numbers of `describe` are, in their order.

  Args:
    size: of the faces, in px.
  """
  blocks = size // HOG_CELL - HOG_BLOCK + 1
  shape = (blocks, blocks, HOG_BLOCK, HOG_BLOCK, ORIENTATIONS)
  places = ['_'.join(map(str, index)) for index in np.ndindex(*shape)]
  hog = [f'hog_{what}_{place}' for what in ('mean', 'deviation') for place in places]
  return hog + [f'lbp_{plane}_{y}_{x}_{code}' for plane in PLANES for y, x, code in np.ndindex(CELLS, CELLS, CODES)]


def grey(frames: Iterable[np.ndarray], *, size: int) -> np.ndarray:
  """F pictures, uint8 RGB [h, w, 3], to grey uint8 [F, size, size]."""
  import cv2

  return np.stack(
    [cv2.resize(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), (size, size), interpolation=cv2.INTER_AREA) for f in frames]
  )


def describe(film: np.ndarray, seen: np.ndarray) -> np.ndarray:
  """Mean and deviation of HOG over a clip's frames, and LBP-TOP.

  Args:
    film: grey faces, uint8 [F, size, size].
    seen: bool [F], the frames with a face; one or more.

  Returns:
    float32 [F'], in the order of `names`.
  """
  gradients = np.stack(list(map(hog, film[seen])))
  return np.concatenate([gradients.mean(0), gradients.std(0), lbp_top(film, seen).ravel()]).astype(np.float32)


def hog(image: np.ndarray) -> np.ndarray:
  """Histograms of oriented gradients of a grey face, uint8 [size, size], float [blocks, blocks, 2, 2, 8] laid flat."""
  from skimage import feature

  return feature.hog(
    image, orientations=ORIENTATIONS, pixels_per_cell=(HOG_CELL,) * 2, cells_per_block=(HOG_BLOCK,) * 2
  )


def lbp_top(film: np.ndarray, seen: np.ndarray) -> np.ndarray:
  """Uniform LBP histograms of every cell of the face on the three planes.

  A code counts where all its neighbours are in the picture, and in frames with a face.

  Args:
    film: uint8 [F, size, size].
    seen: bool [F].

  Returns:
    float [3, CELLS, CELLS, CODES]; a plane's cell sums to 1, or to 0 where the clip is too short for it.
  """
  return np.stack([_histograms(codes, counts) for codes, counts in _planes(film, seen)])


def _planes(film: np.ndarray, seen: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Codes int [F, size, size] of each plane, and where they count, bool [F, size, size]."""
  from scipy import ndimage

  inner = np.zeros(film.shape[1], bool)
  inner[RADIUS:-RADIUS] = True
  amid = ndimage.binary_erosion(seen, np.ones(2 * RADIUS + 1))  # false at both ends of the film
  y, x = inner[:, None], inner[None]
  yield _codes(film), seen[:, None, None] & y & x
  yield _codes(film.transpose(1, 0, 2)).transpose(1, 0, 2), amid[:, None, None] & x
  yield _codes(film.transpose(2, 0, 1)).transpose(1, 2, 0), amid[:, None, None] & y


def _codes(slices: np.ndarray) -> np.ndarray:
  """LBP codes of pictures [n, height, width], one above the other, so that borders hold nonsense."""
  from skimage import feature

  tall = slices.reshape(-1, slices.shape[-1])
  return feature.local_binary_pattern(tall, NEIGHBOURS, RADIUS, 'nri_uniform').reshape(slices.shape).astype(int)


def _histograms(codes: np.ndarray, counts: np.ndarray) -> np.ndarray:
  size = codes.shape[1]
  cell = np.arange(size) * CELLS // size
  place = (cell[:, None] * CELLS + cell) * CODES + codes
  totals = np.bincount(place[np.broadcast_to(counts, codes.shape)], minlength=CELLS * CELLS * CODES)
  totals = totals.reshape(CELLS, CELLS, CODES)
  return totals / np.maximum(totals.sum(-1, keepdims=True), 1)

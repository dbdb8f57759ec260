"""Writers of files of tensors: a caffemodel in its three schemas and a MatConvNet .mat, from numpy arrays."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import scipy.io

V1_KINDS = {
  'Concat': 3,
  'Convolution': 4,
  'Data': 5,
  'Dropout': 6,
  'InnerProduct': 14,
  'LRN': 15,
  'Pooling': 17,
  'ReLU': 18,
  'Softmax': 20,
  'SoftmaxWithLoss': 21,
}
C3D_KINDS = {**V1_KINDS, 'Convolution3D': 30, 'Pooling3D': 31}


class Layer(NamedTuple):
  """One layer to write: its kind by the new schema's name, its blobs in the layout of the format."""

  name: str
  kind: str
  blobs: Sequence[np.ndarray] = ()


def varint(value: int) -> bytes:
  """A protobuf varint."""
  low, rest = value & 0x7F, value >> 7
  return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def number(field: int, value: int) -> bytes:
  """A protobuf field that holds an integer."""
  return varint(field << 3) + varint(value)


def piece(field: int, content: bytes | str) -> bytes:
  """A protobuf field that holds a message, a string or packed numbers."""
  content = content.encode() if isinstance(content, str) else content
  return varint(field << 3 | 2) + varint(len(content)) + content


def floats(field: int, values: np.ndarray, *, packed: bool = True) -> bytes:
  """A repeated protobuf float, packed (as all Caffe files are) or one tag a number."""
  values = np.asarray(values, '<f4').ravel()
  if packed:
    return piece(field, values.tobytes())
  return b''.join(varint(field << 3 | 5) + value.tobytes() for value in values)


def blob(array: np.ndarray, *, schema: str, packed: bool = True) -> bytes:
  """A BlobProto: shape {dim} in the new schema, 4 (V1) or 5 (C3D) sizes filled up with ones in front in the old."""
  if schema == 'new':
    return piece(7, piece(1, b''.join(map(varint, array.shape)))) + floats(5, array, packed=packed)
  rank = {'v1': 4, 'c3d': 5}[schema]
  sizes = (1,) * (rank - array.ndim) + array.shape
  head = b''.join(number(field, size) for field, size in enumerate(sizes, start=1))
  return head + floats(rank + 1, array, packed=packed)


def caffemodel(
  path: Path | str,
  layers: Iterable[Layer | tuple],
  *,
  schema: Literal['new', 'v1', 'c3d'],
  packed: bool = True,
) -> Path:
  """Writes a .caffemodel; blobs as Caffe's: kernels [O, I / groups, h, w] (C3D [O, I, d, h, w]), [O, I], biases [O]."""
  net = [piece(1, 'net')]
  for name, kind, blobs in (Layer(*layer) for layer in layers):
    field = 7 if schema == 'new' else 6
    content = b''.join(piece(field, blob(np.asarray(b), schema=schema, packed=packed)) for b in blobs)
    if schema == 'new':
      net.append(piece(100, piece(1, name) + piece(2, kind) + content))
    else:
      code = (C3D_KINDS if schema == 'c3d' else V1_KINDS)[kind]
      net.append(piece(2, piece(4, name) + number(5, code) + content))
  Path(path).write_bytes(b''.join(net))
  return Path(path)


def matconvnet(
  path: Path | str,
  layers: Iterable[Layer | tuple],
  *,
  average: np.ndarray | None = None,
  old: bool = False,
  compressed: bool = False,
) -> Path:
  """Writes a MatConvNet .mat: kinds 'conv', 'relu', 'normalize', 'pool', 'softmax'; kernels [h, w, I / groups, O].

  average: [h, w, 3] or [3] of RGB pixels. old: the first releases' names, 'filters' and 'biases' in the layer and
  'normalization' beside it, in place of 'weights' and 'meta.normalization'.
  """
  structs = []
  for name, kind, blobs in (Layer(*layer) for layer in layers):
    fields: dict = {'name': name, 'type': kind}
    if blobs and old:
      fields |= {'filters': blobs[0], 'biases': blobs[1]}
    elif blobs:
      cell = np.empty((1, len(blobs)), object)
      cell[0, :] = [np.asarray(b) for b in blobs]
      fields['weights'] = cell
    structs.append(fields)
  cells = np.empty((1, len(structs)), object)
  cells[0, :] = structs
  content: dict = {'layers': cells}
  if average is not None:
    normalization = {'imageSize': np.array([227.0, 227.0, 3.0]), 'averageImage': average}
    content |= {'normalization': normalization} if old else {'meta': {'normalization': normalization}}
  scipy.io.savemat(path, content, do_compression=compressed)
  return Path(path)

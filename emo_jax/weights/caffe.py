"""Caffe's files of weights (step: published weights): V1 and new layers, and the layers of the fork that made C3D.

A caffemodel is a protobuf message. This reads the few fields that it needs straight from the mapped file: every length
is held against the message around it, and the numbers stay in the file until somebody copies them.
"""

import math
import os
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from emo_jax.weights.untrusted import opened

NEW, V1 = 100, 2  # fields of the network that hold its layers
NAME, KIND, BLOBS = {NEW: 1, V1: 4}, {NEW: 2, V1: 5}, {NEW: 7, V1: 6}  # fields of a layer
KINDS = (  # V1's numbers, by the new names
  *('None', 'Accuracy', 'BNLL', 'Concat', 'Convolution', 'Data', 'Dropout', 'EuclideanLoss', 'Flatten', 'HDF5Data'),
  *('HDF5Output', 'Im2col', 'ImageData', 'InfogainLoss', 'InnerProduct', 'LRN', 'MultinomialLogisticLoss', 'Pooling'),
  *('ReLU', 'Sigmoid', 'Softmax', 'SoftmaxWithLoss', 'Split', 'TanH', 'WindowData', 'Eltwise', 'Power'),
  *('SigmoidCrossEntropyLoss', 'HingeLoss', 'MemoryData', 'ArgMax', 'Threshold', 'DummyData', 'Slice', 'MVN'),
  *('AbsVal', 'Silence', 'ContrastiveLoss', 'Exp', 'Deconvolution'),
)
C3D_KINDS = {30: 'Convolution3D', 31: 'Pooling3D', 32: 'VolumeData', 33: 'VideoData'}  # where the fork differs
VARINT, DOUBLE, BYTES, FLOAT = 0, 1, 2, 5  # protobuf's wire types
Message = dict[int, list[Any]]  # values of each field, in order


class Layer(NamedTuple):
  """A layer of a file.

  Attributes:
    name: as in the file.
    kind: by Caffe's new names ('Convolution', 'InnerProduct', 'ReLU', 'LRN', 'Pooling', 'Convolution3D', ...).
    blobs: float32; kernels [O, I / groups, (d,) h, w] or [O, I], then the bias [O]; empty in layers without.
  """

  name: str
  kind: str
  blobs: tuple[np.ndarray, ...]


def read(path: str | os.PathLike[str]) -> list[Layer]:
  """All layers of a .caffemodel in the file's order, whichever the schema.

  Arrays are read-only views of the file. A file that is cut off exactly between two layers is a file with fewer layers:
  whoever looks for a layer by name notices.

  Raises:
    ValueError: the file is cut off, damaged or of another kind.
  """
  with opened(path, 'a caffemodel') as data:
    network = _message(memoryview(data))
    layers = [_layer(_message(layer), schema) for schema in (V1, NEW) for layer in network.get(schema, [])]
    if not layers:
      raise ValueError('it has no layers')
    fork = any(blob.ndim == 5 for *_, blobs in layers for blob in blobs)
    kinds = dict(enumerate(KINDS)) | (C3D_KINDS if fork else {})
    return [_named(name, kinds.get(kind, str(kind)), blobs) for name, kind, blobs in layers]


def _layer(fields: Message, schema: int) -> tuple[str, Any, list[np.ndarray]]:
  """Name, kind (V1's is a number) and blobs as they are in the file."""
  if schema == V1 and 1 in fields:
    raise ValueError("its layers are of Caffe's first schema: convert it with Caffe's upgrade_net_proto_binary")
  name = str(fields.get(NAME[schema], [b''])[-1], 'utf-8')
  kind = fields.get(KIND[schema], [0])[-1]
  blobs = [_blob(_message(blob)) for blob in fields.get(BLOBS[schema], [])]
  return name, kind if isinstance(kind, int) else str(kind, 'utf-8'), blobs


def _blob(fields: Message) -> np.ndarray:
  """Its numbers, float32, in the shape of the file: any in the new schema, 4 sizes in the old, 5 in the fork's."""
  fork = any(isinstance(value, int) for value in fields.get(5, []))  # elsewhere field 5 holds the numbers
  pieces = fields.get(6 if fork else 5, [])
  content = pieces[0] if len(pieces) == 1 else b''.join(pieces)
  if 7 in fields and not fork:
    shape = tuple(_sizes(_message(fields[7][-1]).get(1, [])))
  else:
    shape = tuple(fields.get(field, [0])[-1] for field in range(1, 6 if fork else 5))
  if math.prod(shape) * 4 != len(content):
    raise ValueError(f'a blob of shape {shape} with {len(content):,} bytes of numbers')
  return np.ndarray(shape, '<f4', content)


def _sizes(values: list[Any]) -> Iterator[int]:
  for value in values:
    if isinstance(value, int):
      yield value
      continue
    at = 0
    while at < len(value):
      size, at = _varint(value, at)
      yield size


def _named(name: str, kind: str, blobs: list[np.ndarray]) -> Layer:
  """Without the ones that the old schemas put in front of the sizes of matrices and biases."""
  ranks = [2 if kind == 'InnerProduct' else blob.ndim for blob in blobs[:1]] + [1] * len(blobs[1:])
  return Layer(name, kind, tuple(_trimmed(blob, rank) for blob, rank in zip(blobs, ranks, strict=True)))


def _trimmed(blob: np.ndarray, rank: int) -> np.ndarray:
  while blob.ndim > rank and blob.shape[0] == 1:
    blob = blob[0]
  return blob


def _message(data: memoryview) -> Message:
  """The fields of a message: numbers, and pieces of the file; floats one by one are gathered in one piece."""
  fields: Message = defaultdict(list)
  at = 0
  while at < len(data):
    tag, at = _varint(data, at)
    field, wire = divmod(tag, 8)
    if wire == VARINT:
      value, at = _varint(data, at)
      fields[field].append(value)
      continue
    if wire not in (DOUBLE, BYTES, FLOAT):
      raise ValueError(f'no protobuf message has the wire type {wire}: damaged, or another kind of file')
    size, at = _varint(data, at) if wire == BYTES else ({DOUBLE: 8, FLOAT: 4}[wire], at)
    if size > len(data) - at:
      raise ValueError(f'field {field} claims {size:,} bytes; {len(data) - at:,} are left: cut off or damaged')
    pieces, piece = fields[field], data[at : at + size]
    if wire != FLOAT:
      pieces.append(piece)
    elif pieces and isinstance(pieces[-1], bytearray):
      pieces[-1] += piece
    else:
      pieces.append(bytearray(piece))
    at += size
  return dict(fields)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
  """The number at a position, and the position behind it."""
  value = 0
  for shift in range(0, 70, 7):
    if at >= len(data):
      break
    byte, at = data[at], at + 1
    value |= (byte & 0x7F) << shift
    if byte < 0x80:
      return value, at
  raise ValueError(f'a number is cut off or has no end at byte {at:,} of {len(data):,}')

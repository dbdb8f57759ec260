"""MATLAB's format 5 (step: published weights): numbers, texts, cells and structs of a .mat that may come from anybody.

SciPy's reader allocates what a file claims and follows nested cells without end; this one takes what it returns from
the bytes that are there. It reads what MATLAB and SciPy write, compressed or not; objects, functions and sparse arrays
are passed over.
"""

import math
import mmap
import struct
import zlib
from collections.abc import Container, Iterator
from typing import Any

import numpy as np

HEADER = 128  # bytes: a text, then version and byte order
MATRIX, COMPRESSED = 14, 15  # types of elements; those that hold numbers, and letters:
NUMBERS = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 9: 'f8', 12: 'i8', 13: 'u8'}
LETTERS = {
  '<': {1: 'latin-1', 2: 'latin-1', 4: 'utf-16-le', 16: 'utf-8', 17: 'utf-16-le', 18: 'utf-32-le'},
  '>': {1: 'latin-1', 2: 'latin-1', 4: 'utf-16-be', 16: 'utf-8', 17: 'utf-16-be', 18: 'utf-32-be'},
}
CELL, STRUCT, TEXT = 1, 2, 4  # classes of arrays; those of numbers, which may be stored in a smaller type:
NUMERIC = {6: 'f8', 7: 'f4', 8: 'i1', 9: 'u1', 10: 'i2', 11: 'u2', 12: 'i4', 13: 'u4', 14: 'i8', 15: 'u8'}
DEEPEST = 32  # nesting
GROWTH = 32  # most that a compressed variable may grow: trained weights hardly shrink


def read(data: mmap.mmap, names: Container[str]) -> dict[str, Any]:
  """The variables of these names.

  Args:
    data: the mapped file.
    names: of the variables to keep.

  Returns:
    An array of numbers as numpy array (its real part; a view of the file where that is uncompressed), a text as str, a
    cell array as list (column by column), a struct as dictionary, an array of structs as list of them, None for what is
    empty or passed over.

  Raises:
    Exception: of any kind, ValueError where the file is cut off, damaged or of another version.
  """
  order = {b'\x00\x01IM': '<', b'\x01\x00MI': '>'}.get(data[HEADER - 4 : HEADER])
  if order is None:
    raise ValueError("its header is not that of MATLAB's format 5")
  variables = {}
  for kind, content in _elements(memoryview(data)[HEADER:], order):
    if kind == COMPRESSED:
      kind, content = _next(_elements(_inflated(content), order))
    if kind != MATRIX:
      raise ValueError(f'an element of type {kind} where an array was expected')
    name, value = _array(content, order)
    if name in names:
      variables[name] = value
  return variables


def _inflated(content: memoryview) -> memoryview:
  most = max(GROWTH * len(content), 1 << 20)
  stream = zlib.decompressobj()
  try:
    inflated = stream.decompress(content, most)
  except zlib.error as error:
    raise ValueError(f'a compressed variable is damaged ({error})') from None
  if not stream.eof:
    raise ValueError(f'a compressed variable is cut off, or grows from {len(content):,} to over {most:,} bytes')
  return memoryview(inflated)


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
  """Types and contents of the elements in a row."""
  at = 0
  while at < len(data):
    if len(data) - at < 8:
      raise ValueError(f'{len(data) - at} bytes where an element of at least 8 was expected: cut off')
    kind, size = struct.unpack_from(f'{order}II', data, at)
    if kind >> 16:  # at most 4 bytes, within the tag
      kind, size, start, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
    else:
      start = at + 8
      end = start + size + (0 if kind == COMPRESSED else -size % 8)
    if size > min(end, len(data)) - start:
      raise ValueError(
        f'an element claims {size:,} bytes; {min(end, len(data)) - start:,} are left: cut off or damaged'
      )
    yield kind, data[start : start + size]
    at = end


def _next(elements: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
  for element in elements:
    return element
  raise ValueError('an array ends before its contents')


def _array(content: memoryview, order: str, depth: int = 0) -> tuple[str, Any]:
  """Name and value of an array."""
  if depth > DEEPEST:
    raise ValueError(f'cells or structs are nested more than {DEEPEST} deep')
  elements = _elements(content, order)
  kind = int(np.frombuffer(_next(elements)[1], f'{order}u4')[0]) & 0xFF if len(content) else 0
  if kind not in (CELL, STRUCT, TEXT, *NUMERIC):
    return '', None
  shape = tuple(np.frombuffer(_next(elements)[1], f'{order}i4').tolist())
  name = str(_next(elements)[1], 'utf-8')
  if min(shape) < 0:
    raise ValueError(f'{name!r} has the shape {shape}')
  if kind == CELL:
    return name, _inner(elements, math.prod(shape), order, depth)
  if kind == STRUCT:
    return name, _structs(elements, math.prod(shape), order, depth)
  if not math.prod(shape):
    return name, '' if kind == TEXT else None
  stored, values = _next(elements)
  if kind == TEXT:
    return name, str(values, LETTERS[order][stored])
  dtype = np.dtype(order + NUMBERS[stored])
  if math.prod(shape) * dtype.itemsize != len(values):
    raise ValueError(f'{name!r} of shape {shape} and type {dtype} has {len(values):,} bytes')
  array: np.ndarray = np.ndarray(shape, dtype, values, order='F')
  return name, array.astype(NUMERIC[kind], copy=False)


def _inner(elements: Iterator[tuple[int, memoryview]], count: int, order: str, depth: int) -> list[Any]:
  values = [_array(content, order, depth + 1)[1] for _, content in elements]
  if len(values) != count:
    raise ValueError(f'{len(values):,} arrays in a cell array or struct of {count:,}')
  return values


def _structs(elements: Iterator[tuple[int, memoryview]], count: int, order: str, depth: int) -> Any:
  width = int(np.frombuffer(_next(elements)[1], f'{order}i4')[0])
  names = bytes(_next(elements)[1])
  fields = [names[at : at + width].split(b'\x00')[0].decode() for at in range(0, len(names), max(width, 1))]
  values = _inner(elements, count * len(fields), order, depth)
  if not fields:
    return {}
  length = len(fields)
  structs = [dict(zip(fields, values[at : at + length], strict=True)) for at in range(0, len(values), length)]
  return structs[0] if count == 1 else structs

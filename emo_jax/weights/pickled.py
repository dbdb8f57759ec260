"""Tensors from pickles (step: published weights): torch's two formats and plain pickles of numpy arrays, without torch.

Files may come from anybody. Nothing in them is run (machine.py), and every size is held against the file before an
array is made. Arrays are views of the mapped file where they can be, so a large file costs little memory.
"""

import functools
import io
import math
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from emo_jax.weights.machine import STORAGES, Array, Machine, Storage, Tensor, Type
from emo_jax.weights.untrusted import opened

MAGIC = 0x1950A86A20F9469CFC6C  # the first value of torch's older format
DEEPEST = 64  # nesting of dictionaries and lists
LOCAL = struct.Struct('<4s22xHH')  # in front of a zip file's entry: lengths of its name and its extra field


def read_torch(path: str | os.PathLike[str]) -> Any:
  """What torch.save wrote, its format of today (a zip file) or the one before.

  Returns:
    Nested dictionaries (their order kept), lists and tuples; each tensor and parameter a numpy array of its own shape
    and type (bfloat16 becomes float32), a read-only view of the file; numbers, texts and None as they are (bytes become
    texts in pickles of protocol 2, which torch writes).

  Raises:
    ValueError: the file is cut off, damaged, of another kind, or asks for anything but tensors.
  """
  with opened(path, 'tensors as torch.save writes them') as data:
    value, storages = _zipped(data) if data[:4] == b'PK\x03\x04' else _legacy(data)
    return _Plain(storages, len(data)).of(value)


def read_numpy(path: str | os.PathLike[str]) -> Any:
  """What pickle.dump wrote of numpy arrays, protocol 2 to 5, by any version of numpy.

  Returns:
    Nested dictionaries, lists and tuples of numpy arrays (scalars too), numbers, texts and None.

  Raises:
    ValueError: the file is cut off, damaged, of another kind, or asks for anything but numbers.
  """

  def none(storage: Storage) -> np.ndarray:
    raise ValueError('it holds torch storages: read_torch reads those')

  with opened(path, 'a pickle of numpy arrays') as data:
    value = Machine().run(data)
    if type(value) is int and value == MAGIC:
      raise ValueError('it is of torch: read_torch reads it')
    return _Plain(none, len(data)).of(value)


def _zipped(data: mmap.mmap) -> tuple[Any, Callable[[Storage], np.ndarray]]:
  """The value, with a stand-in for each tensor, and where its storages' numbers are, in a zip file."""
  try:
    entries = {entry.filename: entry for entry in zipfile.ZipFile(data).infolist()}  # type: ignore[call-overload]
  except (zipfile.BadZipFile, ValueError) as error:
    raise ValueError(
      f'its list of contents, at the end, is missing or damaged, as in a file cut off ({error})'
    ) from None
  pickles = [name for name in entries if name.count('/') == 1 and name.endswith('/data.pkl')]
  if len(pickles) != 1:
    raise ValueError(f'{len(pickles)} entries FOLDER/data.pkl; torch.save writes one')
  folder = pickles[0].removesuffix('data.pkl')
  order = entries.get(f'{folder}byteorder')
  if order and _content(data, order) != b'little':
    raise ValueError('its numbers are not little-endian')

  def numbers(storage: Storage) -> np.ndarray:
    name = f'{folder}data/{storage.key}'
    if name not in entries:
      raise ValueError(f'a tensor needs the entry {name}, which is not there')
    return _numbers(_content(data, entries[name]), storage)

  return Machine().run(io.BytesIO(_content(data, entries[pickles[0]]))), numbers


def _content(data: mmap.mmap, entry: zipfile.ZipInfo) -> memoryview:
  """The bytes of an entry, uncompressed as torch writes all of them; checked against their checksum."""
  if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
    raise ValueError(f'{entry.filename} is compressed; torch.save compresses nothing')
  header = data[entry.header_offset : entry.header_offset + LOCAL.size]
  signature, name, extra = LOCAL.unpack(header)
  start = entry.header_offset + LOCAL.size + name + extra
  content = memoryview(data)[start : start + entry.file_size]
  if signature != b'PK\x03\x04' or zlib.crc32(content) != entry.CRC:
    raise ValueError(f'{entry.filename} is damaged: its {entry.file_size:,} bytes do not have their checksum')
  return content


def _legacy(data: mmap.mmap) -> tuple[Any, Callable[[Storage], np.ndarray]]:
  """The same of the older format: five pickles, then each storage's length and numbers."""
  if data[:1] != b'\x80' or Machine().run(data) != MAGIC:
    raise ValueError("it does not begin with torch's signature")
  version, system, machine = Machine().run(data), Machine().run(data), Machine()
  if version != 1001 or not isinstance(system, dict) or system.get('little_endian') is not True:
    raise ValueError('its version is not 1001 or its numbers are not little-endian')
  value, keys = machine.run(data), Machine().run(data)
  if not isinstance(keys, list) or keys != sorted(machine.found):
    raise ValueError('its list of storages is not that of its tensors')
  arrays = {}
  for key in keys:
    start = data.tell() + 8
    if data.read(8) != struct.pack('<q', machine.found[key].count):
      raise ValueError(f'storage {key}, at byte {start - 8:,}, does not have the length that its tensors expect')
    end = start + machine.found[key].count * np.dtype(STORAGES[machine.found[key].kind]).itemsize
    arrays[key] = _numbers(memoryview(data)[start:end], machine.found[key])
    data.seek(end)
  return value, lambda storage: arrays[storage.key]


def _numbers(content: memoryview, storage: Storage) -> np.ndarray:
  """[storage.count] numbers, checked against the bytes that are there."""
  dtype = np.dtype(STORAGES[storage.kind])
  if storage.count * dtype.itemsize != len(content):
    needed = f'{storage.count:,} numbers of {dtype.itemsize} bytes'
    raise ValueError(f'storage {storage.key} claims {needed}; {len(content):,} bytes are there')
  array = np.ndarray((storage.count,), dtype, content)
  return array if storage.kind != 'BFloat16Storage' else (array.astype('<u4') << 16).view('<f4')


class _Plain:
  """Makes plain values of what a Machine returns: arrays of its stand-ins, each once."""

  def __init__(self, numbers: Callable[[Storage], np.ndarray], limit: int) -> None:
    self.numbers = functools.cache(numbers)
    self.left = limit  # bytes that arrays from pickles themselves can have: no more than the file
    self.done: dict[int, Any] = {}

  def of(self, value: Any, depth: int = 0) -> Any:
    if depth > DEEPEST or self.done.get(id(value)) is self:
      raise ValueError(f'it is nested more than {DEEPEST} deep, or in itself')
    if id(value) not in self.done:
      self.done[id(value)] = self  # until it is
      self.done[id(value)] = self._made(value, depth)
    return self.done[id(value)]

  def _made(self, value: Any, depth: int) -> Any:
    match value:
      case None | bool() | int() | float() | str() | bytes() | bytearray():
        return value
      case dict():
        return {key: self.of(item, depth + 1) for key, item in value.items()}
      case list() | tuple():
        return type(value)([self.of(item, depth + 1) for item in value])
      case Tensor():
        return self._tensor(value)
      case Array():
        return self._array(value)
    raise ValueError(f'it holds a {type(value).__name__} where an array, a number or a text was expected')

  def _tensor(self, tensor: Tensor) -> np.ndarray:
    size, stride, offset = _sizes(tensor.size), _sizes(tensor.stride), *_sizes((tensor.offset,))
    if not isinstance(tensor.storage, Storage) or len(size) != len(stride):
      raise ValueError('a tensor without a storage, or with as many strides as it has no sizes')
    numbers = self.numbers(tensor.storage)
    end = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True)) + 1
    if 0 in size:
      return np.zeros(size, numbers.dtype)
    if end > len(numbers) or math.prod(size) > len(numbers):
      where = f'of shape {size} and strides {stride} from number {offset:,}'
      raise ValueError(f'a tensor {where} does not fit storage {tensor.storage.key} of {len(numbers):,} numbers')
    width = numbers.itemsize
    return np.ndarray(size, numbers.dtype, numbers, offset * width, [step * width for step in stride])

  def _array(self, array: Array) -> np.ndarray:
    shape = _sizes(array.shape)
    if not isinstance(array.type, Type) or not isinstance(array.data, bytes | bytearray | str):
      raise ValueError('a numpy array that does not hold plain numbers')
    dtype, there = array.type.dtype(), len(array.data)
    self.left -= there
    if math.prod(shape) * dtype.itemsize != there or self.left < 0:
      raise ValueError(f'an array of shape {shape} and type {dtype}; {there:,} bytes are there')
    content = array.data.encode('latin-1') if isinstance(array.data, str) else array.data
    made: np.ndarray = np.ndarray(shape, dtype, content, order='F' if array.fortran else 'C')
    return made.astype(dtype.newbyteorder('='), copy=False)


def _sizes(values: Any) -> tuple[int, ...]:
  if not isinstance(values, tuple) or len(values) > 32 or not all(type(n) is int and 0 <= n < 2**63 for n in values):
    raise ValueError('sizes that are no sizes')
  return values

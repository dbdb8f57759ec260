"""Reads files of TensorBoard events, checksums and all; written from the format's description (TFRecord)."""

import pathlib
import struct
from collections.abc import Iterator

from tensorboardX.proto.event_pb2 import Event


def crc32c(data: bytes) -> int:
  """Castagnoli's, bit by bit."""
  register = 0xFFFFFFFF
  for byte in data:
    register ^= byte
    for _ in range(8):
      register = register >> 1 ^ 0x82F63B78 * (register & 1)
  return register ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
  """Turned right by 15 bits, and a constant added."""
  crc = crc32c(data)
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(path: pathlib.Path) -> Iterator[Event]:
  """The events of a file, up to one that was cut off.

  Raises:
    ValueError: a checksum is wrong.
  """
  rest = path.read_bytes()
  while len(rest) >= 12:
    size, of_size = struct.unpack('<QI', rest[:12])
    body, of_body = rest[12 : 12 + size], rest[12 + size : 16 + size]
    if len(of_body) < 4:
      return
    if masked(rest[:8]) != of_size or masked(body) != struct.unpack('<I', of_body)[0]:
      raise ValueError(f'{path}: a wrong checksum')
    yield Event.FromString(body)
    rest = rest[16 + size :]


def scalars(folder: pathlib.Path) -> dict[str, list[tuple[int, float]]]:
  """name -> (step, value), in order, of all event files in a folder."""
  found: dict[str, list[tuple[int, float]]] = {}
  for path in sorted(folder.iterdir()):
    first, *others = events(path)
    assert first.file_version == 'brain.Event:2'
    for event in others:
      for value in event.summary.value:
        found.setdefault(value.tag, []).append((event.step, value.simple_value))
  return found

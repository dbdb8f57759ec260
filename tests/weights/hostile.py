"""Pickles that nobody should run, in each form that a reader may meet, and torch files that claim what they lack."""

import collections
import io
import pickle
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from emo_jax.weights import pickled

FORMS: dict[str, tuple[Callable[[bytes], bytes], Callable[[Path], Any]]] = {
  'zip': (lambda payload: zipped({'archive/data.pkl': payload}), pickled.read_torch),
  'legacy': (lambda payload: legacy(payload), pickled.read_torch),
  'numpy': (lambda payload: payload, pickled.read_numpy),
}


def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
  """A zip file."""
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w', compression) as archive:
    for name, content in entries.items():
      archive.writestr(name, content)
  return file.getvalue()


def legacy(payload: bytes, storages: dict[str, bytes] | None = None) -> bytes:
  """torch's older format around a pickle; a storage's content is its length and its numbers."""
  storages = storages or {}
  parts: Sequence[Any] = (0x1950A86A20F9469CFC6C, 1001, {'protocol_version': 1001, 'little_endian': True})
  heads = [pickle.dumps(part, 2) for part in parts]
  return b''.join([*heads, payload, pickle.dumps(sorted(storages), 2), *(storages[key] for key in sorted(storages))])


def call(module: str, name: str, *arguments: Any, protocol: int = 2) -> bytes:
  """A pickle that calls a function of this name, without having it here."""
  stripped = pickle.dumps(arguments, 2)[2:-1]
  if protocol == 2:
    return b'\x80\x02c' + f'{module}\n{name}\n'.encode() + stripped + b'R.'
  texts = b''.join(b'\x8c' + bytes([len(text)]) + text.encode() for text in (module, name))
  return b'\x80\x04' + texts + b'\x93' + stripped + b'R.'


class Claim:
  """A tensor that says it lies so in a storage of so many floats."""

  def __init__(self, offset: Any, size: Any, stride: Any, count: Any, storage: type = torch.FloatStorage) -> None:
    self.view = (offset, size, stride)
    self.storage = ('storage', storage, '0', 'cpu', count)

  def __reduce__(self) -> Any:
    return torch._utils._rebuild_tensor_v2, (_Persistent(self.storage), *self.view, False, collections.OrderedDict())


class _Persistent:
  def __init__(self, identity: Any) -> None:
    self.identity = identity


class _Pickler(pickle.Pickler):
  def persistent_id(self, obj: Any) -> Any:
    return obj.identity if isinstance(obj, _Persistent) else None


def claiming(value: Any) -> bytes:
  """The pickle of a value with Claims in it."""
  file = io.BytesIO()
  _Pickler(file, 2).dump(value)
  return file.getvalue()

"""What a pickle of tensors may do (step: published weights): a stack machine that can make tensors and nothing else.

A pickle is a program. Python's own unpickler calls what the program names; this one knows only the instructions that
files of tensors need, looks every name up in a table of its own functions (CALLS) and imports nothing. Nor does it
allocate what a file only claims: numbers stay in the file (torch) or in the bytes that were read (numpy).
"""

import dataclasses
import pickletools
from collections.abc import Iterator
from typing import Any

import numpy as np

STORAGES = {  # torch's names; numpy has no bfloat16: its bits are read
  'DoubleStorage': '<f8',
  'FloatStorage': '<f4',
  'HalfStorage': '<f2',
  'BFloat16Storage': '<u2',
  'LongStorage': '<i8',
  'IntStorage': '<i4',
  'ShortStorage': '<i2',
  'CharStorage': '<i1',
  'ByteStorage': '<u1',
  'BoolStorage': '?',
}
LITERALS = (
  *('BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8'),
  *('BINSTRING', 'SHORT_BINSTRING', 'BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8', 'BYTEARRAY8'),
)
CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'EMPTY_TUPLE': ()}
NUMBERS = ('b1', 'i1', 'u1', 'i2', 'u2', 'f2', 'i4', 'u4', 'f4', 'i8', 'u8', 'f8')
CORES = ('numpy.core', 'numpy._core')


@dataclasses.dataclass(frozen=True)
class Storage:
  """Numbers in a row, kept elsewhere in a torch file."""

  kind: str
  key: str
  count: int


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A torch tensor: a view of a storage. Nothing is checked yet."""

  storage: Any
  offset: Any
  size: Any
  stride: Any


@dataclasses.dataclass
class Type:
  """numpy's dtype: only plain numbers."""

  name: Any
  order: Any = '='

  def build(self, state: Any) -> None:
    self.order = state[1]

  def dtype(self) -> np.dtype:
    if self.name not in NUMBERS or self.order not in ('<', '>', '|', '='):
      raise ValueError(f'an array of numpy type {self.name if isinstance(self.name, str) else "?"}; expected numbers')
    return np.dtype(self.name).newbyteorder(self.order)


@dataclasses.dataclass
class Array:
  """A numpy array or scalar: made empty, filled by the instruction BUILD. Nothing is checked yet."""

  type: Any = None
  shape: Any = None
  data: Any = None
  fortran: Any = False

  def build(self, state: Any) -> None:
    _, self.shape, self.type, self.fortran, self.data = state


def _type(name: Any, *_: Any) -> Type:
  return Type(name)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
  return Tensor(storage, offset, size, stride)


def _array(data: Any, kind: Any, shape: Any, order: Any) -> Array:
  return Array(kind, shape, data, order == 'F')


def _insert(target: Any, items: Any) -> dict[Any, Any]:
  if type(target) is not dict or not all(isinstance(key, str | int) for key, _ in items):
    raise ValueError('a dictionary with keys that are neither names nor numbers')
  target.update(items)
  return target


CALLS: dict[str, Any] = {
  'collections OrderedDict': lambda items=(): _insert({}, items),
  'torch._utils _rebuild_tensor': _tensor,
  'torch._utils _rebuild_tensor_v2': _tensor,
  'torch._utils _rebuild_parameter': lambda tensor, *_: tensor,
  **{f'{module} {kind}': kind for module in ('torch', 'torch.cuda') for kind in STORAGES},
  '_codecs encode': lambda text, _: text,  # bytes, written as the letters of Latin-1
  '__builtin__ bytes': lambda: '',  # no bytes
  'numpy ndarray': None,  # what _reconstruct makes, always
  'numpy dtype': _type,
  **{f'{core}.multiarray _reconstruct': lambda *_: Array() for core in CORES},
  **{f'{core}.multiarray scalar': lambda kind, data: Array(kind, (), data) for core in CORES},
  **{f'{core}.numeric _frombuffer': _array for core in CORES},
}


class Machine:
  """Runs one pickle; .found are the torch storages that it named, by key."""

  def __init__(self) -> None:
    self.stack: list[Any] = []
    self.marks: list[int] = []
    self.memo: dict[int, Any] = {}
    self.found: dict[str, Storage] = {}

  def run(self, file: Any) -> Any:
    """Reads the pickle at the file's position up to its end.

    Args:
      file: an open file, or the map of one.

    Returns:
      Lists, tuples, dictionaries, numbers and strings, with a Tensor or an Array for each array.

    Raises:
      Exception: of any kind, ValueError where the pickle is cut off or asks for what it may not have.
    """
    for instruction, argument, _ in _instructions(file):
      if instruction.name == 'STOP':
        (result,) = self._take(1)
        return result
      self._step(instruction.name, argument)

  def _step(self, name: str, argument: Any) -> None:
    stack, push = self.stack, self.stack.append
    match name:
      case 'PROTO' | 'FRAME':
        pass
      case 'MARK':
        self.marks.append(len(stack))
      case 'EMPTY_DICT':
        push({})
      case 'EMPTY_LIST':
        push([])
      case 'TUPLE':
        push(tuple(self._marked()))
      case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
        push(tuple(self._take(int(name[-1]))))
      case 'APPEND' | 'APPENDS':
        items = self._marked() if name == 'APPENDS' else self._take(1)
        self._top(list).extend(items)
      case 'SETITEM' | 'SETITEMS':
        items = self._marked() if name == 'SETITEMS' else self._take(2)
        _insert(self._top(dict), list(zip(items[::2], items[1::2], strict=True)))
      case 'BINPUT' | 'LONG_BINPUT' | 'MEMOIZE':
        self.memo[len(self.memo) if argument is None else argument] = stack[-1]
      case 'BINGET' | 'LONG_BINGET':
        push(self.memo[argument])
      case 'GLOBAL' | 'STACK_GLOBAL':
        push(_allowed(argument if name == 'GLOBAL' else ' '.join(self._take(2))))
      case 'REDUCE':
        function, arguments = self._take(2)
        push(function(*arguments))
      case 'BUILD':
        (state,) = self._take(1)
        if not isinstance(stack[-1], dict):  # torch's dictionaries carry versions that nobody needs
          self._top(Type | Array).build(state)
      case 'BINPERSID':
        (identity,) = self._take(1)
        push(self._storage(identity))
      case _ if name in LITERALS:
        push(argument)
      case _ if name in CONSTANTS:
        push(CONSTANTS[name])
      case _:
        raise ValueError(f'it holds the instruction {name}, which no file of tensors needs')

  def _take(self, count: int) -> list[Any]:
    if count > len(self.stack):
      raise ValueError('its instructions take more values than there are')
    items = self.stack[len(self.stack) - count :]
    del self.stack[len(self.stack) - count :]
    return items

  def _marked(self) -> list[Any]:
    return self._take(len(self.stack) - self.marks.pop())

  def _top(self, kind: Any) -> Any:
    if not isinstance(self.stack[-1], kind):
      raise ValueError(f'its instructions change a {type(self.stack[-1]).__name__} as if it were something else')
    return self.stack[-1]

  def _storage(self, identity: Any) -> Storage:
    match identity:
      case ('storage', str(kind), str(key), str(), int(count), *view) if kind in STORAGES and view in ([], [None]):
        storage = Storage(kind, key, count)
        if self.found.setdefault(key, storage) == storage:
          return storage
    raise ValueError('it describes a storage otherwise than torch.save does')


def _instructions(file: Any) -> Iterator[tuple[Any, Any, Any]]:
  try:
    yield from pickletools.genops(file)
  except ValueError as error:
    raise ValueError(f'the pickle is cut off or damaged at byte {file.tell():,} ({error})') from None


def _allowed(name: str) -> Any:
  if name not in CALLS:
    asked = name[:100].replace(' ', '.')
    raise ValueError(f'it asks for {asked!r}, which is no part of a tensor: nothing was run; save the tensors alone')
  return CALLS[name]

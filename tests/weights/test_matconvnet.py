import tracemalloc

import numpy as np
import pytest
import scipy.io

from emo_jax.weights import matconvnet
from tests.weights import files


def network():
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  return [
    files.Layer('conv1', 'conv', (draw(5, 5, 3, 4), draw(1, 4))),
    files.Layer('relu1', 'relu'),
    files.Layer('norm1', 'normalize'),
    files.Layer('fc8', 'conv', (draw(1, 1, 4, 2), draw(2, 1))),
    files.Layer('prob', 'softmax'),
  ]


AVERAGE = np.random.default_rng(1).uniform(0, 255, (6, 5, 3)).astype(np.float32)


def same(found, wanted):
  flat = lambda blob: blob if blob.ndim > 2 else blob.ravel()  # a bias is a row or a column in the file
  return all(
    (a.name, a.kind, len(a.blobs)) == (b.name, b.kind, len(b.blobs))
    and all(x.dtype == y.dtype and np.array_equal(x, flat(y)) for x, y in zip(a.blobs, b.blobs, strict=True))
    for a, b in zip(found, wanted, strict=True)
  )


def refused(path):
  with pytest.raises(ValueError, match='expected a MatConvNet network') as caught:
    matconvnet.read(path)
  assert str(path) in str(caught.value) and type(caught.value) is ValueError
  return str(caught.value)


@pytest.mark.parametrize('old', [False, True])
@pytest.mark.parametrize('compressed', [False, True])
def test_layers_and_the_average_image_are_read(tmp_path, old, compressed):
  path = files.matconvnet(tmp_path / 'x.mat', network(), average=AVERAGE, old=old, compressed=compressed)
  layers, average = matconvnet.read(path)
  assert same(layers, network())
  np.testing.assert_array_equal(average, AVERAGE)


@pytest.mark.parametrize('average', [np.array([122.7, 116.7, 104.0]), np.array([[[122.7, 116.7, 104.0]]])])
def test_channel_means_stand_for_the_average_image(tmp_path, average):
  path = files.matconvnet(tmp_path / 'x.mat', network(), average=average)
  np.testing.assert_array_equal(matconvnet.read(path).average, average.ravel())


@pytest.mark.parametrize('average', [None, np.zeros((0, 0))])
def test_the_average_image_may_be_absent_or_empty(tmp_path, average):
  path = files.matconvnet(tmp_path / 'x.mat', network(), average=average)
  assert matconvnet.read(path).average is None


def test_ones_that_matlab_drops_at_the_end_are_put_back(tmp_path):
  layers = [files.Layer('fc', 'conv', (np.ones((2, 3), np.float32), np.ones((1, 1), np.float32)))]
  (layer,) = matconvnet.read(files.matconvnet(tmp_path / 'x.mat', layers)).layers
  assert [blob.shape for blob in layer.blobs] == [(2, 3, 1, 1), (1,)]


def test_a_large_file_is_mapped_and_not_copied(tmp_path):
  layers = [files.Layer('fc6', 'conv', (np.ones((6, 6, 256, 400), np.float32), np.ones((1, 400), np.float32)))]
  path = files.matconvnet(tmp_path / 'x.mat', layers)
  tracemalloc.start()
  matconvnet.read(path)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert path.stat().st_size > 10_000_000 > 10 * peak


@pytest.mark.parametrize('compressed', [False, True])
def test_a_file_that_is_cut_off_is_refused_or_lacks_the_average_image(tmp_path, compressed):
  """Between two variables there is nothing to tell that another should follow."""
  path = files.matconvnet(tmp_path / 'x.mat', network(), average=AVERAGE, compressed=compressed)
  whole, rng, lacking = path.read_bytes(), np.random.default_rng(0), 0
  for length in [*range(1, 140), *rng.integers(140, len(whole), 200)]:
    path.write_bytes(whole[:length])
    try:
      layers, average = matconvnet.read(path)
    except ValueError as error:
      assert f'{path} ({length:,} bytes)' in str(error)
    else:
      assert same(layers, network()) and average is None
      lacking += 1
  assert lacking < 5


@pytest.mark.parametrize('compressed', [False, True])
def test_bit_flips_are_refused_or_do_no_harm(tmp_path, compressed):
  """Compressed variables have checksums: there the numbers cannot change unnoticed."""
  path = files.matconvnet(tmp_path / 'x.mat', network(), average=AVERAGE, compressed=compressed)
  whole, rng, noticed = path.read_bytes(), np.random.default_rng(0), 0
  for at, bit in zip(rng.integers(0, len(whole), 300), rng.integers(0, 8, 300), strict=True):
    flipped = bytearray(whole)
    flipped[at] ^= 1 << bit
    path.write_bytes(flipped)
    try:
      layers, _ = matconvnet.read(path)
    except ValueError as error:
      assert str(path) in str(error)
      noticed += 1
    else:
      assert not compressed or same(layers, network())
  assert noticed > 20


@pytest.mark.parametrize(
  ('content', 'found'),
  [
    ({'params': 1.0}, "no cell array 'layers'"),
    ({'layers': np.ones(3)}, "no cell array 'layers'"),
    ({'layers': np.array([[{'name': 'a', 'weights': np.ones(3)}]], object)}, "'a'"),
    ({'layers': np.array([[{'name': 'a', 'filters': np.ones((1, 1, 2, 3)), 'biases': np.ones(2)}]], object)}, "'a'"),
    ({'layers': np.array([[{'name': 'a', 'filters': 'text', 'biases': np.ones(2)}]], object)}, "'a'"),
    (
      {
        'layers': np.array([[{'name': 'a'}]], object),
        'meta': {'normalization': {'averageImage': np.ones((4, 4))}},
      },
      'average image',
    ),
  ],
)
def test_other_networks_are_named(tmp_path, content, found):
  scipy.io.savemat(tmp_path / 'x.mat', content)
  assert found in refused(tmp_path / 'x.mat')


@pytest.mark.parametrize(
  ('content', 'found'),
  [
    (b'', 'an empty file'),
    (b'<html>', 'a web page'),
    (b'MATLAB 7.3 MAT-file, Platform: GLNXA64', '-v7'),
    (b'MATLAB 5.0', "header is not that of MATLAB's format 5"),
    (b'\x80\x02}.', 'a pickle'),
  ],
)
def test_another_kind_of_file_is_named(tmp_path, content, found):
  (tmp_path / 'x.mat').write_bytes(content)
  assert found in refused(tmp_path / 'x.mat')

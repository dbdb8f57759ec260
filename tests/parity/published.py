"""The published networks in PyTorch, with random weights, and the files in which they are published."""

import collections
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from tests.weights import files

TORCHVISION = [f'features.{number}' for number in (0, 3, 6, 8, 10)]
TORCHVISION += [f'classifier.{number}' for number in (1, 4, 6)]
C3D = ['conv1', 'conv2', 'conv3a', 'conv3b', 'conv4a', 'conv4b', 'conv5a', 'conv5b', 'fc6', 'fc7', 'fc8']
CAFFE_C3D = ['conv1a', 'conv2a', *C3D[2:8], 'fc6-1', 'fc7-1', 'fc8-1']
MMACTION = [f'{name}.conv' for name in CAFFE_C3D[:8]] + ['fc6', 'fc7']
RECOGNITION = [f'features.{number}' for number in (0, 3, 6, 8, 11, 13, 16, 18)] + ['classifier.0', 'classifier.3']

Net = nn.Sequential  # of layers by the names of ours, so that each one's output can be looked at


def net(layers: Iterable[tuple[str, nn.Module]]) -> Net:
  """He-normal weights and biases that matter, the same at every call."""
  made = Net(collections.OrderedDict(layers))
  torch.manual_seed(0)
  with torch.no_grad():
    for layer in made:
      if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.Linear):
        layer.weight.normal_(0, (2 / layer.weight[0].numel()) ** 0.5)
        layer.bias.normal_(0, 0.1)
  return made.eval()


def dense(inputs: int, hidden: int, classes: int) -> list[tuple[str, nn.Module]]:
  return [
    *[('flat', nn.Flatten()), ('fc6', nn.Linear(inputs, hidden)), ('relu6', nn.ReLU())],
    *[('fc7', nn.Linear(hidden, hidden)), ('relu7', nn.ReLU()), ('fc8', nn.Linear(hidden, classes))],
  ]


def torchvision_alexnet(width: float = 1.0) -> Net:
  c = lambda channels: round(channels * width)
  pool = lambda: nn.MaxPool2d(3, 2)
  return net(
    [
      *[('conv1', nn.Conv2d(3, c(64), 11, 4, 2)), ('relu1', nn.ReLU()), ('pool1', pool())],
      *[('conv2', nn.Conv2d(c(64), c(192), 5, padding=2)), ('relu2', nn.ReLU()), ('pool2', pool())],
      *[('conv3', nn.Conv2d(c(192), c(384), 3, padding=1)), ('relu3', nn.ReLU())],
      *[('conv4', nn.Conv2d(c(384), c(256), 3, padding=1)), ('relu4', nn.ReLU())],
      *[('conv5', nn.Conv2d(c(256), c(256), 3, padding=1)), ('relu5', nn.ReLU()), ('pool5', pool())],
      ('average', nn.AdaptiveAvgPool2d(6)),
      *dense(c(256) * 36, c(4096), 1000),
    ]
  )


def caffe_alexnet(width: float = 1.0, *, form: str = 'caffe') -> Net:
  """Two groups; 'caffe' normalises and then pools, 'caffenet' pools and then normalises. Poolings round up."""
  c = lambda channels: round(channels * width)
  pool = lambda: nn.MaxPool2d(3, 2, ceil_mode=True)

  def after(number: int) -> list[tuple[str, nn.Module]]:
    both = [(f'norm{number}', nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1)), (f'pool{number}', pool())]
    return [(f'relu{number}', nn.ReLU()), *(both if form == 'caffe' else reversed(both))]

  return net(
    [
      *[('conv1', nn.Conv2d(3, c(96), 11, 4)), *after(1)],
      *[('conv2', nn.Conv2d(c(96), c(256), 5, padding=2, groups=2)), *after(2)],
      *[('conv3', nn.Conv2d(c(256), c(384), 3, padding=1)), ('relu3', nn.ReLU())],
      *[('conv4', nn.Conv2d(c(384), c(384), 3, padding=1, groups=2)), ('relu4', nn.ReLU())],
      *[('conv5', nn.Conv2d(c(384), c(256), 3, padding=1, groups=2)), ('relu5', nn.ReLU()), ('pool5', pool())],
      *dense(c(256) * 36, c(4096), 1000),
    ]
  )


def c3d(width: float = 1.0, *, pool5: str = 'caffe', classes: int = 487) -> Net:
  """pool5 rounds up as in Caffe, or pads both sides as in the ports to PyTorch."""
  layers: list[tuple[str, nn.Module]] = []
  inputs = 3
  for name, channels in zip(C3D, (64, 128, 256, 256, 512, 512, 512, 512), strict=False):
    outputs = round(channels * width)
    layers += [(name, nn.Conv3d(inputs, outputs, 3, padding=1)), (name.replace('conv', 'relu'), nn.ReLU())]
    inputs = outputs
    if name == 'conv1':
      layers += [('pool1', nn.MaxPool3d((1, 2, 2), (1, 2, 2)))]
    elif name in ('conv2', 'conv3b', 'conv4b'):
      layers += [(name.replace('conv', 'pool'), nn.MaxPool3d(2, 2))]
  last = nn.MaxPool3d(2, 2, ceil_mode=True) if pool5 == 'caffe' else nn.MaxPool3d(2, 2, padding=(0, 1, 1))
  return net([*layers, ('pool5', last), *dense(inputs * 16, round(4096 * width), classes)])


def tensors(of: Net, names: Iterable[str], *, prefix: str = '') -> dict[str, torch.Tensor]:
  """A state dict with the names of a published one, in the order of the layers."""
  layers = [layer for layer in of if hasattr(layer, 'weight')]
  pairs = [*zip(names, layers, strict=False)]  # a file may end before fc8
  parts = [(name, layer, part) for name, layer in pairs for part in ('weight', 'bias')]
  return {f'{prefix}{name}.{part}': getattr(layer, part).detach() for name, layer, part in parts}


def save_torch(path: pathlib.Path, of: Net, names: Iterable[str], *, legacy: bool = False) -> None:
  torch.save(tensors(of, names), path, _use_new_zipfile_serialization=not legacy)


def save_mmaction_finetuned(path: pathlib.Path, of: Net) -> None:
  state = {**tensors(of, MMACTION, prefix='backbone.')}
  state |= {f'cls_head.fc_cls.{part}': getattr(of.fc8, part).detach() for part in ('weight', 'bias')}
  torch.save({'meta': {'epoch': 45, 'mmaction_version': '0.8.0'}, 'state_dict': state, 'optimizer': {}}, path)


KINDS = {nn.Conv2d: 'Convolution', nn.ReLU: 'ReLU', nn.LocalResponseNorm: 'LRN', nn.MaxPool2d: 'Pooling'}
KINDS |= {nn.Linear: 'InnerProduct', nn.Conv3d: 'Convolution3D', nn.MaxPool3d: 'Pooling3D'}


def save_caffe(path: pathlib.Path, of: Net, *, schema: Any) -> None:
  names = dict(zip(C3D, CAFFE_C3D, strict=True)) if schema == 'c3d' else {}
  layers = []
  for name, layer in of.named_children():
    if type(layer) in KINDS:
      blobs = [parameter.detach().numpy() for parameter in layer.parameters()]
      layers.append(files.Layer(names.get(name, name), KINDS[type(layer)], blobs))
  files.caffemodel(path, layers, schema=schema)


MATCONVNET = {'Convolution': 'conv', 'InnerProduct': 'conv', 'ReLU': 'relu', 'LRN': 'normalize', 'Pooling': 'pool'}


def save_matconvnet(path: pathlib.Path, of: Net, *, average: np.ndarray, old: bool = False) -> None:
  """Dense layers are convolutions over the whole map, and the first layer takes RGB."""
  layers = []
  for name, layer in of.named_children():
    blobs = [parameter.detach().numpy() for parameter in layer.parameters()]
    if isinstance(layer, nn.Linear):
      side = 6 if name == 'fc6' else 1
      blobs[0] = blobs[0].reshape(len(blobs[0]), -1, side, side)
    if name == 'conv1':
      blobs[0] = blobs[0][:, ::-1]
    if blobs:
      blobs[0] = blobs[0].transpose(2, 3, 1, 0)
    if type(layer) in KINDS:
      layers.append(files.Layer(name, MATCONVNET[KINDS[type(layer)]], blobs))
  files.matconvnet(path, layers, average=average, old=old)


# What each program does to RGB pixels [..., 3] of 0 to 255 in front of its network.
def rgb(pixels: np.ndarray, mean: Iterable[float]) -> np.ndarray:
  return pixels - np.array(mean, np.float32)


def bgr(pixels: np.ndarray, mean: Iterable[float]) -> np.ndarray:
  """`mean` in the order B, G, R."""
  return pixels[..., ::-1] - np.array(mean, np.float32)


def torchvision_pixels(pixels: np.ndarray) -> np.ndarray:
  return (pixels / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])


def caffe_pixels(pixels: np.ndarray) -> np.ndarray:
  return bgr(pixels, (104.00698793, 116.66876762, 122.67891434))


def sports_pixels(pixels: np.ndarray) -> np.ndarray:
  return bgr(pixels, (90.25, 97.66, 101.41))


def mmaction_pixels(pixels: np.ndarray) -> np.ndarray:
  return rgb(pixels, (104, 117, 128))


AVERAGE = np.full((227, 227, 3), (122.7, 116.7, 104.0), np.float32)


def matconvnet_pixels(pixels: np.ndarray) -> np.ndarray:
  return bgr(pixels, AVERAGE[0, 0, ::-1])  # the torch twin takes BGR; the file's first layer was turned


class Case(NamedTuple):
  """A published network in its file.

  Attributes:
    make: the network, of the width.
    save: writes the file.
    pixels: its preprocessing.
    network, needs: what `load` must say of it.
    width: 1 is the published size.
    turned: whether its first layer takes BGR.
  """

  make: Callable[[float], Net]
  save: Callable[[pathlib.Path, Net], None]
  pixels: Callable[[np.ndarray], np.ndarray]
  network: str
  needs: dict[str, str]
  width: float = 1.0
  turned: bool = True


def caffenet(width: float) -> Net:
  return caffe_alexnet(width, form='caffenet')


def tuned_c3d(width: float) -> Net:
  return c3d(width, pool5='symmetric', classes=101)


CAFFE, CAFFENET, SINGLE = {'form': 'caffe'}, {'form': 'caffenet'}, {'form': 'single'}
SPORTS, TUNED = {'pool5': 'caffe'}, {'pool5': 'symmetric'}
CASES = {
  'torchvision_pth': Case(
    torchvision_alexnet,
    lambda path, of: save_torch(path, of, TORCHVISION),
    torchvision_pixels,
    'alexnet',
    SINGLE,
    turned=False,
  ),
  'alexnet_caffemodel_v1': Case(
    caffe_alexnet, lambda path, of: save_caffe(path, of, schema='v1'), caffe_pixels, 'alexnet', CAFFE
  ),
  'caffenet_caffemodel': Case(
    caffenet, lambda path, of: save_caffe(path, of, schema='new'), caffe_pixels, 'alexnet', CAFFENET, width=1 / 8
  ),
  'alexnet_mat': Case(
    caffe_alexnet, lambda path, of: save_matconvnet(path, of, average=AVERAGE), matconvnet_pixels, 'alexnet', CAFFE
  ),
  'caffenet_mat_old': Case(
    caffenet,
    lambda path, of: save_matconvnet(path, of, average=AVERAGE, old=True),
    matconvnet_pixels,
    'alexnet',
    CAFFENET,
    width=1 / 8,
  ),
  'c3d_pickle': Case(c3d, lambda path, of: save_torch(path, of, C3D, legacy=True), sports_pixels, 'c3d', SPORTS),
  'mmaction2_pth': Case(
    c3d,
    lambda path, of: save_torch(path, of, MMACTION),
    mmaction_pixels,
    'c3d',
    SPORTS,
    width=1 / 8,
    turned=False,
  ),
  'mmaction2_finetuned_pth': Case(
    tuned_c3d, save_mmaction_finetuned, mmaction_pixels, 'c3d', TUNED, width=1 / 8, turned=False
  ),
  'recognition_pth': Case(
    c3d, lambda path, of: save_torch(path, of, RECOGNITION), sports_pixels, 'c3d', SPORTS, width=1 / 8
  ),
  'c3d_caffemodel': Case(
    c3d, lambda path, of: save_caffe(path, of, schema='c3d'), sports_pixels, 'c3d', SPORTS, width=1 / 8
  ),
}

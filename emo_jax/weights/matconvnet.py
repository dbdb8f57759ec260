"""MatConvNet's files of weights (step: published weights): the layers of a simple network and its average image."""

import os
from typing import Any, NamedTuple

import numpy as np

from emo_jax.weights import matlab
from emo_jax.weights.caffe import Layer
from emo_jax.weights.untrusted import opened


class Network(NamedTuple):
  """A file.

  Attributes:
    layers: in order; kinds are MatConvNet's ('conv', 'relu', 'normalize', 'pool', 'softmax'), blobs a kernel
      [h, w, I / groups, O] and a bias [O], or none.
    average: of the images that the network was trained on, RGB pixels of 0 to 255, [h, w, 3] or [3]; None if absent.
  """

  layers: list[Layer]
  average: np.ndarray | None


def read(path: str | os.PathLike[str]) -> Network:
  """The network of a .mat: of the first releases ('filters', 'normalization') or later ones ('weights', 'meta').

  Raises:
    ValueError: the file is cut off, damaged or of another kind.
  """
  with opened(path, "a MatConvNet network in MATLAB's format 5") as data:
    variables = matlab.read(data, ('layers', 'meta', 'normalization'))
    layers = variables.get('layers')
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
      raise ValueError("it has no cell array 'layers' of structs (a DagNN? simple networks only)")
    meta = variables.get('meta') or variables
    return Network([_layer(layer) for layer in layers], _average(meta.get('normalization') or {}))


def _layer(fields: dict[str, Any]) -> Layer:
  name = str(fields.get('name') or '')
  weights = fields.get('weights')
  blobs = [fields[key] for key in ('filters', 'biases') if key in fields] if weights is None else weights
  if len(blobs) == 0:
    return Layer(name, str(fields.get('type')), ())
  if len(blobs) != 2 or not all(isinstance(blob, np.ndarray) and blob.dtype.kind == 'f' for blob in blobs):
    raise ValueError(f'layer {name!r} has other weights than a kernel and a bias')
  kernel, bias = blobs
  kernel = kernel.reshape(kernel.shape + (1,) * (4 - kernel.ndim))  # MATLAB drops ones at the end
  if kernel.ndim != 4 or bias.size != kernel.shape[3]:
    raise ValueError(f'layer {name!r} has a kernel of shape {kernel.shape} and a bias of shape {bias.shape}')
  return Layer(name, str(fields.get('type')), (kernel, bias.ravel()))


def _average(normalization: dict[str, Any]) -> np.ndarray | None:
  average = normalization.get('averageImage')
  if average is None:
    return None
  if not isinstance(average, np.ndarray) or (average.size != 3 and (average.ndim != 3 or average.shape[2] != 3)):
    raise ValueError(f'its average image is not [h, w, 3] or [3] but {getattr(average, "shape", average)}')
  return average.ravel() if average.size == 3 else average

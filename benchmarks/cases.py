"""What train_step.py and features.py compare: networks, batches, precisions; JAX's side of what they share."""

import functools
import importlib
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from benchmarks import race, tables
from configs import default

NETWORK = flags.DEFINE_list('network', ['alexnet', 'alexnet_caffe', 'c3d'], 'Of NETWORKS, in benchmarks/cases.py.')
PRECISION = flags.DEFINE_list('precision', None, 'float32, bfloat16; as a rule float32, on a GPU both.')
BATCH = flags.DEFINE_integer('batch', None, "Rows a step; as a rule the config's, of c3d on a CPU 4.", lower_bound=1)

NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {  # modality, config, what is changed
  'alexnet': ('audio', 'default', {}),
  'alexnet_caffe': ('audio', 'default', {'form': 'caffe', 'size': 227}),
  'alexnet_slim': ('audio', 'java_sed', {}),
  'c3d': ('visual', 'default', {}),
  'c3d_slim': ('visual', 'java_sed', {}),
}
CLASSES = 6
JAX = ('jax', 'flax', 'optax', 'emo_jax.training.modalities')


class Case(NamedTuple):
  """What is compared; the same for all sides. With batch 0 it is the config's."""

  network: str
  precision: str
  batch: int
  device: str
  threads: int


def config_of(case: Case) -> Any:
  """The whole config; the case's network is trained as configs/default.py trains."""
  modality, name, changes = NETWORKS[case.network]
  config = importlib.import_module(f'configs.{name}').get_config()
  config[modality].update({**changes, 'precision': case.precision, 'batch': case.batch or config[modality].batch})
  config[modality].optim = default.get_config()[modality].optim
  return config


def settings(case: Case) -> tuple[str, Any]:
  """The case's modality, audio or visual, and its part of the config."""
  modality = NETWORKS[case.network][0]
  return modality, config_of(case)[modality]


def random_batch(case: Case) -> tuple[np.ndarray, np.ndarray]:
  """Images as the first layer takes them, float32 [B, (16,) h, w, 3], and labels, int32 [B]."""
  modality, config = settings(case)
  shape = (case.batch, *((16,) if modality == 'visual' else ()), config.size, config.size, 3)
  random = np.random.default_rng(0)
  return random.standard_normal(shape, np.float32), random.integers(CLASSES, size=case.batch, dtype=np.int32)


def layer_operations(model: Any, params: Any, images: np.ndarray) -> list[int]:
  """FLOPs of a forward pass, layer by layer: two for each weight and each place that it is used at."""
  import jax
  from flax import traverse_util

  apply = lambda params: model.apply({'params': params}, images, capture_intermediates=True, mutable=['intermediates'])
  outputs = traverse_util.flatten_dict(jax.eval_shape(apply, params)[1]['intermediates'])
  kernels = {path[:-1]: kernel for path, kernel in traverse_util.flatten_dict(params).items() if path[-1] == 'kernel'}
  places = {path: math.prod(outputs[(*path, '__call__')][0].shape[:-1]) for path in kernels}
  return [2 * places[path] * kernels[path].size for path in sorted(kernels)]  # conv1 is first, fc8 last


def ours(case: Case) -> tuple[Any, dict[str, Any], dict[str, Any]]:
  """The project's network on images that are ready, its variables, and facts for the table."""
  import jax

  from emo_jax.training import modalities, supervised

  modality, config = settings(case)
  model = modalities.MODALITIES[modality](config, classes=CLASSES).model
  images, _ = random_batch(case)
  params = jax.jit(model.init)(jax.random.key(0), images[:1])['params']
  forward: Any = lambda variables, x, keys: model.apply({'params': variables['params']}, x, keys)
  network = supervised.build(forward, lambda x: x, config.optim)
  facts = {
    'operations': layer_operations(model, params, images),
    'device': jax.local_devices()[0].device_kind,
    'matmul': str(jax.config.values['jax_default_matmul_precision']),
  }
  return network, {'params': params, 'statistics': {}}, facts


def stepping(network: Any, variables: Any, optim_config: Any, images: np.ndarray, labels: np.ndarray) -> race.Run:
  """The project's training step on one batch that lies on the device."""
  import jax

  from emo_jax.training import optim, parallel

  count, opt = len(images), optim.direction(optim_config).init(variables['params'])
  state, key = parallel.replicate(
    ({**variables, 'opt': opt, 'step': np.int32(0), 'steps': np.int32(1)}, jax.random.key(0))
  )
  rows = {'row': np.arange(count, dtype=np.int32), 'mask': np.ones(count, np.float32)}
  batch = parallel.shard({'input': images, 'label': labels.astype(np.int32), **rows})

  def run(steps: int) -> None:
    nonlocal state
    for _ in range(steps):
      state, _ = network.train_step(state, batch, key)
    jax.block_until_ready(state)

  return run


def runner(case: Case, run: race.Run, facts: dict[str, Any]) -> race.Runner:
  """JAX's side."""
  return race.Runner(run, race.memory_of('jax', case.device), lambda: _product_rate(case), facts)


def _product_rate(case: Case) -> float:
  import jax

  size = 8192 if case.device == 'gpu' else 2048
  matrix = jax.random.normal(jax.random.key(0), (size, size), case.precision)
  product = jax.jit(lambda x: x @ x)

  def run(steps: int) -> None:
    for _ in range(steps):
      made = product(matrix)
    made.block_until_ready()

  return race.product_rate(run, size)


def pytorch(kind: str, compiled: bool, case: Case, known: dict[str, Any]) -> race.Runner:
  """PyTorch's side."""
  from benchmarks import peers  # which imports PyTorch

  return peers.make(kind, case, known, compiled=compiled)


def cases() -> list[Case]:
  """As the flags say.

  Raises:
    ValueError: an unknown network or precision.
  """
  gpu = race.DEVICE.value == 'gpu'
  precisions = PRECISION.value or (['bfloat16', 'float32'] if gpu else ['float32'])
  for name, values, known in (('network', NETWORK.value, NETWORKS), ('precision', precisions, tables.DATA_SHEET)):
    if set(values) - set(known):
      raise ValueError(f'--{name}={",".join(values)}: use some of {",".join(known)}')
  found = []
  for network, precision in itertools.product(NETWORK.value, precisions):
    case = Case(network, precision, BATCH.value or 0, race.DEVICE.value, race.THREADS.value)
    usual = 4 if network == 'c3d' and not gpu else settings(case)[1].batch
    found.append(case._replace(batch=case.batch or usual))
  return found


def compare(kind: str, make: Callable[[Case, dict[str, Any]], race.Runner]) -> None:
  """Prints a table a case: ours, made by `make`, against PyTorch."""
  sides = {
    'ours': race.Side(make, JAX),
    'PyTorch': race.Side(functools.partial(pytorch, kind, False), ('torch', 'benchmarks.peers')),
    'PyTorch compiled': race.Side(functools.partial(pytorch, kind, True), ('torch', 'benchmarks.peers')),
  }
  for case in cases():
    print(f'\n{kind}: {case.network}, batch {case.batch}, {case.precision}', flush=True)
    results = race.race(sides, case, race.REPEATS.value)
    if 'ours' not in results:
      tables.show(results)
      continue
    facts = results['ours'].facts
    layers = facts['operations']
    operations = sum(layers) if kind == 'extraction' else 3 * sum(layers) - layers[0]
    known = any(name in facts['device'] for name in ('H100', 'H200'))
    tables.show(results, operations=operations, peak_rate=tables.DATA_SHEET[case.precision] if known else 0.0)
    rates = ', '.join(f'{name} {result.rate / 1e9:.0f}' for name, result in results.items() if result.rate)
    told = f'  {operations / 1e9:.1f} GFLOP a step; GFLOP/s of a matrix product: {rates}; {facts["device"]}'
    print(told + f'; jax_default_matmul_precision {facts["matmul"]}', flush=True)
    tables.write(kind, case._asdict(), results, flops=operations)

"""Run by test_parallel.py in processes of its own: what a number of devices gives, into an .npz.

python devices_script.py RESULT.npz [COORDINATOR PROCESSES PROCESS]
"""

import pathlib
import sys
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from configs import default
from emo_jax import processes
from emo_jax.models import rbm
from emo_jax.models.dropout import dropout
from emo_jax.training import autoencoder, contrastive, loop, modalities, parallel, rngs, supervised

ROWS = 6  # not divisible by 4 devices
UNITS = rbm.Units('bernoulli', 'bernoulli')


class Losses(list):
  """Stands for Metrics: keeps the numbers."""

  def write(self, name: str, step: int, values: dict[str, float]) -> None:
    self.append(values)

  def flush(self) -> None:
    pass


def watched() -> tuple[Losses, loop.Watch]:
  losses = Losses()
  return losses, loop.Watch(losses, lambda *done: None, log_every=10, save_every=1000)


def uniform_draws() -> dict[str, np.ndarray]:
  """Draws of 6 rows padded to whole devices, as seen from inside a mapped step."""
  key = rngs.stream(0, 'draws')
  draw = lambda key, batch: jax.vmap(jax.random.uniform)(rngs.row_keys(key, 3, batch['row']))
  rows = np.zeros(parallel.rows_a_step(ROWS), np.int32)
  rows[:ROWS] = [4, 0, 5, 2, 1, 3]
  drawn = parallel.predict_step(draw)(parallel.replicate(key), parallel.shard({'row': parallel.own(rows)}))
  return {'uniform': drawn[:ROWS]}


def rbm_config(*, persistent: bool) -> Any:
  config = default.get_config().fusion.rbm
  of = {'batch': ROWS, 'epochs': 3, 'average_epochs': 1, 'init_scale': 0.1, 'persistent': persistent}
  config.update({**of, 'sparsity': {'cost': 0.1}})
  return config


def rbms(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """Three epochs of 6 and of 3 rows, CD and persistent CD; of the latter also where the chains are."""
  data, found = np.random.default_rng(0).uniform(size=(9, 20)).astype(np.float32), {}
  states, fit = [], loop.fit
  for kind in ('cd', 'pcd'):
    config, (losses, watch) = rbm_config(persistent=kind == 'pcd'), watched()
    layer = contrastive.build_layer(10, UNITS, config)
    of = {'config': config, 'seed': 0, 'names': ('rbm',), 'name': 'rbm', 'folder': folder / kind, 'watch': watch}
    with mock.patch.object(loop, 'fit', lambda *args, **named: states.append(fit(*args, **named)) or states[-1]):
      params = contrastive.train_rbm(data, data[:5], layer, **of)
    found |= {f'{kind}_{name}': value for name, value in params.items()}
    found[f'{kind}_errors'] = np.array([v['reconstruction_error'] for v in losses if 'reconstruction_error' in v])
    found[f'{kind}_monitors'] = np.array([v['free_energy_gap'] for v in losses if 'free_energy_gap' in v])
  return {**found, 'chains': states[-1]['chains']}


def last_row() -> dict[str, np.ndarray]:
  """The weights after one update on 8 rows and the error, and both with the last row changed."""
  data = np.random.default_rng(0).uniform(size=(8, 20)).astype(np.float32)
  config = rbm_config(persistent=False)
  step = contrastive.build_layer(10, UNITS, config).step

  def after(data: np.ndarray) -> np.ndarray:
    params = rbm.init(jax.random.key(0), 20, 10, scale=0.1)
    state = contrastive.initial_state(params, config=config, epoch_steps=1)
    state, key = parallel.replicate((state, rngs.stream(0, 'cd')))
    numbers = np.arange(8, dtype=np.int32)
    batch = {'input': data, 'mask': np.ones(8, np.float32), 'row': numbers, 'chain': numbers}
    state, sums = step(state, parallel.shard(parallel.own(batch)), key)
    return np.append(np.asarray(state['params']['weights']).ravel(), sums['reconstruction_error'])

  changed = data.copy()
  changed[7] = 1 - changed[7]
  return {'eight_rows': after(data), 'last_row_changed': after(changed)}


def fine_tuned(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """Five iterations of the unrolled stack on 7 rows, and where these rows lay."""
  data = np.random.default_rng(0).uniform(size=(7, 20)).astype(np.float32)
  losses, watch = watched()
  stack = [jax.tree.map(np.asarray, rbm.init(jax.random.key(0), 20, 10, scale=0.1))]
  (params,) = autoencoder.train(stack, (UNITS,), data, iterations=5, name='tune', folder=folder, watch=watch)
  spread, mask = parallel.spread_rows(data)
  where = np.array([shard.index[0].indices(len(spread))[:2] for shard in spread.addressable_shards])
  errors = np.array([values['reconstruction_error'] for values in losses])
  found = {'tuned_weights': params['weights'], 'tuned_errors': errors, 'tuned_from': stack[0]['weights']}
  return {**found, 'spread': np.asarray(spread), 'spread_mask': np.asarray(mask), 'spread_where': where}


def supervised_steps(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """A tiny AlexNet with dropout and masks: one step and five, and what it then predicts."""
  config = default.get_config().audio
  config.update({'width': 1 / 32, 'size': 63, 'norm': 'group', 'mask_time': 9, 'mask_mel': 9, 'optim': {'lr': 0.01}})
  model, network, *_ = modalities.audio(config, classes=3)
  rng = np.random.default_rng(0)
  sound = rng.normal(60, 10, size=(ROWS, 64, 20)).astype(np.float32)
  statistics = supervised.image_statistics(network, sound.__getitem__, ROWS, batch=4)
  statistics['gain'] = np.ones(3, np.float32)
  like = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 63, 63, 3)))['params']
  draw = lambda leaf: (rng.normal(size=leaf.shape) / np.sqrt(leaf.size / leaf.shape[-1])).astype(np.float32)
  variables = {'params': jax.tree.map(draw, like), 'statistics': statistics}
  labels, found = np.array([0, 1, 2, 0, 1, 2]), {}
  for epochs in (1, 5):  # an epoch is one step
    losses, watch = watched()
    fit = {'name': 'audio', 'folder': folder / str(epochs), 'watch': watch}
    of = {'batch': ROWS, 'epochs': epochs, 'optim_config': config.optim, 'seed': 0, 'names': ('audio',)}
    trained = supervised.train(network, variables, sound.__getitem__, labels, **of, **fit)
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(trained['params'])])
    found |= {f'params_{epochs}': flat, f'losses_{epochs}': np.array([values['loss'] for values in losses])}
  logits, features = supervised.predict(network, variables, sound.__getitem__, ROWS, batch=4)
  before = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(variables['params'])])
  return {**found, **statistics, 'params_0': before, 'logits': logits, 'features': features}


def in_parts(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """Four epochs of 4 and 3 rows with dropout: what is learnt from whole batches, and from 2 and 3 parts of each."""
  config, found = default.get_config().fusion.finetune.optim, {}
  config.lr = 0.1
  data = np.random.default_rng(0).normal(size=(7, 20)).astype(np.float32)
  params = {'kernel': np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)}
  forward = lambda variables, x, keys: (dropout(x, 0.3, keys, 0) @ variables['params']['kernel'], x)
  for parts in (1, 2, 3):
    losses, watch = watched()
    network = supervised.build(forward, jnp.asarray, config, accumulate=parts)
    fit = {'name': 'parts', 'folder': folder / str(parts), 'watch': watch}
    of = {'batch': 4, 'epochs': 4, 'optim_config': config, 'seed': 0, 'names': ('parts',)}
    variables = {'params': params, 'statistics': {}}
    trained = supervised.train(network, variables, data.__getitem__, np.arange(7) % 3, **of, **fit)
    found[f'kernel_{parts}'] = trained['params']['kernel'] - params['kernel']
    found[f'losses_in_{parts}'] = np.array([values['loss'] for values in losses])
  return found


def refusal() -> dict[str, np.ndarray]:
  """What shard says of 7 rows; '' if it takes them."""
  try:
    parallel.shard({'row': np.zeros(7), 'mask': np.zeros(8)})
  except ValueError as error:
    return {'refusal': np.array(str(error))}
  return {'refusal': np.array('')}


def votes() -> dict[str, np.ndarray]:
  """What comes of six votes: of all no, of the last process's yes at the third."""
  vote, last = parallel.agreement(), processes.number() == processes.count() - 1
  return {'votes': np.array([vote(turn == 2 and last) for turn in range(6)])}


def main() -> None:
  result = pathlib.Path(sys.argv[1])
  coordinator, count, number = sys.argv[2:] or ('', '0', '-1')
  processes.start(autodetect=False, coordinator=coordinator, count=int(count), number=int(number))
  folder = result.with_suffix('')
  with processes.ending():
    found = {**uniform_draws(), **rbms(folder / 'rbm'), **last_row(), **fine_tuned(folder / 'tune')}
    found |= {**supervised_steps(folder / 'audio'), **in_parts(folder / 'parts'), **refusal(), **votes()}
    if processes.lead():
      np.savez(result, devices=parallel.device_count(), rows=parallel.rows_a_step(ROWS), **found)


if __name__ == '__main__':
  main()

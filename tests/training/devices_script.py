"""Run by test_parallel.py in a process of its own: what a number of devices gives, into an .npz.

python devices_script.py RESULT.npz
"""

import pathlib
import sys
import tempfile
import types

import jax
import jax.numpy as jnp
import numpy as np

from emo_jax.models import rbm
from emo_jax.training import contrastive, loop, parallel, rngs, supervised

ROWS = 6  # not divisible by 4 devices
CD = {'lr': 0.1, 'momentum': (0.5,), 'weight_decay': 1e-3, 'cd_steps': 1, 'sample_visible': True}


class Losses(list):
  """Stands for Metrics: keeps the numbers."""

  def write(self, name: str, step: int, values: dict[str, float]) -> None:
    self.append(values)

  def flush(self) -> None:
    pass


def watched() -> tuple[Losses, loop.Watch]:
  losses = Losses()
  return losses, loop.Watch(losses, lambda steps: None, log_every=10, save_every=1000)


def uniform_draws() -> dict[str, np.ndarray]:
  """Draws of 6 rows padded to whole devices, as seen from inside a mapped step."""
  key = rngs.stream(0, 'draws')
  draw = lambda key, batch: jax.vmap(jax.random.uniform)(rngs.row_keys(key, 3, batch['row']))
  rows = np.zeros(parallel.rows_a_step(ROWS), np.int32)
  rows[:ROWS] = [4, 0, 5, 2, 1, 3]
  return {'uniform': parallel.predict_step(draw)(parallel.replicate(key), parallel.shard({'row': rows}))[:ROWS]}


def cd_updates(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """One CD update on 6 rows through train_rbm; the weights after one step on 8 rows, and with the last row changed."""
  data = np.random.default_rng(0).uniform(size=(8, 20)).astype(np.float32)
  config = types.SimpleNamespace(batch=ROWS, epochs=1, average_epochs=1, init_scale=0.1, **CD)
  _, watch = watched()
  fit = {'seed': 0, 'names': ('rbm',), 'name': 'rbm', 'folder': folder, 'watch': watch}
  params = contrastive.train_rbm(data[:ROWS], hidden=10, config=config, **fit)

  def after(data: np.ndarray) -> np.ndarray:
    params = rbm.init(jax.random.key(0), 20, 10, scale=0.1)
    zeros = jax.tree.map(jnp.zeros_like, params)
    whole = {'step': np.int32(0), 'epoch_steps': np.int32(1), 'average_from': np.int32(0)}
    state = {'params': params, 'velocity': zeros, 'average': jax.tree.map(jnp.zeros_like, params), **whole}
    state, key = parallel.replicate((state, rngs.stream(0, 'cd')))
    batch = {'input': data, 'mask': np.ones(8, np.float32), 'row': np.arange(8, dtype=np.int32)}
    state, sums = contrastive.cd_step(**CD)(state, parallel.shard(batch), key)
    return np.append(np.asarray(state['params']['weights']).ravel(), sums['reconstruction_error'])

  changed = data.copy()
  changed[7] = 1 - changed[7]
  cd = {f'cd_{name}': value for name, value in params.items()}
  return {**cd, 'eight_rows': after(data), 'last_row_changed': after(changed)}


def supervised_steps(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """A tiny AlexNet with dropout and masks: one step and five, and what it then predicts."""
  optim = types.SimpleNamespace(name='sgd', lr=0.01, momentum=0.9, weight_decay=5e-4, schedule='constant')
  audio = {'form': 'single', 'width': 1 / 32, 'size': 63, 'norm': 'group', 'dropout': 0.5, 'mask_time': 9}
  config = types.SimpleNamespace(**audio, mask_mel=9, optim=optim)
  network, model = supervised.audio_network(config, classes=3)
  rng = np.random.default_rng(0)
  sound = rng.normal(60, 10, size=(ROWS, 64, 20)).astype(np.float32)
  statistics = supervised.image_statistics(network, sound.__getitem__, ROWS, batch=4)
  like = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 63, 63, 3)))['params']
  draw = lambda leaf: (rng.normal(size=leaf.shape) / np.sqrt(leaf.size / leaf.shape[-1])).astype(np.float32)
  variables = {'params': jax.tree.map(draw, like), 'statistics': statistics}
  labels, found = np.array([0, 1, 2, 0, 1, 2]), {}
  for epochs in (1, 5):  # an epoch is one step
    losses, watch = watched()
    fit = {'name': 'audio', 'folder': folder / str(epochs), 'watch': watch}
    of = {'batch': ROWS, 'epochs': epochs, 'optim_config': optim, 'seed': 0, 'names': ('audio',)}
    trained = supervised.train(network, variables, sound.__getitem__, labels, **of, **fit)
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(trained['params'])])
    found |= {f'params_{epochs}': flat, f'losses_{epochs}': np.array([values['loss'] for values in losses])}
  logits, features = supervised.predict(network, variables, sound.__getitem__, ROWS, batch=4)
  before = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(variables['params'])])
  return {**found, **statistics, 'params_0': before, 'logits': logits, 'features': features}


def refusal() -> dict[str, np.ndarray]:
  """What shard says of 7 rows; '' if it takes them."""
  try:
    parallel.shard({'row': np.zeros(7), 'mask': np.zeros(8)})
  except ValueError as error:
    return {'refusal': np.array(str(error))}
  return {'refusal': np.array('')}


def main() -> None:
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    found = {**uniform_draws(), **cd_updates(folder / 'rbm'), **supervised_steps(folder / 'audio'), **refusal()}
  np.savez(sys.argv[1], devices=parallel.device_count(), rows=parallel.rows_a_step(ROWS), **found)


if __name__ == '__main__':
  main()

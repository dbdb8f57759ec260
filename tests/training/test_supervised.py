"""Tests of learning from labels: against softmax regression in numpy, resuming, statistics, prediction."""

import dataclasses
import json
import pathlib
import threading
import types
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emo_jax.models.c3d import C3D
from emo_jax.models.dropout import dropout
from emo_jax.training import batches, parallel, supervised

SGD = {'name': 'sgd', 'lr': 0.2, 'head_rate': 1.0, 'momentum': 0.9, 'weight_decay': 0.01, 'schedule': 'constant'}
OPTIM = types.SimpleNamespace(**SGD)
COUNT, CLASSES = 11, 3
INPUT = np.random.default_rng(0).normal(size=(COUNT, 4)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, CLASSES, COUNT)


def linear(variables: dict, x: jax.Array, keys: jax.Array | None) -> tuple[jax.Array, jax.Array]:
  return x @ variables['params']['kernel'] + variables['params']['bias'], x


def noisy(variables: dict, x: jax.Array, keys: jax.Array | None) -> tuple[jax.Array, jax.Array]:
  return linear(variables, dropout(x, 0.3, keys, 0), keys)


LOUD = types.SimpleNamespace(**{**SGD, 'lr': 3e38})


def poisoned(row: int) -> supervised.Read:
  """INPUT, one row of which is no number."""
  data = INPUT.copy()
  data[row, 1] = np.nan
  return data.__getitem__


NOISY = supervised.build(noisy, jnp.asarray, OPTIM)


def start() -> dict:
  kernel = np.random.default_rng(2).normal(size=(4, CLASSES)).astype(np.float32)
  return {'params': {'kernel': kernel, 'bias': np.zeros(CLASSES, np.float32)}, 'statistics': {}}


def train(network: supervised.Network, folder: pathlib.Path, watch: object, **of: object) -> dict:
  settings = {'batch': 4, 'epochs': 4, 'optim_config': OPTIM, 'seed': 0, 'names': ('toy',)}
  read = of.pop('read', INPUT.__getitem__)
  return supervised.train(network, start(), read, LABELS, **{**settings, **of}, name='toy', folder=folder, watch=watch)


def softmax(x: np.ndarray) -> np.ndarray:
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize('parts', [1, 2, 3, 8])
def test_training_equals_softmax_regression_in_numpy(
  tmp_path: pathlib.Path, watch: Callable, lines: Callable, parts: int
) -> None:
  network = supervised.build(linear, jnp.asarray, OPTIM, accumulate=parts)
  got = train(network, tmp_path / 'c', watch())['params']
  rows_at = batches.shuffled_rows(COUNT, 4, padded_to=4, seed=0, names=('toy',))
  want = {name: x.astype(np.float64) for name, x in start()['params'].items()}
  velocity, losses, accuracies = {name: np.zeros_like(x) for name, x in want.items()}, [], []
  for step in range(4 * 3):
    rows, mask = rows_at(step)
    rows = rows[mask > 0]  # the third batch of an epoch has 3 rows, and counts as 3
    x, truth = INPUT[rows], np.eye(CLASSES)[LABELS[rows]]
    p = softmax(x @ want['kernel'] + want['bias'])
    losses.append(-np.log((p * truth).sum(1)).mean())
    accuracies.append((p.argmax(1) == LABELS[rows]).mean())
    gradient = {'kernel': x.T @ (p - truth) / len(rows) + 0.01 * want['kernel'], 'bias': (p - truth).mean(0)}
    for name in want:
      velocity[name] = 0.9 * velocity[name] - 0.2 * gradient[name]
      want[name] = want[name] + velocity[name]
  for name in want:
    np.testing.assert_allclose(got[name], want[name], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose([line['loss'] for line in lines()], losses, rtol=1e-4)
  np.testing.assert_allclose([line['accuracy'] for line in lines()], accuracies, rtol=1e-5)


@pytest.mark.parametrize('parts', [2, 3])
def test_batches_taken_in_parts_have_the_same_draws(
  tmp_path: pathlib.Path, watch: Callable, lines: Callable, parts: int
) -> None:
  whole = train(NOISY, tmp_path / 'whole', watch(), held=held_rows())
  in_parts = supervised.build(noisy, jnp.asarray, OPTIM, accumulate=parts)
  got = train(in_parts, tmp_path / 'parts', watch(), held=held_rows())
  assert np.abs(whole['params']['kernel'] - start()['params']['kernel']).max() > 0.1
  np.testing.assert_allclose(got['params']['kernel'], whole['params']['kernel'], rtol=1e-4, atol=1e-5)
  numbers = np.array([list(line.values())[1:] for line in lines() if line['train'] == 'toy/epochs']).reshape(2, 4, 5)
  np.testing.assert_allclose(numbers[1], numbers[0], rtol=1e-4)  # losses and accuracies of both sides


def test_batches_taken_in_parts_need_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
  model, mapped, pmap = C3D(CLASSES, width=1 / 16), [], jax.pmap
  monkeypatch.setattr(parallel, '_mapped', lambda step, **of: pmap(step, axis_name=parallel.AXIS, **of))
  sum_step = parallel.sum_step
  monkeypatch.setattr(parallel, 'sum_step', lambda step: mapped.append(sum_step(step)) or mapped[-1])
  for parts in (1, 4):
    supervised.build(lambda of, x, keys: model.apply(of['params'], x / 255), jnp.asarray, OPTIM, accumulate=parts)
  shape = lambda *shape: jax.ShapeDtypeStruct((parallel.device_count(), 8, *shape), np.int32)
  batch = {'input': shape(16, 32, 32, 3), **{name: shape() for name in ('label', 'mask', 'row')}}
  params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 32, 32, 3)))
  shared = ({'params': params, 'statistics': {}, 'step': np.int32(0)}, jax.random.key(0), np.int32(0))
  fast = {'xla_backend_optimization_level': 0}  # of the compiler, not of what it makes; buffers are the same
  whole, quarter = (step.lower(shared, batch).compile(fast).memory_analysis().temp_size_in_bytes for step in mapped)
  assert quarter < 0.4 * whole


def test_no_parts_are_refused() -> None:
  with pytest.raises(ValueError, match='accumulate=0: a batch has 1 part or more'):
    supervised.build(linear, jnp.asarray, OPTIM, accumulate=0)


def halves(variables: dict, x: jax.Array, keys: jax.Array | None) -> tuple[jax.Array, jax.Array]:
  """`linear` computed in bfloat16, as the networks do it."""
  half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables['params'])
  return (x.astype(jnp.bfloat16) @ half['kernel'] + half['bias']).astype(jnp.float32), x


@pytest.mark.parametrize('parts', [1, 3])
def test_what_is_computed_in_bfloat16_is_summed_and_kept_in_float32(parts: int) -> None:
  slow = types.SimpleNamespace(**{**SGD, 'lr': 1e-3, 'weight_decay': 0.0})  # a step is less than bfloat16 resolves
  network = supervised.build(halves, jnp.asarray, slow, accumulate=parts)
  size = parallel.rows_a_step(9, parts=parts)
  rows, mask = batches.padded(np.arange(9), size)
  opt, step = supervised.optim.direction(slow).init(start()['params']), np.asarray(0, np.int32)
  state, key = parallel.replicate(({**start(), 'opt': opt, 'step': step, 'steps': step + 5}, jax.random.key(0)))
  batch = parallel.shard({'input': INPUT[rows], 'label': LABELS[rows].astype(np.int32), 'mask': mask, 'row': rows})
  types_before = jax.tree.map(lambda leaf: leaf.dtype, state)
  state, sums = network.train_step(state, batch, key)
  assert jax.tree.map(lambda leaf: leaf.dtype, state) == types_before
  assert {leaf.dtype for leaf in jax.tree.leaves((state['params'], state['opt'], sums))} == {np.dtype(np.float32)}
  kernel = start()['params']['kernel']
  p, truth = softmax(INPUT[:9] @ kernel), np.eye(CLASSES)[LABELS[:9]]
  want = -1e-3 * INPUT[:9].T @ (p - truth) / 9
  np.testing.assert_allclose(state['params']['kernel'] - kernel, want, rtol=0.05, atol=2e-6)
  np.testing.assert_allclose(sums['loss'], -np.log((p * truth).sum(1)).sum(), rtol=0.01)


@pytest.mark.parametrize('broken_at', [1, 5, 8])
def test_an_interrupted_training_ends_in_the_same_bytes(
  tmp_path: pathlib.Path, watch: Callable, broken_at: int
) -> None:
  whole = train(NOISY, tmp_path / 'whole', watch(save_every=3))
  calls = iter(range(100))

  def breaks(rows: np.ndarray) -> np.ndarray:
    if next(calls) == broken_at:
      raise OSError('the disk is gone')
    return INPUT[rows]

  with pytest.raises(OSError, match='the disk is gone'):
    train(NOISY, tmp_path / 'c', watch(save_every=3), read=breaks)
  resumed = train(NOISY, tmp_path / 'c', watch(save_every=3))
  for name in ('kernel', 'bias'):
    assert resumed['params'][name].tobytes() == whole['params'][name].tobytes()
    assert np.abs(whole['params'][name] - start()['params'][name]).max() > 0.01


def held_rows() -> supervised.Labelled:
  """Rows with labels that have nothing to do with them: their accuracy goes up and down, and often meets itself."""
  rng = np.random.default_rng(3)
  return rng.normal(size=(9, 4)).astype(np.float32).__getitem__, rng.integers(0, CLASSES, 9)


def test_the_epoch_with_the_most_held_rows_right_is_taken_the_earliest_of_equals(
  tmp_path: pathlib.Path, watch: Callable, lines: Callable
) -> None:
  got = train(NOISY, tmp_path / 'c', watch(), epochs=8, held=held_rows())
  written = lines()  # before the brute force writes its own
  epochs = [train(NOISY, tmp_path / str(e), watch(), epochs=e)['params'] for e in range(1, 9)]  # ends after each epoch
  x, labels = held_rows()[0](slice(None)), held_rows()[1]
  guesses = [softmax(x @ params['kernel'] + params['bias']) for params in epochs]
  accuracies = [(guess.argmax(1) == labels).mean() for guess in guesses]
  best = accuracies.index(max(accuracies))
  assert 0 < best < 7 and accuracies.count(max(accuracies)) > 1, 'the rows no longer tell the rules apart'
  for name in ('kernel', 'bias'):
    assert got['params'][name].tobytes() == epochs[best][name].tobytes()
  of_epochs = [line for line in written if line['train'] == 'toy/epochs']
  assert [line['step'] for line in of_epochs] == list(range(2, 24, 3))
  np.testing.assert_allclose([line['held_accuracy'] for line in of_epochs], accuracies, rtol=1e-6)
  losses = [-np.log(guess[range(9), labels]).mean() for guess in guesses]
  np.testing.assert_allclose([line['held_loss'] for line in of_epochs], losses, rtol=1e-4)
  for which in ('loss', 'accuracy'):
    of_steps = np.array([line[which] for line in written if line['train'] == 'toy']).reshape(8, 3)
    means = of_steps @ [4, 4, 3] / COUNT  # the third batch of an epoch has 3 rows
    np.testing.assert_allclose([line[f'train_{which}'] for line in of_epochs], means, rtol=1e-5)


@pytest.mark.parametrize('broken_at', [4, 9, 14, 22])
def test_an_interrupted_choice_falls_on_the_same_bytes(tmp_path: pathlib.Path, watch: Callable, broken_at: int) -> None:
  settings = {'epochs': 8, 'held': held_rows()}  # 24 steps
  whole = train(NOISY, tmp_path / 'whole', watch(), **settings)
  calls = iter(range(100))

  def breaks(rows: np.ndarray) -> np.ndarray:
    if next(calls) == broken_at:
      raise OSError('the disk is gone')
    return INPUT[rows]

  with pytest.raises(OSError, match='the disk is gone'):
    train(NOISY, tmp_path / 'c', watch(save_every=4), **settings, read=breaks)
  resumed = train(NOISY, tmp_path / 'c', watch(save_every=4), **settings)
  for name in ('kernel', 'bias'):
    assert resumed['params'][name].tobytes() == whole['params'][name].tobytes()


def test_draws_hang_on_seed_and_names(tmp_path: pathlib.Path, watch: Callable) -> None:
  settings = [{}, {'seed': 1}, {'names': ('toy', 1)}, {}]
  kernels = [
    train(NOISY, tmp_path / str(i), watch(), **of)['params']['kernel'].tobytes() for i, of in enumerate(settings)
  ]
  assert kernels[0] == kernels[3]
  assert len(set(kernels)) == 3


def test_a_diverging_training_is_stopped_with_its_name(tmp_path: pathlib.Path, watch: Callable) -> None:
  with pytest.raises(FloatingPointError, match=r'toy: parameters became inf at step 0, of .*a lower learning rate'):
    train(supervised.build(noisy, jnp.asarray, LOUD), tmp_path / 'c', watch(log_every=4), optim_config=LOUD)


@pytest.mark.parametrize('parts', [1, 2])
def test_a_row_that_is_not_finite_is_named_with_its_step_and_its_batch(
  tmp_path: pathlib.Path, watch: Callable, lines: Callable, parts: int
) -> None:
  read = poisoned(6)
  rows_at = batches.shuffled_rows(COUNT, 4, padded_to=4, seed=0, names=('toy',))
  step, rows = next((n, rows_at(n)[0]) for n in range(3) if 6 in rows_at(n)[0])
  watching = dataclasses.replace(watch(log_every=100, save_every=2), workdir=tmp_path)
  with pytest.raises(FloatingPointError, match=rf'toy: loss became nan at step {step}, of .*the very input of 6:'):
    train(supervised.build(linear, jnp.asarray, OPTIM, accumulate=parts), tmp_path / 'c', watching, read=read)
  told = json.loads((tmp_path / 'bad_batch.json').read_text())
  assert (told['train'], told['step'], told['what'], told['value']) == ('toy', step, 'loss', 'nan')
  assert {row['row']: row['input_finite'] for row in told['rows']} == {int(row): row != 6 for row in rows}
  assert [line['step'] for line in lines()] == list(range(step))


@pytest.mark.parametrize('parts', [1, 2])
def test_updates_left_out_leave_no_trace(
  tmp_path: pathlib.Path, watch: Callable, lines: Callable, capsys: pytest.CaptureFixture, parts: int
) -> None:
  """As in numpy, where the batch with the broken row is passed over; momentum and the epoch's sums too."""
  network = supervised.build(linear, jnp.asarray, OPTIM, accumulate=parts, nonfinite='skip')
  watching = dataclasses.replace(watch(save_every=2), workdir=tmp_path)
  got = train(network, tmp_path / 'c', watching, read=poisoned(6), held=held_rows(), epochs=3)['params']
  rows_at = batches.shuffled_rows(COUNT, 4, padded_to=4, seed=0, names=('toy',))
  want = {name: x.astype(np.float64) for name, x in start()['params'].items()}
  velocity, states, skipped = {name: np.zeros_like(x) for name, x in want.items()}, [], []
  for step in range(9):
    rows, mask = rows_at(step)
    rows = rows[mask > 0]
    if 6 in rows:
      skipped.append(step)
    else:
      x, truth = INPUT[rows], np.eye(CLASSES)[LABELS[rows]]
      p = softmax(x @ want['kernel'] + want['bias'])
      gradient = {'kernel': x.T @ (p - truth) / len(rows) + 0.01 * want['kernel'], 'bias': (p - truth).mean(0)}
      for name in want:
        velocity[name] = 0.9 * velocity[name] - 0.2 * gradient[name]
        want[name] = want[name] + velocity[name]
    if step % 3 == 2:
      states.append(dict(want))
  steps = [line for line in lines() if line['train'] == 'toy']
  assert len(skipped) == 3 and [line['step'] for line in steps if line['skipped']] == skipped
  assert all((line['loss'] is None) == bool(line['skipped']) for line in steps)
  assert all(line['train_loss'] > 0 for line in lines() if line['train'] == 'toy/epochs')  # of the other steps
  assert any(
    all(np.allclose(got[name], state[name], rtol=1e-4, atol=1e-5) for name in got) for state in states
  )  # the best epoch's
  few = ', '.join(map(str, skipped))
  assert f'toy: 3 of 9 updates were not finite and left out (steps {few})' in capsys.readouterr().err
  note = json.loads((tmp_path / 'provenance.jsonl').read_text())
  assert note == {'event': 'skipped', 'train': 'toy', 'updates': 9, 'steps': skipped}


def test_a_training_without_one_good_update_stops_all_the_same(tmp_path: pathlib.Path, watch: Callable) -> None:
  network = supervised.build(linear, jnp.asarray, LOUD, nonfinite='skip')
  with pytest.raises(FloatingPointError, match=r'parameters became inf at step 9, of .* updates of 10 steps had been'):
    train(network, tmp_path / 'c', watch(), optim_config=LOUD)
  with pytest.raises(FloatingPointError, match=r'at step 2, of .* updates of 3 steps had been'):  # all of 3
    train(network, tmp_path / 'd', watch(), optim_config=LOUD, epochs=1)


def test_a_training_that_skips_nothing_ends_in_the_same_bytes(tmp_path: pathlib.Path, watch: Callable) -> None:
  skipping = supervised.build(noisy, jnp.asarray, OPTIM, nonfinite='skip')
  one, other = (train(network, tmp_path / str(i), watch()) for i, network in enumerate((NOISY, skipping)))
  for name in ('kernel', 'bias'):
    assert one['params'][name].tobytes() == other['params'][name].tobytes()


def test_norms_are_those_of_the_gradient_and_of_the_new_parameters(
  tmp_path: pathlib.Path, watch: Callable, lines: Callable
) -> None:
  plain = types.SimpleNamespace(**{**SGD, 'momentum': 0.0, 'weight_decay': 0.0})
  got = train(supervised.build(linear, jnp.asarray, plain), tmp_path / 'c', watch(), optim_config=plain, epochs=1)
  whole = lambda params: np.concatenate([np.ravel(params[name]) for name in ('kernel', 'bias')])
  written = lines()
  assert np.isclose(written[-1]['parameter_norm'], np.linalg.norm(whole(got['params'])), rtol=1e-5)
  rows, _ = batches.shuffled_rows(COUNT, 4, padded_to=4, seed=0, names=('toy',))(0)
  p, truth = softmax(INPUT[rows] @ start()['params']['kernel']), np.eye(CLASSES)[LABELS[rows]]
  gradient = {'kernel': INPUT[rows].T @ (p - truth) / 4, 'bias': (p - truth).mean(0)}
  np.testing.assert_allclose(written[0]['gradient_norm'], np.linalg.norm(whole(gradient)), rtol=1e-4)


@pytest.mark.parametrize('batch', [1, 4, 11, 20])
def test_prediction_keeps_the_order_of_rows_and_drops_the_padding(batch: int) -> None:
  variables = start()
  logits, features = supervised.predict(NOISY, variables, INPUT.__getitem__, COUNT, batch=batch)
  np.testing.assert_array_equal(features, INPUT)  # nothing dropped out
  np.testing.assert_allclose(logits, INPUT @ variables['params']['kernel'], rtol=1e-4, atol=1e-5)


def test_prediction_reads_the_next_rows_while_a_step_runs_and_says_which_it_gives() -> None:
  size = parallel.rows_a_step(4)
  read = {first: threading.Event() for first in range(0, 5 * size, size)}
  number = iter(read)

  def noted(rows: np.ndarray) -> np.ndarray:
    read[int(rows[0])].set()
    return rows.astype(np.float32)

  def held_back(variables: dict, batch: dict) -> dict:
    first = next(number)
    for later in range(first, min(first + 3 * size, 5 * size), size):
      assert read[later].wait(30), f'rows {later} were not read while rows {first} were in use'
    return {'twice': 2 * np.asarray(batch['input']).ravel()}

  given = list(supervised.outputs(held_back, {}, noted, 5 * size - 1, batch=4))
  assert [first for first, _ in given] == list(read)
  np.testing.assert_array_equal(np.concatenate([of['twice'] for _, of in given]), 2 * np.arange(5 * size - 1))


def test_statistics_are_read_ahead_in_a_thread_that_ends_and_travel_as_they_are_read(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  faces = np.random.default_rng(0).integers(0, 256, size=(7, 2, 3, 3, 3), dtype=np.uint8)
  readers, sent, shard = [], [], parallel.shard

  def read(rows: np.ndarray) -> np.ndarray:
    readers.append(threading.current_thread())
    return faces[rows]

  monkeypatch.setattr(parallel, 'shard', lambda batch: sent.append(batch['input'].dtype) or shard(batch))
  network = supervised.build(linear, lambda x: x.astype(jnp.float32), OPTIM)
  got = supervised.image_statistics(network, read, 7, batch=3)
  np.testing.assert_allclose(got['mean'], faces.mean((0, 1)), rtol=1e-5)
  np.testing.assert_allclose(got['deviation'], faces.astype(np.float64).std((0, 1)), rtol=1e-4)
  first, *others = readers
  assert first is threading.current_thread() and len(set(others)) == 1 and not others[0].is_alive()
  assert set(sent) == {np.dtype(np.uint8)}  # a quarter of what floats would take


@pytest.mark.parametrize('network', [NOISY, supervised.build(noisy, jnp.asarray, OPTIM, accumulate=2)])
def test_nothing_crosses_between_host_and_device_unasked_in_training(
  tmp_path: pathlib.Path, watch: Callable, no_silent_transfers: Callable, network: supervised.Network
) -> None:
  state = {
    **start(),
    'opt': jax.device_get(supervised.optim.direction(OPTIM).init(start()['params'])),
    'step': np.asarray(0, np.int32),
    'steps': np.asarray(3, np.int32),
  }
  rows = np.arange(4 * parallel.device_count(), dtype=np.int32) % COUNT
  mask = np.ones(len(rows), np.float32)
  batch = {'input': INPUT[rows], 'label': LABELS[rows].astype(np.int32), 'mask': mask, 'row': rows}
  key, watching = jax.random.key(0), watch(save_every=2)
  with no_silent_transfers():
    state = supervised.loop.fit(
      network.train_step, state, lambda _: batch, key, steps=3, name='toy', folder=tmp_path / 'c', watch=watching
    )
  assert jnp.isfinite(state['params']['kernel']).all()

"""Tests of contrastive divergence: against loops in numpy, exact likelihoods and scikit-learn."""

import itertools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neural_network import BernoulliRBM

from configs import default
from emo_jax.models import rbm
from emo_jax.training import batches, contrastive, loop, parallel, rngs

NAMES = ('fusion', 0, 'rbm', 0)
DATA = np.random.default_rng(0).uniform(size=(10, 5)).astype(np.float32)
REAL = np.random.default_rng(1).normal(size=(10, 5)).astype(np.float32)
NOBODY = np.zeros((0, 5), np.float32)
SCRIPT = rbm.Units('probability', 'bernoulli')
TOYS = {
  'bernoulli': rbm.Units('bernoulli', 'bernoulli'),
  'script': SCRIPT,
  'gaussian': rbm.Units('gaussian', 'bernoulli'),
  'linear': rbm.Units('linear', 'bernoulli'),
  'linear top': rbm.Units('probability', 'linear'),
  'gaussian top': rbm.Units('gaussian', 'gaussian'),
}


def config(**of: object) -> Any:
  settings = default.get_config().fusion.rbm
  some = {'real_lr': 0.03, 'momentum': (0.5, 0.2, 0.0), 'weight_decay': 0.01, 'batch': 4, 'epochs': 5}
  settings.update({**some, 'average_epochs': 2, 'init_scale': 0.1, **of})
  return settings


def train(
  folder: pathlib.Path,
  watch: loop.Watch,
  data: np.ndarray = DATA,
  held: np.ndarray = NOBODY,
  *,
  hidden: int = 3,
  units: rbm.Units = SCRIPT,
  **of: object,
) -> rbm.Params:
  settings = config(**of)
  layer = contrastive.build_layer(hidden, units, settings)
  return contrastive.train_rbm(
    data, held, layer, config=settings, seed=0, names=NAMES, name='rbm', folder=folder, watch=watch
  )


def of_rbm(lines: Callable[[], list[dict]], name: str = 'rbm') -> list[dict]:
  return [line for line in lines() if line['train'] == name]


def sigmoid(x: np.ndarray) -> np.ndarray:
  return 1 / (1 + np.exp(-x))


class Machine:
  """An RBM in float64, by its equations."""

  def __init__(self, params: rbm.Params, units: rbm.Units):
    self.params, self.units = {name: np.asarray(x, np.float64) for name, x in params.items()}, units

  @property
  def variance(self) -> np.ndarray:
    return np.exp(self.params.get('log_variance', np.zeros(len(self.params['visible_bias']))))

  def up(self, visible: np.ndarray) -> np.ndarray:
    given = visible / self.variance @ self.params['weights'] + self.params['hidden_bias']
    return given if self.units.hidden in ('gaussian', 'linear') else sigmoid(given)

  def down(self, hidden: np.ndarray) -> np.ndarray:
    given = hidden @ self.params['weights'].T + self.params['visible_bias']
    return given if self.units.visible in ('gaussian', 'linear') else sigmoid(given)

  def drawn(self, mean: np.ndarray, side: str, keys: jax.Array, draw: int) -> np.ndarray:
    """The only thing shared with the code under test: its random numbers."""
    spread = jnp.asarray(self.variance if side == 'visible' else 1.0, jnp.float32)
    kind = getattr(self.units, side)
    return np.asarray(rbm.sample(jnp.asarray(mean, jnp.float32), kind, keys, draw, spread), np.float64)

  def statistics(self, visible: np.ndarray) -> rbm.Params:
    """The mean of -dE/d(parameter) over rows, hidden units at their means."""
    hidden, scaled = self.up(visible), visible / self.variance
    off = (visible - self.params['visible_bias']) ** 2 / (2 * self.variance)
    both = np.einsum('nv,vh,nh->nv', scaled, self.params['weights'], hidden)
    return {
      'weights': np.einsum('nv,nh->vh', scaled, hidden) / len(visible),
      'visible_bias': scaled.mean(0),
      'hidden_bias': hidden.mean(0),
      'log_variance': (off - both).mean(0),
    }


def rows_of(settings: Any, count: int, step: int) -> np.ndarray:
  """The rows of an update, padding left out."""
  if settings.shuffled:
    rows, mask = batches.shuffled_rows(count, settings.batch, padded_to=settings.batch, seed=0, names=NAMES)(step)
    return rows[mask > 0]
  first = step % -(-count // settings.batch) * settings.batch
  return np.arange(first, min(first + settings.batch, count))


def start_of(settings: Any, data: np.ndarray, hidden: int, units: rbm.Units) -> Machine:
  start = dict(rbm.init(rngs.stream(0, *NAMES, 'init'), data.shape[1], hidden, scale=settings.init_scale))
  if settings.bias_from_data:
    mean = data.mean(0)
    start['visible_bias'] = mean if units.visible in ('gaussian', 'linear') else np.log(mean / (1 - mean))
  if settings.learn_variance:
    start['log_variance'] = np.zeros(data.shape[1])
  return Machine(start, units)


def trajectory(settings: Any, data: np.ndarray, hidden: int, units: rbm.Units) -> tuple[list[rbm.Params], list[float]]:
  """Parameters after each update and the errors before it, update by update in float64."""
  machine, key = start_of(settings, data, hidden, units), rngs.stream(0, *NAMES, 'draws')
  chains, velocity = np.zeros((settings.batch, hidden)), dict.fromkeys(machine.params, 0.0)
  real, per_epoch, states, errors = {'gaussian', 'linear'}, -(-len(data) // settings.batch), [], []
  rate = settings.real_lr if real & set(units) else settings.lr
  for step in range(settings.epochs * per_epoch):
    rows = rows_of(settings, len(data), step)
    given = data[rows].astype(np.float64)
    owners = np.arange(settings.batch) if settings.persistent else rows  # of the draws
    keys = rngs.row_keys(key, jnp.int32(step), jnp.asarray(owners, jnp.int32))
    h = chains if settings.persistent else machine.drawn(machine.up(given), 'hidden', keys, 0)
    for turn in range(settings.cd_steps):
      v = machine.drawn(machine.down(h), 'visible', keys, 2 * turn + 1)
      h = machine.drawn(machine.up(v), 'hidden', keys, 2 * turn + 2)
    chains, rebuilt = h, machine.down(machine.up(given)) if settings.persistent else v
    errors.append(((given - rebuilt) ** 2).mean())
    data_side, model_side = machine.statistics(given), machine.statistics(v)
    rise = {name: data_side[name] - model_side[name] for name in machine.params}
    rise['weights'] -= settings.weight_decay * machine.params['weights']
    rise['hidden_bias'] -= settings.sparsity.cost * (data_side['hidden_bias'] - settings.sparsity.target)
    momentum = settings.momentum[min(step // per_epoch, len(settings.momentum) - 1)]
    velocity = {name: momentum * velocity[name] + rate * rise[name] for name in rise}
    machine = Machine({name: machine.params[name] + velocity[name] for name in rise}, units)
    states.append(machine.params)
  return states, errors


@pytest.mark.parametrize(
  ('kind', 'of'),
  [
    ('script', {}),
    ('script', {'momentum': (0.9,), 'average_epochs': 9, 'shuffled': False}),
    (
      'bernoulli',
      {'cd_steps': 2, 'average_epochs': 0, 'bias_from_data': True, 'sparsity': {'cost': 0.5, 'target': 0.2}},
    ),
    ('bernoulli', {'persistent': True, 'cd_steps': 2, 'sparsity': {'cost': 0.5}}),
    ('gaussian', {'cd_steps': 2, 'learn_variance': True, 'bias_from_data': True}),
    ('gaussian', {'persistent': True, 'learn_variance': True}),
    ('gaussian top', {'persistent': True}),
    ('linear top', {'bias_from_data': True, 'shuffled': False}),
  ],
)
def test_training_equals_the_equations_in_numpy(
  tmp_path: pathlib.Path, watch: Callable, lines: Callable, kind: str, of: dict
) -> None:
  units = TOYS[kind]
  data = REAL if units.visible == 'gaussian' else DATA
  got, settings = train(tmp_path / 'c', (watching := watch()), data, units=units, **of), config(**of)
  watching.metrics.flush()
  states, errors = trajectory(settings, data, 3, units)
  assert set(got) == set(states[0])
  last = states[-min(max(settings.average_epochs * 3, 1), len(states)) :]  # 3 updates an epoch
  for name in got:
    assert isinstance(got[name], np.ndarray)
    np.testing.assert_allclose(got[name], np.mean([state[name] for state in last], 0), atol=1e-5)
  np.testing.assert_allclose([line['reconstruction_error'] for line in of_rbm(lines)], errors, rtol=1e-4)


def test_a_step_is_compiled_once_for_all_folds(
  tmp_path: pathlib.Path, watch: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
  plain, traced = rbm.free_energy_gradient, []
  monkeypatch.setattr(rbm, 'free_energy_gradient', lambda *of: (traced.append(1), plain(*of))[1])
  layer = contrastive.build_layer(3, SCRIPT, config())
  of = {'config': config(), 'seed': 0, 'names': NAMES, 'name': 'rbm', 'watch': watch()}
  for rows in (10, 6):
    contrastive.train_rbm(DATA[:rows], NOBODY, layer, folder=tmp_path / str(rows), **of)
  assert len(traced) == 1  # data and samples at once


@pytest.mark.parametrize(
  ('kind', 'of', 'message'),
  [
    ('linear top', {'sparsity': {'cost': 0.5}}, r'sparsity\.cost=0\.5 is for binary hidden units, not linear'),
    ('linear top', {'persistent': True}, 'persistent'),  # nothing is drawn: all chains would be one
  ],
)
def test_what_units_cannot_do_is_refused(kind: str, of: dict, message: str) -> None:
  with pytest.raises(ValueError, match=rf'config\.fusion\.rbm\.{message}'):
    contrastive.build_layer(3, TOYS[kind], config(**of))


@pytest.mark.parametrize(
  ('broken_at', 'of'), [(2, {}), (8, {'persistent': True}), (13, {'persistent': True, 'learn_variance': True})]
)
def test_an_interrupted_training_ends_in_the_same_bytes(
  tmp_path: pathlib.Path,
  watch: Callable,
  power_cut: Callable,
  monkeypatch: pytest.MonkeyPatch,
  broken_at: int,
  of: dict,
) -> None:
  run = lambda name: train(tmp_path / name, watch(save_every=4), REAL, units=TOYS['gaussian'], **of)
  whole, shard, done = run('whole'), parallel.shard, []
  with power_cut(broken_at):
    run('c')
  monkeypatch.setattr(parallel, 'shard', lambda batch: (done.append(1), shard(batch))[1])
  resumed = run('c')
  assert len(done) == 15 - broken_at // 4 * 4  # from the checkpoint, not from the start
  for name in whole:
    assert resumed[name].tobytes() == whole[name].tobytes()


def test_what_a_checkpoint_has_behind_it_is_written_down(
  tmp_path: pathlib.Path, watch: Callable, lines: Callable, power_cut: Callable
) -> None:
  with power_cut(3):
    train(tmp_path / 'c', watch(save_every=3))
  assert [line['step'] for line in of_rbm(lines, 'rbm/monitor')] == [2]  # nobody would write it again


def test_values_that_are_not_finite_stop_the_training(tmp_path: pathlib.Path, watch: Callable) -> None:
  data = DATA.copy()
  data[3, 2] = np.nan
  with pytest.raises(FloatingPointError, match='rbm: reconstruction_error became nan at step'):
    train(tmp_path / 'c', watch(), data)


@pytest.mark.parametrize('persistent', [False, True])
def test_an_update_left_out_leaves_no_trace(
  tmp_path: pathlib.Path, watch: Callable, lines: Callable, persistent: bool
) -> None:
  """As if the batch had not been there: the state before it, chains and average too, but for its number."""
  settings, watching = config(persistent=persistent, shuffled=False, epochs=2), watch(log_every=1)
  layer = contrastive.build_layer(3, TOYS['bernoulli'], settings, nonfinite='skip')
  bad = DATA.copy()
  bad[5] = np.nan  # of the second batch
  of = {'config': settings, 'seed': 0, 'names': NAMES, 'name': 'rbm', 'size': parallel.rows_a_step(4)}
  course = contrastive.plan(bad, NOBODY, layer, **of, watch=watching)
  state, key = parallel.replicate((jax.device_get(course.state), course.key))
  taken = []
  for number in range(3):
    state, sums = layer.step(state, parallel.shard(course.batch_at(number)), key)
    taken.append(jax.device_get((state, sums)))
  assert [float(sums['skipped']) for _, sums in taken] == [0, 1, 0]
  first, second, third = (of_step for of_step, _ in taken)
  assert (first.pop('step'), second.pop('step'), third.pop('step')) == (1, 2, 3)
  same = lambda one, other: all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other)))
  assert same(first, second) and not same(second['params'], third['params'])
  assert ('chains' in first) == persistent


def states(units: int) -> np.ndarray:
  return np.array(list(itertools.product((0.0, 1.0), repeat=units)))


def unnormalised(params: rbm.Params, visible: np.ndarray) -> np.ndarray:
  """Log of the sum of exp(-E(v, h)) over all h."""
  params, hidden = {name: np.asarray(x, np.float64) for name, x in params.items()}, states(params['weights'].shape[1])
  values = (visible @ params['visible_bias'])[:, None] + hidden @ params['hidden_bias']
  return np.logaddexp.reduce(values + visible @ params['weights'] @ hidden.T, axis=1)


def log_partition(params: rbm.Params) -> float:
  return float(np.logaddexp.reduce(unnormalised(params, states(len(params['weights'])))))


def log_likelihood(params: rbm.Params, data: np.ndarray) -> float:
  """Mean exact log p(v), the partition function summed over all states."""
  return float(np.mean(unnormalised(params, data))) - log_partition(params)


BARS = np.array([[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1], [1, 1, 1, 1, 1, 1]], np.float32)


def learnt(folder: pathlib.Path, watch: loop.Watch, patterns: np.ndarray, updates: int, **of: object) -> float:
  """The exact likelihood of patterns after so many updates on them, 20 rows each."""
  data = np.repeat(patterns, 200 // len(patterns), 0)  # 10 updates an epoch
  of = {'weight_decay': 0.0, 'batch': 20, 'units': TOYS['bernoulli'], 'hidden': 6, **of}
  return log_likelihood(train(folder, watch, data, epochs=updates // 10, **of), patterns)


@pytest.mark.parametrize('cd_steps', [1, 5])
def test_the_exact_likelihood_of_the_data_rises(tmp_path: pathlib.Path, watch: Callable, cd_steps: int) -> None:
  run = lambda updates: learnt(
    tmp_path / str(updates), watch(log_every=500), BARS, updates, cd_steps=cd_steps, lr=0.2, average_epochs=1
  )
  likelihoods = [run(updates) for updates in (10, 300, 1000)]
  assert likelihoods[0] == pytest.approx(-6 * np.log(2), abs=0.3)  # to begin with, all states are alike
  assert likelihoods[1] > likelihoods[0] + 0.3
  assert likelihoods[2] > likelihoods[1] + 0.3
  assert likelihoods[2] < -np.log(4)  # the entropy of the data: no model can do better


def test_persistent_chains_learn_what_cd_1_does_not_see(tmp_path: pathlib.Path, watch: Callable) -> None:
  far = np.array([[1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]], np.float32)
  # CD-1's chains stay near the data, so what the model makes up far from it is never unlearnt.
  of = {'lr': 0.1, 'momentum': (0.0,), 'average_epochs': 50}
  cd, pcd = (
    learnt(tmp_path / str(kind), watch(log_every=500), far, 2000, persistent=kind, **of) for kind in (False, True)
  )
  assert pcd > cd + 0.3
  assert -np.log(4) - 0.25 < pcd < -np.log(4)


def test_hidden_units_reach_the_sparsity_target(tmp_path: pathlib.Path, watch: Callable) -> None:
  data = np.repeat(BARS, 5, 0)
  of = {'hidden': 8, 'batch': 20, 'epochs': 200, 'lr': 0.2, 'units': TOYS['bernoulli']}
  activity = {}
  for cost in (0.0, 20.0):
    params = train(tmp_path / str(cost), watch(log_every=500), data, sparsity={'target': 0.15, 'cost': cost}, **of)
    activity[cost] = sigmoid(data @ params['weights'] + params['hidden_bias']).mean(0)
  assert np.abs(activity[0.0] - 0.15).min() > 0.1
  np.testing.assert_allclose(activity[20.0], 0.15, atol=0.02)


def test_the_variance_of_the_data_is_learnt(tmp_path: pathlib.Path, watch: Callable) -> None:
  deviations = np.array([0.5, 1.0, 2.0])
  data = (np.random.default_rng(0).normal(size=(200, 3)) * deviations).astype(np.float32)
  of = {'batch': 200, 'epochs': 300, 'real_lr': 0.1, 'average_epochs': 150, 'learn_variance': True, 'init_scale': 1e-3}
  params = train(tmp_path / 'c', watch(log_every=500), data, hidden=1, units=TOYS['gaussian'], **of)
  hidden, weights = sigmoid(params['hidden_bias']), params['weights'][:, 0]
  variance = np.exp(params['log_variance']) + hidden * (1 - hidden) * weights**2  # given h, and of its mean
  np.testing.assert_allclose(variance, data.var(0), rtol=0.1)


def numpy_monitors(params: rbm.Params, rows: np.ndarray, units: rbm.Units, keys: jax.Array) -> dict[str, float]:
  """Each monitor by its equation; only the unit of a row that is flipped comes from the keys."""
  machine, rows = Machine(params, units), rows.astype(np.float64)
  bias = machine.params['visible_bias']

  def free_energy(visible: np.ndarray) -> np.ndarray:
    given = visible @ machine.params['weights'] + machine.params['hidden_bias']
    binary = units.visible not in ('gaussian', 'linear')
    return (-visible @ bias if binary else ((visible - bias) ** 2).sum(1) / 2) - np.log1p(np.exp(given)).sum(1)

  values = {'reconstruction_error': np.mean((rows - machine.down(machine.up(rows))) ** 2)}
  values['free_energy'] = free_energy(rows).mean()
  if units.visible not in ('gaussian', 'linear'):
    unit = [int(jax.random.randint(key, (), 0, rows.shape[1])) for key in keys]
    flipped = rows.copy()
    flipped[np.arange(len(rows)), unit] = 1 - flipped[np.arange(len(rows)), unit]
    change = free_energy(flipped) - free_energy(rows)
    values['pseudo_likelihood'] = np.mean(rows.shape[1] * np.log(sigmoid(change)))
  return values


@pytest.mark.parametrize('kind', ['script', 'gaussian'])
def test_every_epoch_is_monitored_on_training_and_held_rows(
  tmp_path: pathlib.Path, watch: Callable, lines: Callable, kind: str
) -> None:
  units, key = TOYS[kind], rngs.stream(0, *NAMES, 'monitor')
  data, held = (DATA, 1 - DATA[:7]) if kind == 'script' else (REAL, 2 * REAL[:7])
  train(tmp_path / 'c', (watching := watch()), data, held, units=units, epochs=3)
  watching.metrics.flush()
  after = trajectory(config(epochs=3), data, 3, units)[0][2::3]  # 3 updates an epoch
  found = of_rbm(lines, 'rbm/monitor')
  assert [line['step'] for line in found] == [2, 5, 8]
  for line, params in zip(found, after, strict=True):
    want = {
      f'{side}_{name}': value
      for side, rows in (('train', data), ('held', held))
      for name, value in numpy_monitors(params, rows, units, jax.random.split(key, len(rows))).items()
    }
    want['free_energy_gap'] = want['held_free_energy'] - want['train_free_energy']
    assert {name: line[name] for name in line if name not in ('train', 'step')} == pytest.approx(want, rel=1e-4)


def test_monitors_look_at_rows_evenly_spaced_and_do_without_held_ones(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(contrastive, 'MONITORED', 3)
  params = {'weights': np.zeros((1, 2)), 'visible_bias': np.ones(1), 'hidden_bias': np.zeros(2)}
  params = {name: x.astype(np.float32) for name, x in params.items()}
  data = np.array([[2.0], [9], [9], [9], [4], [9], [9], [9], [6]], np.float32)
  look = lambda held: contrastive.monitor_sides(params, data, held, jax.random.key(0), SCRIPT)
  alone, both = look(NOBODY[:, :1]), look(data[:2])
  assert alone['train_free_energy'] == pytest.approx(-4 - 2 * np.log(2))  # of rows 0, 4 and 8
  assert both['held_free_energy'] == pytest.approx(-5.5 - 2 * np.log(2))  # of both
  assert set(alone) == {'train_reconstruction_error', 'train_free_energy', 'train_pseudo_likelihood'}


def test_annealed_importance_sampling_gives_the_likelihood_of_both_sides(
  tmp_path: pathlib.Path, watch: Callable, lines: Callable
) -> None:
  held = np.random.default_rng(2).integers(0, 2, (9, 6)).astype(np.float32)
  of = {
    'ais': {'chains': 300, 'temperatures': 200},
    'batch': 20,
    'epochs': 30,
    'lr': 0.2,
    'units': TOYS['bernoulli'],
    'weight_decay': 0.0,
  }
  params = train(tmp_path / 'c', (watching := watch(log_every=500)), np.repeat(BARS, 50, 0), held, hidden=4, **of)
  watching.metrics.flush()
  (line,) = of_rbm(lines, 'rbm/likelihood')
  assert line['step'] == 299
  assert line['log_partition'] == pytest.approx(log_partition(params), abs=0.05)
  assert line['train_log_likelihood'] == pytest.approx(log_likelihood(params, BARS), abs=0.05)
  assert line['held_log_likelihood'] == pytest.approx(log_likelihood(params, held), abs=0.05)
  assert line['held_log_likelihood'] < line['train_log_likelihood'] - 1
  assert 0 < line['log_weights_deviation'] < 1


def test_digits_are_learnt_as_well_as_scikit_learn_learns_them(tmp_path: pathlib.Path, watch: Callable) -> None:
  data = (load_digits().data / 16).astype(np.float32)
  of = {'epochs': 7, 'batch': 10, 'average_epochs': 1, 'weight_decay': 0.0, 'momentum': (0.0,), 'init_scale': 0.01}
  units, of = TOYS['bernoulli'], of | {'persistent': True}  # scikit-learn's are persistent
  params = train(tmp_path / 'c', watch(log_every=200), data, hidden=64, units=units, **of)
  keys = jax.random.split(jax.random.key(0), len(data))
  ours = float(jnp.mean(rbm.pseudo_likelihood(params, jnp.asarray(data), keys, units)))
  sklearn = BernoulliRBM(n_components=64, learning_rate=0.1, batch_size=10, n_iter=7, random_state=0).fit(data)
  theirs = sklearn.score_samples(data).mean()
  assert ours == pytest.approx(-21, abs=1.5)
  assert ours > theirs - 1
  # The same estimate of the same parameters: only the units that happen to be flipped differ.
  sklearn.components_ = params['weights'].T
  sklearn.intercept_hidden_, sklearn.intercept_visible_ = params['hidden_bias'], params['visible_bias']
  assert sklearn.score_samples(data).mean() == pytest.approx(ours, abs=1.0)


KINDS = (SCRIPT, SCRIPT, TOYS['linear top'])


SETTINGS = config(epochs=2, average_epochs=1, bias_from_data=True)
LAYERS = [contrastive.build_layer(*of, SETTINGS) for of in zip((4, 3, 2), KINDS, strict=True)]


def train_stack(folder: pathlib.Path, watch: loop.Watch, held: np.ndarray = DATA[:2]) -> list[rbm.Params]:
  return contrastive.train_stack(DATA, held, LAYERS, config=SETTINGS, seed=0, name='toy', folder=folder, watch=watch)


def test_each_layer_sees_the_means_of_the_one_below(
  tmp_path: pathlib.Path, watch: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
  seen, plain = [], contrastive.train_rbm
  spy = lambda data, held, layer, **of: (seen.append((data, held, layer)), plain(data, held, layer, **of))[1]
  monkeypatch.setattr(contrastive, 'train_rbm', spy)
  stack = train_stack(tmp_path, watch())
  assert [(layer.hidden, layer.units) for *_, layer in seen] == list(zip((4, 3, 2), KINDS, strict=True))
  assert [layer['weights'].shape for layer in stack] == [(5, 4), (4, 3), (3, 2)]
  want = DATA
  for (data, held, _), layer, units in zip(seen, stack, KINDS, strict=True):
    np.testing.assert_allclose(data, want, rtol=1e-5)
    np.testing.assert_allclose(held, want[:2], rtol=1e-5)
    want = Machine(layer, units).up(want)


def test_nothing_of_the_held_rows_reaches_the_parameters(tmp_path: pathlib.Path, watch: Callable) -> None:
  poison = np.full((3, 5), np.nan, np.float32)
  sides = {'nobody': NOBODY, 'somebody': DATA[:3], 'poison': poison}
  stacks = [train_stack(tmp_path / name, watch(), held) for name, held in sides.items()]
  bytes_of = lambda stack: [layer[name].tobytes() for layer in stack for name in sorted(layer)]
  assert bytes_of(stacks[0]) == bytes_of(stacks[1]) == bytes_of(stacks[2])


def test_layers_that_are_done_are_not_trained_again(
  tmp_path: pathlib.Path, watch: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
  whole = train_stack(tmp_path / 'whole', watch())
  plain, trained = contrastive.train_rbm, []

  def breaks(data: np.ndarray, held: np.ndarray, layer: contrastive.Layer, **of: object) -> rbm.Params:
    trained.append(layer.hidden)
    if len(trained) == 2:
      raise OSError('the power is gone')
    return plain(data, held, layer, **of)

  ticks = []
  monkeypatch.setattr(contrastive, 'train_rbm', breaks)
  with pytest.raises(OSError, match='the power is gone'):
    train_stack(tmp_path / 'c', watch())
  resumed = train_stack(tmp_path / 'c', watch(ticks.append))
  assert trained == [4, 3, 3, 2]
  assert sum(ticks) == 3 * 2 * 3  # progress counts what was done before
  for layer, other in zip(resumed, whole, strict=True):
    assert all(layer[name].tobytes() == other[name].tobytes() for name in layer)


def test_layers_and_seeds_have_draws_of_their_own(tmp_path: pathlib.Path, watch: Callable) -> None:
  settings = config(epochs=1, lr=0.0, weight_decay=0.0)  # what is drawn at the start stays
  layers = [contrastive.build_layer(5, SCRIPT, settings)] * 2
  of = {'config': settings, 'name': 'toy', 'watch': watch()}
  stacks = [
    contrastive.train_stack(DATA, NOBODY, layers, seed=seed, folder=tmp_path / str(seed), **of) for seed in (0, 1)
  ]
  assert len({layer['weights'].tobytes() for stack in stacks for layer in stack}) == 4

"""Tests of folds side by side: against the same folds one by one, which test_contrastive.py holds to equations."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from configs import default
from emo_jax.models import rbm
from emo_jax.training import contrastive, loop, parallel, side_by_side

SCRIPT = pathlib.Path(__file__).with_name('side_by_side_script.py')
ROOT = pathlib.Path(__file__).parents[2]
COUNTS = (1, 2, 4)

UNIFORM = np.random.default_rng(0).uniform(size=(40, 6)).astype(np.float32)
NORMAL = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
SIZES, SEEDS = (10, 3, 7, 10), (0, 0, 1, 1)  # 3, 1, 2 and 3 updates an epoch
BINARY = rbm.Units('bernoulli', 'bernoulli')
MEANS = rbm.Units('probability', 'probability')


def config(**of: object) -> Any:
  settings = default.get_config().fusion.rbm
  some = {'real_lr': 0.03, 'momentum': (0.5, 0.2, 0.0), 'weight_decay': 0.01, 'batch': 4, 'epochs': 4}
  settings.update({**some, 'average_epochs': 2, 'init_scale': 0.1, **of})
  return settings


def folds_of(watch: loop.Watch, data: np.ndarray, name: str = 'together') -> list[side_by_side.Fold]:
  """Training rows of some sizes; as many held ones as the fold's number, none in the first."""
  first = np.cumsum((0, *SIZES))
  return [
    side_by_side.Fold(data[first[k] :][:size], data[-5:][:k], seed, f'{name}/{k}', watch)
    for k, (size, seed) in enumerate(zip(SIZES, SEEDS, strict=True))
  ]


def one_by_one(folder: pathlib.Path, folds: list[side_by_side.Fold], layers: list, settings: Any) -> list:
  return [
    contrastive.train_stack(
      fold.data,
      fold.held,
      layers,
      config=settings,
      seed=fold.seed,
      name=fold.name,
      folder=folder / str(k),
      watch=fold.watch,
    )
    for k, fold in enumerate(folds)
  ]


def assert_close(got: list, want: list, tolerance: float) -> None:
  assert jax.tree.structure(got) == jax.tree.structure(want)
  for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    assert isinstance(one, np.ndarray) and one.dtype == np.float32
    np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
  ('kinds', 'of'),
  [
    ((rbm.Units('probability', 'bernoulli'), rbm.Units('probability', 'linear')), {'bias_from_data': True}),
    ((BINARY,), {'persistent': True, 'sparsity': {'cost': 0.5}}),
    ((BINARY,), {'cd_steps': 2, 'shuffled': False, 'ais': {'chains': 5, 'temperatures': 10}}),
    ((rbm.Units('gaussian', 'bernoulli'),), {'learn_variance': True, 'average_epochs': 0}),
  ],
)
def test_folds_of_any_size_and_seed_learn_and_report_what_they_do_one_by_one(
  tmp_path: pathlib.Path, watch: Callable, lines: Callable, kinds: tuple[rbm.Units, ...], of: dict
) -> None:
  data, settings = NORMAL if kinds[0].visible == 'gaussian' else UNIFORM, config(**of)
  layers = [contrastive.build_layer(5 - number, units, settings) for number, units in enumerate(kinds)]
  watching = watch(log_every=3)
  got = side_by_side.train_stacks(folds_of(watching, data), layers, config=settings)
  want = one_by_one(tmp_path, folds_of(watching, data, 'apart'), layers, settings)
  assert_close(got, want, 1e-6)

  def written(by: str) -> dict[tuple[str, int], dict[str, float]]:
    some = [line for line in lines() if line['train'].startswith(f'{by}/')]
    found = {(line.pop('train').removeprefix(by), line.pop('step')): line for line in some}
    assert len(found) == len(some)
    return found

  together, apart = written('together'), written('apart')
  assert together.keys() == apart.keys()
  assert len(together) == len(kinds) * (4 * (9 + 4) + 4 * bool(of.get('ais')))  # updates, epochs, likelihoods
  for at, line in apart.items():
    assert together[at] == pytest.approx(line, rel=1e-4, abs=1e-5)


def test_long_trainings_stay_together_where_nothing_is_sampled(tmp_path: pathlib.Path, watch: Callable) -> None:
  settings, watching = config(epochs=150), watch(log_every=100)
  layers = [contrastive.build_layer(5, MEANS, settings)]
  got = side_by_side.train_stacks(folds_of(watching, UNIFORM), layers, config=settings)
  want = one_by_one(tmp_path, folds_of(watching, UNIFORM), layers, settings)
  assert np.abs(want[0][0]['weights']).max() > 0.5  # 450 updates have led somewhere
  assert_close(got, want, 1e-5)


def folds_update(masked: int) -> tuple[Any, Any, Any]:
  """States of three folds before an update, after it, and each after its own; the last fold's first rows are masked."""
  settings = config(persistent=True)
  layer, rows = contrastive.build_layer(5, BINARY, settings), np.arange(4, dtype=np.int32)
  before, batches, alone = [], [], []
  keys = jax.random.split(jax.random.key(3), 3)
  for k in range(3):
    params = rbm.init(jax.random.key(k), 6, 5, scale=1.0)
    state = jax.device_get(contrastive.initial_state(params, config=settings, epoch_steps=2))
    mask = np.where(rows < masked * (k == 2), 0, 1).astype(np.float32)
    batches.append({'input': UNIFORM[4 * k :][:4], 'mask': mask, 'row': rows + k, 'chain': rows})
    before.append({**state, 'step': np.int32(k)})
    if mask.any():
      placed = parallel.replicate((before[-1], keys[k]))
      alone.append(layer.step(placed[0], parallel.shard(batches[-1]), placed[1])[0])
  stacked = lambda trees: parallel.place_folds(jax.tree.map(lambda *leaves: np.stack(leaves), *trees))
  after, _ = layer.folds_step(stacked(before), stacked(batches), parallel.place_folds(keys))
  of_fold = lambda k: jax.tree.map(lambda leaf: np.asarray(leaf[k]), after)
  return before, [of_fold(k) for k in range(3)], jax.device_get(alone)


def test_draws_are_the_same_bits_and_updates_the_same_to_rounding() -> None:
  _, together, alone = folds_update(masked=3)
  assert len(alone) == 3
  for one, other in zip(together, alone, strict=True):
    assert one['chains'].tobytes() == other['chains'].tobytes() and set(np.unique(one['chains'])) == {0, 1}
    assert one['step'] == other['step']
    assert_close([one['params'], one['velocity']], [other['params'], other['velocity']], 1e-6)


def test_a_fold_without_rows_stays_as_it_is() -> None:
  before, together, _ = folds_update(masked=4)
  changed = [
    not all(np.array_equal(old, new) for old, new in zip(*map(jax.tree.leaves, pair), strict=True))
    for pair in zip(before, together, strict=True)
  ]
  assert changed == [True, True, False]


def test_a_fold_that_is_done_does_not_feel_longer_neighbours(watch: Callable) -> None:
  settings, watching = config(persistent=True), watch()
  layers = [contrastive.build_layer(5, BINARY, settings)]
  fold = lambda first, size: side_by_side.Fold(UNIFORM[first:][:size], UNIFORM[:0], 0, 'fold', watching)
  train = lambda *folds: jax.tree.leaves(side_by_side.train_stacks(folds, layers, config=settings)[0])
  short = fold(0, 3)
  for one, other in zip(train(short, fold(10, 4)), train(short, fold(10, 30)), strict=True):
    assert one.tobytes() == other.tobytes()


def test_each_fold_counts_its_own_updates(watch: Callable) -> None:
  settings, ticks = config(), [[] for _ in SIZES]
  layers = [contrastive.build_layer(5, BINARY, settings)]
  folds = [
    fold._replace(watch=watch(done.append)) for fold, done in zip(folds_of(watch(), UNIFORM), ticks, strict=True)
  ]
  side_by_side.train_stacks(folds, layers, config=settings)
  assert [sum(done) for done in ticks] == [12, 4, 8, 12]


def test_the_step_is_compiled_once_for_folds_of_all_sizes(watch: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
  plain, traced = rbm.free_energy_gradient, []
  monkeypatch.setattr(rbm, 'free_energy_gradient', lambda *of: (traced.append(1), plain(*of))[1])
  settings = config(epochs=1)
  layers = [contrastive.build_layer(5, BINARY, settings)]
  side_by_side.train_stacks(folds_of(watch(), UNIFORM), layers, config=settings)
  side_by_side.train_stacks(folds_of(watch(), UNIFORM[::-1]), layers, config=settings)
  assert len(traced) == 1


def test_the_fold_that_breaks_is_named(watch: Callable) -> None:
  folds, settings = folds_of(watch(), UNIFORM.copy()), config()
  folds[2].data[1, 1] = np.nan
  with pytest.raises(
    FloatingPointError, match=r'together/2/rbm0: reconstruction_error became nan at step .*input of 1: mend'
  ):
    side_by_side.train_stacks(folds, [contrastive.build_layer(5, BINARY, settings)], config=settings)
  settings = config(real_lr=1e30, epochs=1)  # no error is seen after the last update
  layers = [contrastive.build_layer(5, rbm.Units('linear', 'linear'), settings)]
  only_one = [fold._replace(data=fold.data[:3]) for fold in folds_of(watch(), 1e10 * NORMAL)[:2]]
  with pytest.raises(FloatingPointError, match='together/0/rbm0: gradient became inf at step 0'):
    side_by_side.train_stacks(only_one, layers, config=settings)


def test_a_fold_leaves_out_its_own_updates_alone(
  tmp_path: pathlib.Path, watch: Callable, lines: Callable, capsys: pytest.CaptureFixture
) -> None:
  settings, data = config(persistent=True), UNIFORM.copy()
  data[11, 1] = np.nan  # of the second fold, which has one update an epoch, all of them with this row
  data[27, 1] = np.nan  # of the fourth, in one of three
  layers = [contrastive.build_layer(5, BINARY, settings, nonfinite='skip')]
  folds = folds_of(watch(), data)
  good = [folds[k] for k in (0, 2, 3)]
  want = one_by_one(tmp_path, good, layers, settings)
  assert_close(side_by_side.train_stacks(good, layers, config=settings), want, 1e-6)
  assert 'together/3/rbm0: 4 of 12 updates were not finite and left out' in capsys.readouterr().err
  with pytest.raises(
    FloatingPointError, match=r'together/1/rbm0: .* became nan at step 3, .* updates of 4 steps|input of 1'
  ):
    side_by_side.train_stacks(folds, layers, config=settings)


@pytest.fixture(scope='module')
def found(on_devices: Callable[..., dict[int, dict[str, np.ndarray]]]) -> dict[int, dict[str, np.ndarray]]:
  """What side_by_side_script.py finds on each number of devices."""
  return on_devices(SCRIPT, COUNTS)


def test_folds_are_dealt_to_as_many_devices_as_divide_them(found: dict) -> None:
  assert [int(of['devices']) for of in found.values()] == list(COUNTS)
  assert [of['spread'].tolist() for of in found.values()] == [[1] * 5, [1, 2, 1, 2, 2], [1, 4, 1, 3, 4]]
  assert [int(of['used']) for of in found.values()] == [1, 2, 3]  # six folds stay where they were dealt to


@pytest.mark.parametrize('count', COUNTS[1:])
def test_any_number_of_devices_gives_the_same(found: dict, count: int) -> None:
  assert found[1]['weights'].shape == (6, 20, 10) and set(np.unique(found[1]['chains'])) == {0, 1}
  np.testing.assert_array_equal(found[count]['chains'], found[1]['chains'])
  for name in ('weights', 'visible_bias', 'hidden_bias'):
    np.testing.assert_allclose(found[count][name], found[1][name], rtol=0, atol=1e-6)


@pytest.mark.parametrize('count', COUNTS[1:])
def test_devices_exchange_nothing(found: dict, count: int) -> None:
  assert int(found[count]['exchanges']) == 0

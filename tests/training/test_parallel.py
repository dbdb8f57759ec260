"""Tests of many devices: the same run on 1, 2 and 4 fake devices, each in a process of its own, and on 2 processes with
2 devices each.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from emo_jax.training import parallel

SCRIPT = pathlib.Path(__file__).with_name('devices_script.py')
ROOT = pathlib.Path(__file__).parents[2]
COUNTS = (1, 2, 4, (2, 2))  # devices, or (processes, devices of each)


@pytest.fixture(scope='module')
def found(on_devices: Callable[..., dict[Any, dict[str, np.ndarray]]]) -> dict[Any, dict[str, np.ndarray]]:
  """What devices_script.py finds on each number of devices."""
  return on_devices(SCRIPT, COUNTS)


def test_rows_are_rounded_up_to_whole_devices(found: dict) -> None:
  assert [(int(of['devices']), int(of['rows'])) for of in found.values()] == [(1, 6), (2, 6), (4, 8), (2, 8)]


@pytest.mark.parametrize('count', COUNTS[1:])
def test_uniform_draws_are_the_same_bits(found: dict, count: Any) -> None:
  assert len(set(found[1]['uniform'])) == 6
  assert found[count]['uniform'].tobytes() == found[1]['uniform'].tobytes()


@pytest.mark.parametrize('count', COUNTS[1:])
@pytest.mark.parametrize('kind', ['cd', 'pcd'])
def test_updates_of_an_rbm_are_the_same(found: dict, count: int, kind: str) -> None:
  assert found[1][f'{kind}_errors'].shape == (6,) and found[1][f'{kind}_monitors'].shape == (3,)
  assert np.abs(found[1][f'{kind}_hidden_bias']).max() > 1e-3
  for name in ('weights', 'visible_bias', 'hidden_bias', 'errors', 'monitors'):
    np.testing.assert_allclose(found[count][f'{kind}_{name}'], found[1][f'{kind}_{name}'], atol=1e-5)


@pytest.mark.parametrize('count', COUNTS[1:])
def test_persistent_chains_are_the_same_bits(found: dict, count: Any) -> None:
  # As many as the batch has rows, however many devices there are: any number of them goes on from a checkpoint.
  assert len({chain.tobytes() for chain in found[1]['chains']}) == 6 and set(np.unique(found[1]['chains'])) == {0, 1}
  np.testing.assert_array_equal(found[count]['chains'], found[1]['chains'])


@pytest.mark.parametrize('count', COUNTS[1:])
def test_full_batch_fine_tuning_is_the_same(found: dict, count: Any) -> None:
  assert np.abs(found[1]['tuned_weights'] - found[1]['tuned_from']).max() > 0.05
  np.testing.assert_allclose(found[count]['tuned_errors'], found[1]['tuned_errors'], rtol=1e-5)
  np.testing.assert_allclose(found[count]['tuned_weights'], found[1]['tuned_weights'], atol=1e-4)


@pytest.mark.parametrize('count', COUNTS)
def test_all_rows_are_spread_evenly(found: dict, count: Any) -> None:
  of, size = found[count], 7 if count == 1 else 8
  devices = count[1] if isinstance(count, tuple) else count  # each process has all rows, on its own devices
  np.testing.assert_array_equal(of['spread'][:7], np.random.default_rng(0).uniform(size=(7, 20)).astype(np.float32))
  assert not of['spread'][7:].any()
  assert of['spread_mask'].tolist() == ([1.0] * 7 + [0.0])[:size]
  assert of['spread_where'].tolist() == [[k * size // devices, (k + 1) * size // devices] for k in range(devices)]


@pytest.mark.parametrize('count', COUNTS)
def test_the_last_devices_rows_count(found: dict, count: Any) -> None:
  of = found[count]
  assert np.abs(of['last_row_changed'] - of['eight_rows'])[:-1].max() > 1e-3  # weights
  assert np.abs(of['last_row_changed'] - of['eight_rows'])[-1] > 1e-3  # the reported error


@pytest.mark.parametrize('count', COUNTS[1:])
def test_one_supervised_step_and_the_first_losses_are_the_same(found: dict, count: Any) -> None:
  assert np.abs(found[1]['params_1'] - found[1]['params_0']).max() > 1e-2
  np.testing.assert_allclose(found[count]['params_1'], found[1]['params_1'], atol=1e-5)
  assert found[1]['losses_5'].shape == (5,) and found[1]['losses_5'].std() > 0.1
  np.testing.assert_allclose(found[count]['losses_5'], found[1]['losses_5'], atol=1e-5)
  np.testing.assert_array_equal(found[count]['losses_5'][:1], found[count]['losses_1'])


@pytest.mark.parametrize('count', COUNTS)
def test_batches_taken_in_parts_give_the_same_updates(found: dict, count: Any) -> None:
  whole, losses = found[1]['kernel_1'], found[1]['losses_in_1']
  assert np.abs(whole).max() > 0.1 and losses.shape == (8,) and losses.std() > 0.1
  for parts in (1, 2, 3):
    np.testing.assert_allclose(found[count][f'kernel_{parts}'], whole, atol=1e-5)
    np.testing.assert_allclose(found[count][f'losses_in_{parts}'], losses, rtol=1e-5)


@pytest.mark.parametrize('count', COUNTS[1:])
def test_statistics_and_predictions_are_the_same(found: dict, count: Any) -> None:
  for name in ('mean', 'deviation', 'logits', 'features'):
    np.testing.assert_allclose(found[count][name], found[1][name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('count', COUNTS)
def test_all_processes_agree_to_stop_one_step_after_one_of_them_asks(found: dict, count: Any) -> None:
  heard = 3 if isinstance(count, tuple) else 2  # by itself a process hears at once
  assert found[count]['votes'].tolist() == [turn == heard for turn in range(6)]


def test_rows_that_do_not_divide_are_refused(found: dict) -> None:
  for count in COUNTS[1:]:
    message = str(found[count]['refusal'])
    assert message.startswith(f"rows {{'row': 7}} do not divide by {found[count]['devices']} devices")
    assert 'rows_a_step' in message
  assert str(found[1]['refusal']) == ''


@pytest.mark.parametrize(
  ('devices', 'parts', 'batch', 'rows'),
  [(1, 1, 30, 30), (4, 1, 30, 32), (4, 1, 32, 32), (8, 1, 1, 8), (1, 4, 30, 32), (2, 3, 30, 30), (4, 3, 30, 36)],
)
def test_a_batch_is_rounded_up(
  monkeypatch: pytest.MonkeyPatch, devices: int, parts: int, batch: int, rows: int
) -> None:
  monkeypatch.setattr(parallel, 'device_count', lambda: devices)
  assert parallel.rows_a_step(batch, parts=parts) == rows


def test_rows_are_dealt_in_order_and_gathered_again() -> None:
  rows = 3 * parallel.device_count()
  x = np.arange(rows * 4, dtype=np.float32).reshape(rows, 2, 2)
  dealt = parallel.shard({'x': x})['x']
  assert dealt.shape == (parallel.device_count(), 3, 2, 2)
  double = parallel.predict_step(lambda variables, batch: {'y': variables * batch['x']})
  got = double(parallel.replicate(np.float32(2)), {'x': dealt})['y']
  assert isinstance(got, np.ndarray)
  np.testing.assert_array_equal(got, 2 * x)


def test_sums_run_over_all_rows() -> None:
  rows = 3 * parallel.device_count()
  x = np.arange(rows, dtype=np.float32)
  step = parallel.sum_step(lambda factor, batch: factor * batch['x'].sum())
  assert float(step(parallel.replicate(np.float32(3)), parallel.shard({'x': x}))) == 3 * rows * (rows - 1) / 2


def test_provenance_says_what_it_ran_on() -> None:
  device = jax.devices()[0]
  want = {'platform': device.platform, 'kind': device.device_kind, 'devices': len(jax.devices()), 'processes': 1}
  assert parallel.describe() == want

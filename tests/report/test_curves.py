"""Learning curves: every line of a stage's folder counts once, under the fold of this experiment."""

import json
import pathlib
import types
from typing import Any

import numpy as np
import pytest

from emo_jax.report import curves


def experiment(folder: pathlib.Path, lines: dict[str, list[list[dict[str, Any]] | None]]) -> Any:
  """Stage -> of each fold its lines; None for a folder without metrics.jsonl."""
  made: dict[str, list[pathlib.Path]] = {}
  for stage, folds in lines.items():
    for number, of_fold in enumerate(folds):
      made.setdefault(stage, []).append(folder / stage / str(number))
      made[stage][number].mkdir(parents=True)
      if of_fold is not None:
        text = ''.join(json.dumps(line) + '\n' for line in of_fold)
        (made[stage][number] / 'metrics.jsonl').write_text(text)
  return types.SimpleNamespace(made=made)


def losses(train: str, *values: tuple[int, float]) -> list[dict[str, Any]]:
  return [{'train': train, 'step': step, 'loss': loss} for step, loss in values]


def test_trainings_and_folds_are_told_apart(tmp_path: pathlib.Path) -> None:
  monitor = [{'train': 'fusion/fold_1/rbm0/monitor', 'step': 4, 'train_free_energy': -2.5, 'free_energy_gap': 0.5}]
  x = experiment(
    tmp_path,
    {
      'prepare': [None],
      'audio_net': [losses('audio_net/fold_0', (0, 1.5), (1, 1.25)), losses('audio_net/fold_1', (0, 2.0))],
      'features': [None, None],
      'fusion': [None, losses('fusion/fold_1/rbm0', (0, 3.0)) + monitor],
      'decide/audio': [None, None],
    },
  )
  assert curves.read(x) == {
    'audio_net': {'fold_0': {'loss': [(0, 1.5), (1, 1.25)]}, 'fold_1': {'loss': [(0, 2.0)]}},
    'fusion/rbm0': {'fold_1': {'loss': [(0, 3.0)]}},
    'fusion/rbm0/monitor': {'fold_1': {'train_free_energy': [(4, -2.5)], 'free_energy_gap': [(4, 0.5)]}},
  }


def test_a_folder_from_another_split_stands_under_this_ones_fold(tmp_path: pathlib.Path) -> None:
  x = experiment(tmp_path, {'visual_net': [None, losses('visual_net/fold_7', (0, 1.0))]})
  assert curves.read(x) == {'visual_net': {'fold_1': {'loss': [(0, 1.0)]}}}


def test_after_an_interruption_the_later_line_of_a_step_holds(tmp_path: pathlib.Path) -> None:
  lines = losses('audio_net/fold_0', (0, 1.0), (1, 2.0), (2, 3.0), (1, 20.0), (2, 30.0), (3, 40.0))
  x = experiment(tmp_path, {'audio_net': [lines]})
  assert curves.read(x)['audio_net']['fold_0']['loss'] == [(0, 1), (1, 20), (2, 30), (3, 40)]


def test_a_line_that_was_cut_off_is_passed_over(tmp_path: pathlib.Path) -> None:
  x = experiment(tmp_path, {'audio_net': [losses('audio_net/fold_0', (0, 1.0))]})
  with (x.made['audio_net'][0] / 'metrics.jsonl').open('a') as file:
    file.write('{"train": "audio_net/fold_0", "st\n' + json.dumps(losses('audio_net/fold_0', (1, 2.0))[0]) + '\n')
  assert curves.read(x)['audio_net']['fold_0']['loss'] == [(0, 1), (1, 2)]


def test_long_curves_are_means_over_neighbours() -> None:
  values = np.random.default_rng(0).normal(size=600)
  shuffled = np.random.default_rng(1).permutation(600)
  curve = curves.binned({int(step): values[step] for step in shuffled})
  assert len(curve) == curves.POINTS == 200
  for n in (0, 1, 117, 199):
    assert curve[n] == pytest.approx((3 * n + 1, (values[3 * n] + values[3 * n + 1] + values[3 * n + 2]) / 3))


@pytest.mark.parametrize('count', [1, 199, 200, 201, 350])
def test_no_step_is_lost_and_short_curves_stay_as_they_are(count: int) -> None:
  curve = curves.binned({step: float(step**2) for step in range(count)})
  assert len(curve) == min(count, 200)
  assert curve == sorted(curve)
  if count <= 200:
    assert curve == [(step, step**2) for step in range(count)]
  else:
    assert curve[0][0] >= 0.5 and curve[-1][0] in (count - 1, count - 1.5)


def test_what_is_not_finite_is_left_out() -> None:
  assert curves.binned({0: float('nan'), 1: 2.0, 2: float('inf')}) == [(1, 2)]
  assert curves.binned({0: float('nan')}) == []

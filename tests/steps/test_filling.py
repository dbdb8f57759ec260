"""Joint features of segments that lack a half, against numpy: what stands for it, and that neighbours do not matter."""

from typing import Any

import jax
import numpy as np
import pytest

from emo_jax.models import dbn
from emo_jax.steps import filling

SOUND, FACE, HIDDEN, TOP = 3, 2, 4, 2
KINDS = dbn.stack_units(2, visible='linear', top='linear')
SETTINGS: dict[str, Any] = {'steps': 300, 'seed': 0}


def layer(rng: np.random.Generator, low: int, high: int) -> dict[str, np.ndarray]:
  shapes = {'weights': (low, high), 'visible_bias': low, 'hidden_bias': high}
  return {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}


def some_fused(*, clipped: bool = False) -> filling.Fused:
  """A DBN that fine-tuning has changed."""
  rng, size = np.random.default_rng(0), SOUND + FACE
  greedy, stack = ([layer(rng, size, HIDDEN), layer(rng, HIDDEN, TOP)] for _ in range(2))
  of_units = {name: rng.uniform(0.5, 2, size).astype(np.float32) for name in ('low', 'spread', 'mean')}
  return filling.Fused({**of_units, 'clipped': np.asarray(clipped)}, greedy, stack, KINDS)


def some_parts(rows: int) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(1)
  return {
    name: rng.normal(2, 1, (rows, size)).astype(np.float32) for name, size in (('audio', SOUND), ('visual', FACE))
  }


def scaled(fused: filling.Fused, parts: dict[str, np.ndarray]) -> np.ndarray:
  visible = (np.concatenate([*parts.values()], axis=1) - fused.scaler['low']) / fused.scaler['spread']
  return visible.clip(0, 1) if fused.scaler['clipped'] else visible


def up(fused: filling.Fused, visible: np.ndarray) -> np.ndarray:
  first, second = fused.stack
  hidden = 1 / (1 + np.exp(-(visible @ first['weights'] + first['hidden_bias'])))
  return hidden @ second['weights'] + second['hidden_bias']


def some_has(rows: int) -> np.ndarray:
  return np.array([[True, True], [True, False], [False, True]])[np.arange(rows) % 3]


@pytest.mark.parametrize('clipped', [False, True])
@pytest.mark.parametrize('how', ['zero', 'mean', 'mean_field'])
@pytest.mark.parametrize('rows', [5, 64, 150])
def test_what_stands_for_a_half_goes_up_the_fine_tuned_stack(rows: int, how: str, clipped: bool) -> None:
  """Mean field, in the RBM as the greedy training left it."""
  fused, parts, has = some_fused(clipped=clipped), some_parts(rows), some_has(rows)
  known = np.repeat(has, [SOUND, FACE], axis=1)
  zero = {name: np.where(has[:, [half]], part, 0) for half, (name, part) in enumerate(parts.items())}
  visible = scaled(fused, zero)
  if how != 'zero':
    visible = np.where(known, visible, fused.scaler['mean'])
  low = fused.greedy[0]
  for _ in range(3 if how == 'mean_field' else 0):
    hidden = 1 / (1 + np.exp(-(visible @ low['weights'] + low['hidden_bias'])))
    visible = np.where(known, visible, hidden @ low['weights'].T + low['visible_bias'])
  broken = {name: np.where(has[:, [half]], part, np.nan) for half, (name, part) in enumerate(parts.items())}
  features, filled = filling.joint(fused, broken, has, np.arange(rows), how=how, steps=3, seed=0)
  assert features.dtype == np.float32 and filled.tolist() == (np.arange(rows) % 3 > 0).tolist()
  np.testing.assert_allclose(features, up(fused, visible), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('how', filling.HOWS)
def test_segments_that_lack_nothing_are_as_they_were(how: str) -> None:
  fused, parts = some_fused(), some_parts(7)
  features, filled = filling.joint(fused, parts, np.ones((7, 2), bool), np.arange(7), how=how, **SETTINGS)
  assert not filled.any()
  np.testing.assert_allclose(features, up(fused, scaled(fused, parts)), rtol=1e-4, atol=1e-5)


def test_no_segments_have_no_features() -> None:
  nothing = np.zeros((0, 2), bool), np.zeros(0, int)
  features, filled = filling.joint(some_fused(), some_parts(0), *nothing, how='gibbs', **SETTINGS)
  assert features.shape == (0, TOP) and filled.shape == (0,)


def test_gibbs_fills_in_by_the_rbm_of_the_greedy_training() -> None:
  """Over many segments that hear the same, the sampled face is what the present units let expect (linear machine)."""
  rows, greedy = 400, some_fused().greedy
  kinds = dbn.stack_units(1, visible='linear', top='linear')
  w, b, c = (0.6 * greedy[0][name] for name in ('weights', 'visible_bias', 'hidden_bias'))
  assert np.linalg.norm(w, 2) < 0.9
  nothing = np.zeros(5, np.float32)
  tuned = [{'weights': np.eye(5, dtype=np.float32), 'visible_bias': nothing, 'hidden_bias': nothing}]
  fused = some_fused()._replace(greedy=[{'weights': w, 'visible_bias': b, 'hidden_bias': c}], stack=tuned, kinds=kinds)
  parts = {name: np.tile(part, (rows, 1)) for name, part in some_parts(1).items()}
  has = np.tile([True, False], (rows, 1))
  found, _ = filling.joint(fused, parts, has, np.arange(rows), how='gibbs', **SETTINGS)
  sound = scaled(fused, some_parts(1))[0, :SOUND]
  lacking, heard = w[SOUND:], w[:SOUND]
  want = np.linalg.solve(np.eye(FACE) - lacking @ lacking.T, b[SOUND:] + lacking @ (c + heard.T @ sound))
  np.testing.assert_allclose(found[:, :SOUND], np.tile(sound, (rows, 1)), rtol=1e-5)
  face = found[:, SOUND:]
  assert (np.abs(face.mean(0) - want) < 4 * face.std(0) / np.sqrt(rows)).all() and (face.std(0) > 0).all()


def test_what_is_drawn_belongs_to_the_segments_number_and_the_seed() -> None:
  fused, parts, has, rows = some_fused(), some_parts(80), some_has(80), np.arange(80)
  fill = lambda rows, seed=0: filling.joint(
    fused, {name: part[rows] for name, part in parts.items()}, has[rows], rows, how='gibbs', steps=3, seed=seed
  )[0]
  everything = fill(rows)
  some = np.array([70, 1, 2, 0, 5])
  np.testing.assert_allclose(fill(some), everything[some], rtol=1e-5, atol=1e-6)
  differ, lacking = (np.abs(fill(rows, seed=1) - everything) > 1e-4).any(1), ~has.all(1)
  assert not differ[~lacking].any() and differ[lacking].mean() > 0.8


def test_whatever_comes_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
  fill_in, traced = dbn.fill_in, []

  def spied(*arrays: Any, **settings: Any) -> jax.Array:
    traced.append(arrays)
    return fill_in(*arrays, **settings)

  monkeypatch.setattr(dbn, 'fill_in', spied)
  for rows in (70, 3, 64, 130):
    filling.joint(some_fused(), some_parts(rows), some_has(rows), np.arange(rows), how='gibbs', steps=7, seed=rows)
  assert len(traced) == 1

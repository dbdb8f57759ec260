"""Tests of the deep belief network against numpy and exact enumeration."""

import functools
import itertools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emo_jax.models import dbn, rbm

SIZES = (5, 4, 3, 2)
BINARY = dbn.stack_units(2, visible='probability', top='bernoulli')
STACKS = [  # of any depth, with any kinds below and on top
  *(
    dbn.stack_units(2, visible=visible, top=top) for visible, top in itertools.product(rbm.BINARY + rbm.REAL, repeat=2)
  ),
  dbn.stack_units(1, visible='gaussian', top='linear'),
  dbn.stack_units(3, visible='gaussian', top='linear'),
]
each_stack = pytest.mark.parametrize(
  'kinds', STACKS, ids=lambda kinds: f'{kinds[0].visible}-{len(kinds)}-{kinds[-1][1]}'
)


def some_stack(kinds: dbn.Kinds, sizes: tuple[int, ...] = SIZES) -> list[dict[str, np.ndarray]]:
  """As training leaves one; real visible units have learnt variances."""
  rng, stack = np.random.default_rng(0), []
  for low, high in itertools.pairwise(sizes[: len(kinds) + 1]):
    shapes = {'weights': (low, high), 'visible_bias': low, 'hidden_bias': high}
    stack.append({name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})
  if kinds[0].visible in rbm.REAL:
    stack[0]['log_variance'] = rng.uniform(-0.8, 0.8, size=sizes[0]).astype(np.float32)
  return stack


def sigmoid(x: np.ndarray) -> np.ndarray:
  return 1 / (1 + np.exp(-x))


def mean(x: np.ndarray, kind: str) -> np.ndarray:
  return {'bernoulli': sigmoid, 'probability': sigmoid, 'gaussian': np.array, 'linear': np.array}[kind](x)


def upward(stack: list[dict[str, np.ndarray]], x: np.ndarray, kinds: dbn.Kinds) -> np.ndarray:
  for layer, units in zip(stack, kinds, strict=True):
    x = x / np.exp(layer.get('log_variance', 0.0))
    x = mean(x @ layer['weights'] + layer['hidden_bias'], units.hidden)
  return x


def downward(stack: list[dict[str, np.ndarray]], x: np.ndarray, kinds: dbn.Kinds) -> np.ndarray:
  for number in range(len(stack) - 1, -1, -1):
    x = mean(x @ stack[number]['weights'].T + stack[number]['visible_bias'], kinds[number].visible)
  return x


def normal(*shape: int, seed: int = 1) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_inner_layers_are_binary_and_see_the_means_of_the_layer_below() -> None:
  ends = {'visible': 'gaussian', 'top': 'linear'}
  assert dbn.stack_units(1, **ends) == (('gaussian', 'linear'),)
  assert dbn.stack_units(2, **ends) == (('gaussian', 'bernoulli'), ('probability', 'linear'))
  inner = ('probability', 'bernoulli')
  assert dbn.stack_units(4, **ends) == (('gaussian', 'bernoulli'), inner, inner, ('probability', 'linear'))
  assert dbn.stack_units(2, visible='probability', top='bernoulli') == (inner, inner)


@pytest.mark.parametrize('field', ['visible', 'top'])
def test_unknown_kinds_are_refused_with_those_that_exist(field: str) -> None:
  with pytest.raises(ValueError, match=rf"fusion\.{field}='relu': use bernoulli, probability, gaussian, linear"):
    dbn.stack_units(2, **{'visible': 'bernoulli', 'top': 'bernoulli', field: 'relu'})


PARTS = [normal(30, 3, seed=2), 5 + 10 * normal(30, 2, seed=3)]
ENDS = {  # what becomes 0 and what becomes 1, of each modality's features
  'modality': [(part.min(), part.max()) for part in PARTS],
  'joint': [(min(part.min() for part in PARTS), max(part.max() for part in PARTS))] * 2,
  'feature': [(part.min(0), part.max(0)) for part in PARTS],
  'standard': [(part.mean(0), part.mean(0) + part.std(0)) for part in PARTS],
}


@pytest.mark.parametrize('beyond', [1, 4])
@pytest.mark.parametrize('kind', ENDS)
def test_features_are_scaled_by_training_rows_and_clipped_unless_standardised(kind: str, beyond: int) -> None:
  parts = [beyond * part[:9] for part in PARTS]
  scaled = [(part - low) / (high - low) for part, (low, high) in zip(parts, ENDS[kind], strict=True)]
  want = np.concatenate(scaled, axis=1)
  got = dbn.scale(dbn.fit_scaler(PARTS, kind=kind), parts)
  assert got.dtype == np.float32
  np.testing.assert_allclose(got, want if kind == 'standard' else want.clip(0, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kind', ENDS)
def test_a_scaler_knows_the_mean_of_what_it_has_scaled(kind: str) -> None:
  means = [(part.mean(0) - low) / (high - low) for part, (low, high) in zip(PARTS, ENDS[kind], strict=True)]
  found = dbn.fit_scaler(PARTS, kind=kind)['mean']
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, np.concatenate(means), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('kind', ENDS)
def test_features_that_never_vary_become_0(kind: str) -> None:
  flat = [np.full((3000, units), 0.1, np.float32) for units in (1, 2)]  # of which float32 sums are inexact
  scaled = dbn.scale(dbn.fit_scaler(flat, kind=kind), flat)
  assert scaled.shape == (3000, 3)
  np.testing.assert_allclose(scaled, 0, atol=1e-6)


def test_scalers_survive_a_file(tmp_path: pathlib.Path) -> None:
  scaler = dbn.fit_scaler(PARTS, kind='standard')
  np.savez(tmp_path / 'scaler.npz', **scaler)
  loaded = dict(np.load(tmp_path / 'scaler.npz'))
  np.testing.assert_array_equal(dbn.scale(loaded, PARTS), dbn.scale(scaler, PARTS))


def test_unknown_scalings_are_refused_with_those_that_exist() -> None:
  with pytest.raises(ValueError, match="scaling='minmax': use modality, joint, feature or standard"):
    dbn.fit_scaler(PARTS, kind='minmax')


@each_stack
def test_features_go_up_and_down_in_means(kinds: dbn.Kinds) -> None:
  stack, visible = some_stack(kinds), normal(6, 5)
  joint = upward(stack, visible, kinds)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  close(dbn.joint_feature(stack, visible, kinds), joint)
  close(dbn.visible_feature(stack, joint, kinds), downward(stack, joint, kinds))
  close(dbn.reconstruct(stack, visible, kinds), downward(stack, joint, kinds))


@each_stack
def test_an_unrolled_stack_reconstructs_as_the_stack_does(kinds: dbn.Kinds) -> None:
  stack, visible = some_stack(kinds), normal(6, 5)
  params = dbn.unroll(stack)
  want = downward(stack, upward(stack, visible, kinds), kinds)
  np.testing.assert_allclose(dbn.autoencode(params, visible, kinds), want, rtol=1e-4, atol=1e-5)


def test_the_way_down_of_an_unrolled_stack_is_its_own() -> None:
  params, visible = dbn.unroll(some_stack(BINARY)), jnp.asarray(normal(6, 5))
  gradient = jax.grad(lambda params: jnp.sum(dbn.autoencode(params, visible, BINARY)))(params)
  for up, down in zip(gradient['stack'], reversed(gradient['down']), strict=True):
    assert up['weights'].shape == down['weights'].T.shape
    assert np.abs(up['weights'] - down['weights'].T).max() > 0.01  # tied weights would have one gradient
    assert not up['visible_bias'].any() and down['bias'].all()


CHAINS = 20000
generate = functools.partial(
  jax.jit(dbn.generate, static_argnames=('kinds', 'steps')), keys=jax.random.split(jax.random.key(0), CHAINS)
)


def states(units: int) -> np.ndarray:
  return np.array(list(itertools.product((0.0, 1.0), repeat=units)))


def visible_marginal(layer: dict[str, np.ndarray], rounds: int | None = None) -> np.ndarray:
  """p(v) of all states of a binary RBM [2**V]: of the machine, or after so many rounds of sampling from hidden 0."""
  w, b, c = (layer[name].astype(np.float64) for name in ('weights', 'visible_bias', 'hidden_bias'))
  v, h = states(len(b)), states(len(c))
  joint = np.exp((v @ b)[:, None] + h @ c + v @ w @ h.T)
  if rounds is None:
    return joint.sum(1) / joint.sum()
  visible_given, hidden_given = joint / joint.sum(0), joint / joint.sum(1, keepdims=True)
  hidden = np.eye(len(h))[0]
  for _ in range(rounds):
    visible = visible_given @ hidden
    hidden = visible @ hidden_given
  return visible


def assert_mean(drawn: jax.Array, want: np.ndarray) -> None:
  drawn = np.asarray(drawn, np.float64)
  assert drawn.shape == (CHAINS, len(want))
  assert (np.abs(drawn.mean(0) - want) < 4 * drawn.std(0) / np.sqrt(CHAINS)).all()


@pytest.mark.parametrize('rounds', [1, 2, None])
def test_one_rbm_generates_its_visible_units_after_that_many_rounds(rounds: int | None) -> None:
  kinds = dbn.stack_units(1, visible='probability', top='bernoulli')
  stack = some_stack(kinds)
  stack[0]['weights'] *= 1.5  # so that rounds matter
  assert_mean(generate(stack, kinds=kinds, steps=rounds or 40), visible_marginal(stack[0], rounds) @ states(5))


def test_real_units_generate_the_mean_of_their_joint_gaussian() -> None:
  kinds = dbn.stack_units(1, visible='linear', top='linear')
  stack = some_stack(kinds)
  w, b, c = (stack[0][name] for name in ('weights', 'visible_bias', 'hidden_bias'))
  w *= 0.5 / np.linalg.norm(w / np.exp(stack[0]['log_variance'] / 2)[:, None], 2)
  scaled = w / np.exp(stack[0]['log_variance'])[:, None]
  want = np.linalg.solve(np.eye(5) - w @ scaled.T, b + w @ c)  # E[v] = b + W E[h], E[h] = c + (W / s)'E[v]
  assert_mean(generate(stack, kinds=kinds, steps=40), want)


@pytest.mark.parametrize('visible', ['probability', 'gaussian'])
@pytest.mark.parametrize('depth', [2, 3])
def test_deep_stacks_generate_what_the_top_rbm_draws_pushed_down(depth: int, visible: str) -> None:
  kinds = dbn.stack_units(depth, visible=visible, top='bernoulli')
  stack = some_stack(kinds)
  below = downward(stack[:-1], states(SIZES[depth - 1]), kinds[:-1])
  drawn = generate(stack, kinds=kinds, steps=40)
  assert_mean(drawn, visible_marginal(stack[-1]) @ below)
  nearest = np.abs(np.asarray(drawn)[:50, None] - below).max(-1).min(1)
  assert nearest.max() < 1e-5  # each draw is one state of the top RBM, pushed down in means


def test_generated_rows_are_independent_and_belong_to_their_keys() -> None:
  kinds = dbn.stack_units(2, visible='gaussian', top='linear')
  stack, keys = some_stack(kinds), jax.random.split(jax.random.key(1), 2000)
  draw = lambda keys: np.asarray(generate(stack, keys=keys, kinds=kinds, steps=5))
  drawn = draw(keys)
  np.testing.assert_array_equal(draw(keys), drawn)
  np.testing.assert_allclose(draw(keys[::-1]), drawn[::-1], rtol=1e-5, atol=1e-5)
  following = np.corrcoef(drawn.T, np.roll(drawn, 1, axis=0).T)[:5, 5:]
  assert np.abs(following).max() < 4 / np.sqrt(2000)


KNOWN = np.array([True, False, True, False, False])
GIVEN = np.array([0.9, 0.3, 0.1, 0.8, 0.0], np.float32)  # where it lacks, what chains start from


def filled(stack: list[dict[str, np.ndarray]], kinds: dbn.Kinds, how: str, steps: int, rows: int = CHAINS) -> jax.Array:
  """The units that lack of so many equal rows [rows, 3]."""
  keys, fill = (
    jax.random.split(jax.random.key(0), rows),
    jax.jit(dbn.fill_in, static_argnames=('kinds', 'how', 'steps')),
  )
  visible, known = np.tile(GIVEN, (rows, 1)), np.tile(KNOWN, (rows, 1))
  found = fill(stack, visible, known, keys, kinds, how=how, steps=steps)
  np.testing.assert_array_equal(found[:, KNOWN], visible[:, KNOWN])
  return found[:, ~KNOWN]


def binary_filled(layer: dict[str, np.ndarray], rounds: int | None) -> np.ndarray:
  """Expected of the lacking units of a binary RBM: given the others, or as so many rounds from GIVEN average it."""
  w, b, c = (layer[name].astype(np.float64) for name in ('weights', 'visible_bias', 'hidden_bias'))
  lacking, h = states(3), states(len(c))
  v = np.tile(GIVEN.astype(np.float64), (8, 1))
  v[:, ~KNOWN] = lacking
  joint = np.exp((v @ b)[:, None] + h @ c + v @ w @ h.T)
  if rounds is None:
    return joint.sum(1) / joint.sum() @ lacking
  lacking_given, means = joint / joint.sum(0), []
  start = np.exp(h @ c + GIVEN @ w @ h.T)
  hidden = start / start.sum()
  for _ in range(rounds):
    means.append(sigmoid(b + h @ w.T)[:, ~KNOWN].T @ hidden)
    hidden = lacking_given @ hidden @ (joint / joint.sum(1, keepdims=True))
  return np.mean(means[rounds // 2 :], axis=0)


@pytest.mark.parametrize('rounds', [1, 2, 3, 6, None])
@pytest.mark.parametrize('visible', ['probability', 'bernoulli'])
def test_gibbs_fills_in_what_the_present_units_let_expect(rounds: int | None, visible: str) -> None:
  kinds = dbn.stack_units(1, visible=visible, top='bernoulli')
  stack = some_stack(kinds)
  stack[0]['weights'] *= 1.5  # so that rounds matter
  assert_mean(filled(stack, kinds, 'gibbs', rounds or 80), binary_filled(stack[0], rounds))


def test_gibbs_fills_in_real_units_by_their_variance() -> None:
  """Over the binary hidden units of real visible ones the lacking units integrate to a closed form."""
  kinds = dbn.stack_units(1, visible='linear', top='bernoulli')
  stack = some_stack(kinds)
  layer = {name: array.astype(np.float64) for name, array in stack[0].items()}
  w, b, s = layer['weights'], layer['visible_bias'], np.exp(layer['log_variance'])
  h = states(4)
  pushed = b + h @ w.T
  own = np.where(KNOWN, GIVEN * (h @ w.T) / s, (pushed**2 - b**2) / (2 * s)).sum(1)
  hidden = np.exp(h @ layer['hidden_bias'] + own)
  assert_mean(filled(stack, kinds, 'gibbs', 80), hidden @ pushed[:, ~KNOWN] / hidden.sum())


@pytest.mark.parametrize('how', ['gibbs', 'mean_field'])
def test_all_real_units_fill_in_the_mean_of_their_joint_gaussian(how: str) -> None:
  kinds = dbn.stack_units(1, visible='linear', top='linear')
  stack = some_stack(kinds)
  w, b, c = (stack[0][name] for name in ('weights', 'visible_bias', 'hidden_bias'))
  w *= 0.7 / np.linalg.norm(w / np.exp(stack[0]['log_variance'] / 2)[:, None], 2)
  scaled = w / np.exp(stack[0]['log_variance'])[:, None]
  lack, known = ~KNOWN, KNOWN  # v = b + W h, h = c + (W / s)'v
  rest = b + w @ (c + scaled[known].T @ GIVEN[known])
  want = np.linalg.solve(np.eye(3) - w[lack] @ scaled[lack].T, rest[lack])
  if how == 'gibbs':
    assert_mean(filled(stack, kinds, how, 80), want)
  else:
    np.testing.assert_allclose(filled(stack, kinds, how, 80, rows=2), [want, want], rtol=1e-4, atol=1e-5)


@each_stack
@pytest.mark.parametrize('steps', [1, 4])
def test_mean_field_takes_means_in_turn_in_the_lowest_rbm_and_gives_the_last(kinds: dbn.Kinds, steps: int) -> None:
  stack, whole = some_stack(kinds), GIVEN.copy()
  for _ in range(steps):
    back = downward(stack[:1], upward(stack[:1], whole, kinds[:1]), kinds[:1])
    whole = np.where(KNOWN, GIVEN, back)
  found = filled(stack, kinds, 'mean_field', steps, rows=2)
  np.testing.assert_allclose(found, [whole[~KNOWN]] * 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('visible', ['probability', 'gaussian'])
def test_what_a_row_is_filled_with_belongs_to_its_key(visible: str) -> None:
  kinds = dbn.stack_units(2, visible=visible, top='linear')
  keys, known, given = jax.random.split(jax.random.key(1), 40), normal(40, 5) > 0, normal(40, 5, seed=2)
  fill = lambda rows: np.asarray(dbn.fill_in(some_stack(kinds), given[rows], known[rows], keys[rows], kinds, **ROUNDS))
  everything = fill(np.arange(40))
  assert np.unique(np.round(everything[~known], 4)).size > 30  # of 100; with one key for all there would be 5 or so
  np.testing.assert_allclose(fill(np.array([7, 31])), everything[[7, 31]], rtol=1e-4, atol=1e-5)


ROUNDS: dict[str, Any] = {'how': 'gibbs', 'steps': 6}
OF_SOUND = np.array([True, True, True, False, False])


@pytest.mark.parametrize('share', [0.0, 0.4, 1.0])
def test_a_share_of_the_rows_loses_one_half_either_with_equal_chance(share: float) -> None:
  rows = 4000
  keys, visible = jax.random.split(jax.random.key(0), rows), 1 + np.abs(normal(rows, 5))
  left = np.asarray(dbn.drop_half(visible, keys, OF_SOUND, share=share, draw=3))
  sound, face = (left[:, of] != 0 for of in (OF_SOUND, ~OF_SOUND))
  assert (sound.all(1) | ~sound.any(1)).all() and (face.all(1) | ~face.any(1)).all()
  assert (sound.any(1) | face.any(1)).all()
  for lost in (~sound.any(1), ~face.any(1)):
    assert abs(lost.mean() - share / 2) < 4 * np.sqrt(share / 2 * (1 - share / 2) / rows) + 1e-9
  np.testing.assert_array_equal(left[left != 0], visible[left != 0])


def test_which_half_a_row_loses_belongs_to_its_key_and_to_the_draw() -> None:
  keys, visible = jax.random.split(jax.random.key(0), 400), np.ones((400, 5), np.float32)
  left = lambda keys, draw: np.asarray(dbn.drop_half(visible, keys, OF_SOUND, share=0.5, draw=draw))
  np.testing.assert_array_equal(left(keys[::-1], 3), left(keys, 3)[::-1])
  assert 0.3 < (left(keys, 3) != left(keys, 4)).any(1).mean() < 0.9


def some_head(inputs: int) -> dict[str, np.ndarray]:
  return {'kernel': normal(inputs, 4, seed=2), 'bias': normal(4, seed=3)}


def test_a_new_head_gives_equal_scores_to_all_classes() -> None:
  stack = some_stack(BINARY)
  head = dbn.init_head(stack, classes=6)
  logits, _ = dbn.classify({'stack': stack, 'head': head}, jnp.ones((2, 5)), None, BINARY, dropout_rate=0.3)
  assert logits.shape == (2, 6) and not logits.any()


@each_stack
def test_prediction_is_the_stack_and_a_linear_head(kinds: dbn.Kinds) -> None:
  stack, visible = some_stack(kinds), normal(6, 5)
  head = some_head(SIZES[len(kinds)])
  logits, features = dbn.classify({'stack': stack, 'head': head}, visible, None, kinds, dropout_rate=0.3)
  want = upward(stack, visible, kinds)
  np.testing.assert_allclose(features, want, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(logits, want @ head['kernel'] + head['bias'], rtol=1e-4, atol=1e-4)


def test_the_last_layers_dropout_reaches_the_logits_but_not_the_features() -> None:
  stack, rows = some_stack(BINARY[:1]), 64
  visible = normal(rows, 5)
  head = {'kernel': jnp.eye(4), 'bias': jnp.zeros(4)}
  keys = jax.random.split(jax.random.key(0), rows)
  logits, features = dbn.classify({'stack': stack, 'head': head}, visible, keys, BINARY[:1], dropout_rate=0.5)
  want = upward(stack, visible, BINARY[:1])
  np.testing.assert_allclose(features, want, rtol=1e-5)
  kept = np.asarray(logits) > 0
  assert 0.35 < kept.mean() < 0.65
  np.testing.assert_allclose(logits[kept], 2 * want[kept], rtol=1e-5)


def test_each_layer_drops_units_of_its_own() -> None:
  stack, rows = some_stack(BINARY, (5, 4, 4)), 64
  for layer in stack:
    layer['weights'] *= 0
  stack[1]['weights'] += np.eye(4, dtype=np.float32)
  stack[1]['hidden_bias'] *= 0
  keys, head = jax.random.split(jax.random.key(0), rows), {'kernel': jnp.eye(4), 'bias': jnp.zeros(4)}
  logits, features = dbn.classify({'stack': stack, 'head': head}, normal(rows, 5), keys, BINARY, dropout_rate=0.5)
  lower, upper = np.asarray(features) > 0.5, np.asarray(logits) > 0  # sigmoid(0) of a dropped unit
  assert 0.35 < lower.mean() < 0.65 and 0.35 < upper.mean() < 0.65
  assert 0.3 < (lower == upper).mean() < 0.7

"""Tests of the deep belief network against numpy and exact enumeration."""

import functools
import itertools
import pathlib

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

"""Tests of the networks in the DBN's place against numpy, which sees each clip alone and without padding."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from emo_jax.models import fusion
from emo_jax.models.dropout import dropout

SOUND, FACE, CLASSES, WIDTH, HEADS = 3, 2, 3, 8, 2
LENGTHS = (5, 1, 3, 2)
SHAPE = {'width': WIDTH, 'blocks': 2, 'heads': HEADS}
MODELS = {
  'fc': fusion.FullyConnected(CLASSES, (7, 4)),
  'mlp': fusion.ConcatMLP(CLASSES, SOUND, width=WIDTH),
  'attention': fusion.CrossModalAttention(CLASSES, SOUND, **SHAPE),
  'encoding-visual': fusion.JointEncoding(CLASSES, SOUND, **SHAPE),
  'encoding-audio': fusion.JointEncoding(CLASSES, SOUND, primary='audio', **SHAPE),
}
SEQUENTIAL = ('attention', 'encoding-visual', 'encoding-audio')
each_model = pytest.mark.parametrize('name', MODELS)
each_sequential = pytest.mark.parametrize('name', SEQUENTIAL)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def padded(clips: list[np.ndarray], length: int = max(LENGTHS)) -> np.ndarray:
  """[B, T, V + 1] of clips [S, V], by a loop."""
  made = np.zeros((len(clips), length, clips[0].shape[1] + 1), np.float32)
  for row, clip in enumerate(clips):
    made[row, : len(clip), :-1], made[row, : len(clip), -1] = clip, 1
  return made


CLIPS = [normal(length, SOUND + FACE, seed=length) for length in LENGTHS]


def given(name: str) -> np.ndarray:
  return padded(CLIPS) if name in SEQUENTIAL else normal(len(LENGTHS), SOUND + FACE)


@functools.cache
def params_of(name: str) -> Any:
  """Random ones, none of them 0."""
  like = jax.eval_shape(MODELS[name].init, jax.random.key(0), given(name))['params']
  rng = np.random.default_rng(6)
  return jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), like)


@functools.cache
def applied(name: str) -> Callable[..., Any]:
  return jax.jit(lambda params, x, keys=None: MODELS[name].apply({'params': params}, x, keys))


def same(got: Any, want: Any) -> None:
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), got, want)


def dense(p: Any, x: np.ndarray) -> np.ndarray:
  return x @ p['kernel'] + p.get('bias', 0)


def normed(p: Any, x: np.ndarray) -> np.ndarray:
  return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p['scale'] + p['bias']


def relu(x: np.ndarray) -> np.ndarray:
  return np.maximum(x, 0)


def softmax(x: np.ndarray) -> np.ndarray:
  return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def attention(p: Any, queries: np.ndarray, keys: np.ndarray, *, causal: bool = False) -> np.ndarray:
  """One query and one head after another."""
  out = np.zeros((len(queries), WIDTH))
  for query, head in itertools.product(range(len(queries)), range(HEADS)):
    of = lambda part, x, head=head: x @ p[part]['kernel'][:, head] + p[part]['bias'][head]
    seen = keys[: query + 1] if causal else keys
    weights = softmax(of('key', seen) @ of('query', queries[query]) / np.sqrt(WIDTH // HEADS))
    out[query] += (weights @ of('value', seen)) @ p['out']['kernel'][head]
  return out + p['out']['bias']


def fed(p: Any, name: str, x: np.ndarray) -> np.ndarray:
  return dense(p[f'{name}_2'], relu(dense(p[f'{name}_1'], x)))


def numpy_fc(p: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  for number in range(2):
    x = relu(dense(p[f'fc_{number}'], x))
  return dense(p['head'], x), x


def numpy_mlp(p: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  halves = dense(p['audio'], x[:SOUND]), dense(p['visual'], x[SOUND:])
  hidden = relu(dense(p['joint'], relu(np.concatenate(halves))))
  return dense(p['head'], hidden), hidden


def numpy_attention(p: Any, clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  sound, face = dense(p['audio'], clip[:, :SOUND]), dense(p['visual'], clip[:, SOUND:])
  x = np.sqrt(WIDTH) * sound
  for time, channel in itertools.product(range(len(clip)), range(WIDTH)):
    angle = time / 10000 ** (2 * (channel // 2) / WIDTH)
    x[time, channel] += np.cos(angle) if channel % 2 else np.sin(angle)
  for block in (p['block_0'], p['block_1']):
    ready = normed(block['attention_norm'], x)
    x = x + attention(block['attention'], ready, ready, causal=True)
    x = x + fed(block, 'feed', normed(block['feed_norm'], x))
  asks = dense(p['asks'], normed(p['encoded'], x[-1]))
  weights = softmax(np.array([(np.tanh(dense(p['answers'], at) + asks) @ p['match']['kernel'])[0] for at in face]))
  features = np.concatenate([(face + weights[:, None] * face).mean(0), sound.mean(0)])
  return dense(p['head'], features), features


def lstm(p: Any, clip: np.ndarray) -> np.ndarray:
  sigmoid = lambda x: 1 / (1 + np.exp(-x))
  cell = hidden = np.zeros(WIDTH)
  out = []
  for x in clip:
    gate = {at: x @ p[f'i{at}']['kernel'] + dense(p[f'h{at}'], hidden) for at in 'ifgo'}
    cell = sigmoid(gate['f']) * cell + sigmoid(gate['i']) * np.tanh(gate['g'])
    hidden = sigmoid(gate['o']) * np.tanh(cell)
    out.append(hidden)
  return np.array(out)


def glimpsed(p: Any, name: str, x: np.ndarray, glimpses: int) -> np.ndarray:
  scores = fed(p, name, x)
  return np.concatenate([softmax(scores[:, number]) @ x for number in range(glimpses)])


def numpy_encoding(p: Any, clip: np.ndarray, *, primary: str) -> tuple[np.ndarray, np.ndarray]:
  halves = [clip[:, SOUND:], clip[:, :SOUND]]
  x, y = halves if primary == 'visual' else halves[::-1]
  x, y = lstm(p['OptimizedLSTMCell_0'], x), dense(p['secondary'], y)
  for number in range(2):
    b = p[f'block_{number}']
    post = lambda name, x, more, b=b: normed(b[f'{name}_norm'], x + more)
    own = post('primary', x, attention(b['primary'], x, x))
    own = post('primary_feed', own, fed(b, 'primary_feed', own))
    other = post('secondary', y, attention(b['secondary'], y, y))
    other = post('guide', other, attention(b['guide'], other, x))
    other = post('secondary_feed', other, fed(b, 'secondary_feed', other))
    x, y = x + own, y + other
    if number == 0:
      look = lambda name, x, b=b, post=post: post(name, x, dense(b[f'{name}_joined'], glimpsed(b, name, x, HEADS)))
      x, y = look('primary_glimpse', x), look('secondary_glimpse', y)
  read = lambda name, x: dense(p[f'{name}_read'], glimpsed(p, f'{name}_readout', x, 1))
  features = normed(p['joint'], read('primary', x) + read('secondary', y))
  return dense(p['head'], features), features


ORACLES: dict[str, Callable[..., Any]] = {
  'fc': numpy_fc,
  'mlp': numpy_mlp,
  'attention': numpy_attention,
  'encoding-visual': functools.partial(numpy_encoding, primary='visual'),
  'encoding-audio': functools.partial(numpy_encoding, primary='audio'),
}


@each_model
def test_networks_equal_numpy_clip_by_clip_without_padding(name: str) -> None:
  inputs = CLIPS if name in SEQUENTIAL else given(name)
  params = jax.tree.map(lambda leaf: leaf.astype(np.float64), params_of(name))
  want = [ORACLES[name](params, x.astype(np.float64)) for x in inputs]
  same(applied(name)(params_of(name), given(name)), tuple(np.array(part) for part in zip(*want, strict=True)))


V, A, D, C = 512, 1024, 256, 6  # of the face, of the sound; channels, classes
ATTENTION, NORM = 4 * (D * D + D), 2 * D
GLIMPSES = {number: D * 2 * D + 2 * D + 2 * D * number for number in (1, 4)}
ENCODER = ATTENTION + 2 * NORM + D * 4 * D + 4 * D + 4 * D * D + D
BLOCK = 3 * (ATTENTION + NORM) + 2 * (D * 2 * D + 2 * D + 2 * D * D + D + NORM)
LOOK = 2 * (GLIMPSES[4] + 4 * D * D + D + NORM)
READ = 2 * (GLIMPSES[1] + D * 2 * D + 2 * D) + 2 * 2 * D


@pytest.mark.parametrize(
  ('model', 'inputs', 'want'),
  [
    (fusion.FullyConnected(C, (1024, 512)), (A + V,), (A + V + 1) * 1024 + 1025 * 512 + 513 * C),
    (fusion.ConcatMLP(C, A), (A + V,), (A + 1) * D + (V + 1) * D + (2 * D + 1) * D + (D + 1) * C),
    (
      fusion.CrossModalAttention(C, A, blocks=3),
      (4, A + V + 1),
      (A + 1) * D + (V + 1) * D + 3 * ENCODER + NORM + D * D + D * D + D + D + (2 * D + 1) * C,
    ),
    (
      fusion.JointEncoding(C, A, blocks=3),
      (4, A + V + 1),
      4 * (V * D + D * D + D) + (A + 1) * D + 3 * BLOCK + 2 * LOOK + READ + (2 * D + 1) * C,
    ),
    (
      fusion.JointEncoding(C, A, primary='audio', blocks=1),
      (9, A + V + 1),
      4 * (A * D + D * D + D) + (V + 1) * D + BLOCK + READ + (2 * D + 1) * C,
    ),
  ],
  ids=lambda of: type(of).__name__ if isinstance(of, nn.Module) else '',
)
def test_parameter_counts_are_those_of_the_layers_and_hang_on_no_length(
  model: nn.Module, inputs: tuple[int, ...], want: int
) -> None:
  like = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, *inputs)))
  assert sum(leaf.size for leaf in jax.tree.leaves(like)) == want


@each_sequential
@pytest.mark.parametrize('training', [False, True])
def test_nothing_hangs_on_padding_nor_on_what_stands_in_it(name: str, training: bool) -> None:
  keys = jax.random.split(jax.random.key(3), len(LENGTHS)) if training else None
  longer = padded(CLIPS, 9)
  spoilt = np.where(longer[..., -1:] > 0, longer, 100 * normal(*longer.shape, seed=8))
  spoilt[..., -1] = longer[..., -1]
  want = applied(name)(params_of(name), padded(CLIPS), keys)
  for x in (longer, spoilt):
    same(applied(name)(params_of(name), x, keys), want)


@each_model
@pytest.mark.parametrize('training', [False, True])
def test_a_clips_result_hangs_on_no_other_clip_of_the_batch(name: str, training: bool) -> None:
  keys = jax.random.split(jax.random.key(3), len(LENGTHS)) if training else None
  x, run = given(name), functools.partial(applied(name), params_of(name))
  want, order = run(x, keys), np.array([2, 0])
  same(run(x[order], None if keys is None else keys[order]), jax.tree.map(lambda part: part[order], want))
  other = x.copy()
  other[1:] = other[:-1] * 3
  logits, _ = run(other, keys)
  same(logits[0], want[0][0])
  assert not np.allclose(logits[1:], want[0][1:], atol=1e-2)


@each_model
def test_every_parameter_learns_but_the_attentions_key_biases_that_cancel(name: str) -> None:
  loss = lambda params: jnp.sum(applied(name)(params, given(name))[0] * normal(len(LENGTHS), CLASSES, seed=2))
  for path, of_leaf in jax.tree_util.tree_leaves_with_path(jax.grad(loss)(params_of(name))):
    largest, where = np.abs(of_leaf).max(), jax.tree_util.keystr(path)
    assert (largest > 1e-6) != where.endswith("['key']['bias']"), where


@each_model
def test_dropout_belongs_to_rows_and_only_to_training(name: str) -> None:
  model, x = MODELS[name], given(name)
  run = lambda keys, rate=0.3: model.clone(dropout=rate).apply({'params': params_of(name)}, x, keys)[0]
  one, two = (jax.random.split(jax.random.key(seed), len(x)) for seed in (1, 2))
  same(run(one, 0.0), run(None))
  np.testing.assert_array_equal(run(one), run(one))
  dropped, mixed = run(one), run(jnp.concatenate([one[:2], two[2:]]))
  same(mixed[:2], dropped[:2])
  assert (np.abs(dropped - run(None)).max(1) > 1e-3).any()  # a clip of one segment has nothing to weigh
  assert (np.abs(mixed[2:] - dropped[2:]).max(1) > 1e-3).any()


def test_each_call_of_dropping_is_a_layer_of_its_own() -> None:
  keys, x = jax.random.split(jax.random.key(0), 2), jnp.ones((2, 50))
  drop = fusion.dropping(0.5, keys)
  for number in range(3):
    np.testing.assert_array_equal(drop(x), dropout(x, 0.5, keys, number))


@pytest.mark.parametrize('primary', fusion.PRIMARY)
def test_the_primary_half_guides_the_other_and_not_the_other_way_round(primary: str) -> None:
  name = f'encoding-{primary}'
  blocks = lambda x: [
    MODELS[name].apply({'params': params_of(name)}, x, capture_intermediates=True)[1]['intermediates'][block]
    for block in ('block_0', 'block_1')
  ]
  changed = {'audio': padded(CLIPS), 'visual': padded(CLIPS)}
  changed['audio'][..., :SOUND] += 1
  changed['visual'][..., SOUND:-1] += 1
  other = 'audio' if primary == 'visual' else 'visual'
  for before, of_primary, of_other in zip(*map(blocks, (padded(CLIPS), changed[primary], changed[other])), strict=True):
    (x, y), (_, led), (alone, _) = (of['__call__'][0] for of in (before, of_primary, of_other))
    np.testing.assert_array_equal(alone, x)
    assert np.abs(led - y).max() > 1e-2


@pytest.mark.parametrize(
  ('name', 'a_set', 'in_order'),
  [
    ('attention', slice(SOUND, SOUND + FACE), slice(SOUND)),
    ('encoding-visual', slice(SOUND), slice(SOUND, SOUND + FACE)),
    ('encoding-audio', slice(SOUND, SOUND + FACE), slice(SOUND)),
  ],
)
def test_one_half_is_a_set_of_segments_and_the_other_a_sequence(name: str, a_set: slice, in_order: slice) -> None:
  want = applied(name)(params_of(name), given(name))
  for part, equal in ((a_set, True), (in_order, False)):
    turned = given(name)
    turned[0, :, part] = turned[0, ::-1, part]
    got = applied(name)(params_of(name), turned)
    assert np.allclose(got[0], want[0], rtol=1e-3, atol=1e-4) == equal


@pytest.mark.parametrize('width', [6, 7])
def test_positions_tell_segments_apart_and_hang_on_no_length(width: int) -> None:
  few, many = np.asarray(fusion.positions(5, width)), np.asarray(fusion.positions(40, width))
  np.testing.assert_array_equal(many[:5], few)
  apart = np.linalg.norm(many[:, None] - many[None], axis=-1) + 9 * np.eye(40)
  assert apart.min() > 0.02 and np.abs(many).max() <= 1


def test_another_word_for_the_primary_half_is_refused() -> None:
  with pytest.raises(ValueError, match="primary='face': use visual or audio"):
    fusion.JointEncoding(CLASSES, SOUND, primary='face').init(jax.random.key(0), padded(CLIPS))


def asked(count: int, seed: int, *, sequence: bool) -> tuple[np.ndarray, np.ndarray]:
  """Clips of which either half alone says nothing of the class, and their classes (0, 1).

  Of pooled features: whether both signs agree. Of sequences: the sound, a sign, asks for one of two kinds of segments,
  and the class is the sign that the face has in these and not in the others.
  """
  rng = np.random.default_rng(seed)
  signs = rng.choice([-1.0, 1.0], (count, 2))
  noise = lambda *shape: rng.normal(0, 0.1, shape)
  if not sequence:
    return (signs + noise(count, 2)).astype(np.float32), (signs.prod(1) > 0).astype(int)
  clips = []
  for asks, answer in signs:
    kinds = rng.permutation(np.repeat([-1.0, 1.0], 1 + rng.integers(3)))
    face = np.stack([kinds, np.where(kinds == asks, answer, -answer)], axis=1)
    sound = np.full((len(kinds), 1), asks)
    clips.append(np.concatenate([sound, face], axis=1) + noise(len(kinds), 3))
  return padded(clips, 6), (signs[:, 1] > 0).astype(int)


@pytest.mark.parametrize(
  ('model', 'sequence'),
  [
    (fusion.FullyConnected(2, (32, 16)), False),
    (fusion.ConcatMLP(2, 1, width=16), False),
    (fusion.CrossModalAttention(2, 1, width=16, blocks=1, heads=2, dropout=0.1), True),
    (fusion.JointEncoding(2, 1, width=16, blocks=2, heads=2, dropout=0.1), True),
    (fusion.JointEncoding(2, 1, primary='audio', width=16, blocks=2, heads=2, dropout=0.1), True),
  ],
  ids=['fc', 'mlp', 'attention', 'encoding-visual', 'encoding-audio'],
)
def test_networks_learn_what_only_the_pair_of_halves_tells(model: nn.Module, sequence: bool) -> None:
  x, labels = asked(256, 0, sequence=sequence)
  params, adam = model.init(jax.random.key(0), x[:1])['params'], optax.adam(3e-3)

  def loss(params: Any, keys: jax.Array) -> jax.Array:
    logits = model.apply({'params': params}, x, keys)[0]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

  @jax.jit
  def step(params: Any, state: Any, key: jax.Array) -> tuple[Any, Any]:
    updates, state = adam.update(jax.grad(loss)(params, jax.random.split(key, len(x))), state)
    return optax.apply_updates(params, updates), state

  state = adam.init(params)
  for key in jax.random.split(jax.random.key(1), 200):
    params, state = step(params, state, key)
  fresh, truth = asked(256, 1, sequence=sequence)
  assert np.mean(model.apply({'params': params}, fresh)[0].argmax(-1) == truth) > 0.95

"""Where the two networks look: Grad-CAM over log-mel images and face clips (pipeline step: report).

Selvaraju et al. 2017: the maps of one convolution, each weighted by the mean gradient of a class's logit in it, summed;
what is below 0 speaks for other classes and is cut off. No network is changed: flax hands out the layer in passing.
"""

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from emo_jax.context import Experiment
from emo_jax.steps import start
from emo_jax.steps.networks import MODALITIES, load_features
from emo_jax.training import checkpoint
from emo_jax.training.supervised import Forward

Tree = Any
WIDE = 6  # least height and width of the map that is looked at: a smaller one would tell no place from another
BATCH = 3  # rows at once: as many as `examples` asks for in threes; a full-size C3D takes seconds a row
TINY = 1e-30  # in float arithmetic nothing beside any activation, and above 0
RULE = (
  'The right and the wrong clips of the highest probability, up to {each} of each, a second one of a speaker only '
  'after the first of every other; of each clip the segment for which both networks together find the verdict most '
  'probable. Probabilities are of one run, before any temperature. Bright is what speaks for the verdict.'
)


class Layer(NamedTuple):
  """The map that is looked at.

  Attributes:
    name: of the convolution, or block of convolutions, at the top level of the network.
    module: whose output it is, ReLU'd: that convolution, or the normalisation behind it.
    shape: of one row, (h, w, K) or (T, h, w, K).
  """

  name: str
  module: str
  shape: tuple[int, ...]


def find_layer(forward: Forward, variables: Tree, inputs: Any) -> Layer:
  """The network's last convolution whose map is at least 6 high and wide. Nothing is computed.

  Args:
    forward: (variables, inputs, None) -> logits, features; within it, a flax module whose convolutions are ReLU'd.
    variables, inputs: arrays or shapes.
  """
  found, name = [], ''

  def note(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
    nonlocal name
    output, module = call(*args, **kwargs), context.module
    if len(module.path) == 1 and output.ndim >= 4:
      name = name if isinstance(module, nn.GroupNorm) else module.path[0]
      found.append(Layer(name, module.path[0], output.shape[1:]))
    return output

  with nn.intercept_methods(note):
    jax.eval_shape(
      lambda *of: forward(of[0], of[1], None), variables, inputs
    )  # a new function: one traced before is not run
  return [layer for layer in found if min(layer.shape[-3:-1]) >= WIDE][-1]


@functools.lru_cache(maxsize=8)
def _compiled(forward: Forward, layer: Layer, size: tuple[int, ...]) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """(variables, inputs [B, ...], classes [B]) -> heat [B, *size], logits [B, C]."""

  def passed(added: jax.Array, variables: Tree, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits and the layer's map, to which `added` was added."""
    maps = []

    def add(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
      output = call(*args, **kwargs)
      if context.module.path != (layer.module,):
        return output
      maps.append(nn.relu(output))
      # The ReLU that follows lets everything pass, and with it the gradient in its own output, where it is 0 as well.
      return jnp.maximum(output, TINY) + added.astype(output.dtype)

    with nn.intercept_methods(add):
      logits, _ = forward(variables, inputs, None)
    return logits, maps[0].astype(jnp.float32)

  def heat(variables: Tree, inputs: jax.Array, classes: jax.Array) -> tuple[jax.Array, jax.Array]:
    def evidence(added: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
      logits, maps = passed(added, variables, inputs)
      return jnp.sum(jnp.take_along_axis(logits, classes[:, None], axis=1)), (logits, maps)

    gradient, (logits, maps) = jax.grad(evidence, has_aux=True)(jnp.zeros((len(inputs), *layer.shape)))
    places = tuple(range(1, maps.ndim - 1))
    cam = nn.relu(jnp.sum(maps * jnp.mean(gradient, places, keepdims=True), axis=-1))
    cam = jax.image.resize(cam, (len(cam), *size), 'linear')
    peak = jnp.max(cam, places, keepdims=True)
    return cam / jnp.where(peak > 0, peak, 1), logits

  return jax.jit(heat)


def heat_maps(
  forward: Forward, variables: Tree, inputs: np.ndarray, classes: np.ndarray, *, size: tuple[int, ...]
) -> tuple[np.ndarray, Layer]:
  """Grad-CAM of a network's input.

  Args:
    forward: as find_layer has it; the same function is compiled once.
    inputs: [n, ...].
    classes: int [n], whose evidence is sought.
    size: (h, w) or (T, h, w), to which the maps are brought by linear interpolation.

  Returns:
    float32 [n, *size], 0 to 1, each row divided by its maximum (where nothing speaks for the class it is all 0); and
    the layer.
  """
  layer = find_layer(forward, variables, inputs[:1])
  compiled, parts = _compiled(forward, layer, size), []
  for first in range(0, len(inputs), BATCH):
    places = np.minimum(np.arange(first, first + BATCH), len(inputs) - 1)  # the last one fills up: compiled once
    parts.append(np.asarray(compiled(variables, inputs[places], classes[places])[0]))
  return np.concatenate([np.zeros((0, *size), np.float32), *parts])[: len(inputs)], layer


def grad_cam(
  x: Experiment, modality: str, number: int, rows: np.ndarray, classes: np.ndarray
) -> tuple[np.ndarray, Layer]:
  """Where a fold's network sees evidence for classes in segments.

  Args:
    x: a finished experiment (finished.reopen).
    modality: 'audio' or 'visual'.
    number: of the fold.
    rows: int [n], segments that have the modality.
    classes: int [n], whose evidence is sought.

  Returns:
    float32, 0 to 1: for 'audio' [n, 64, 64] (mel, time), on the log-mel image; for 'visual' [n, 16, h, w], on the
    stored faces; and the layer.
  """
  folder = x.made[f'{modality}_net'][number] / 'network'
  variables = checkpoint.load(folder, start.variables_like(x, modality))
  inputs = start.reader(x, modality, x.segments)(rows)
  size = (16, *x.config.frontend.faces.size) if modality == 'visual' else inputs.shape[1:]
  return heat_maps(start.modality_of(x, modality).whole.forward, variables, inputs, classes, size=size)


def scored(x: Experiment, number: int, method: str) -> tuple[np.ndarray, np.ndarray]:
  """A contender's scores [n, C] of the clips [n] that were judged in a fold, as the stage 'decide' left them."""
  with np.load(x.made[f'decide/{method}'][number] / f'{method}_{x.config.data.judge}.npz') as file:
    return file['scores'], file['clip']


def examples(
  x: Experiment, number: int, scores: np.ndarray, clips: np.ndarray, *, each: int = 3
) -> dict[str, Any] | None:
  """Judged clips of one fold, right and wrong ones, and where its networks saw evidence for the verdict.

  No chance is in it: see RULE. Clips without a segment that has both halves are left out.

  Args:
    x: a finished experiment (finished.reopen).
    number: of the fold.
    scores: [n, C], whose softmax are probabilities: a contender's (`scored`).
    clips: int [n], of which clips.
    each: most right and most wrong clips.

  Returns:
    None without networks; else 'rule': a text; 'layers': {'audio', 'visual'}, the convolution that was looked at (None
    where there is no example); 'examples', right ones first, each a dict:
      'clip' (id), 'speaker', 'truth', 'verdict': words; 'right': bool; 'probability': float, of the verdict;
      'audio': {'image': float32 [64, 64] log-mel in dB (mel, time), the lowest band first; 'heat': float32 [64, 64]};
      'visual': {'image': uint8 [16, h, w, 3]; 'heat': float32 [16, h, w]}: heat for the verdict, 0 to 1;
      'truth_heat': {'audio': [64, 64], 'visual': [16, h, w]}, heat for the truth; None where it is the verdict.
  """
  if 'features' not in x.made:
    return None
  shares = scipy.special.softmax(scores, axis=1)
  verdict, truth = shares.argmax(1), x.truth()[clips]
  speaker = [x.clips[clip].speaker for clip in clips]
  row = telling(x, number, clips, verdict)
  able, right = row >= 0, verdict == truth
  chosen = [place for kind in (right, ~right) for place in surest(shares.max(1), speaker, able & kind, each=each)]
  wrong = [place for place in chosen if not right[place]]
  rows, classes = row[chosen + wrong], np.concatenate([verdict[chosen], truth[wrong]])
  heat: dict[str, np.ndarray] = {}
  layers: dict[str, str | None] = dict.fromkeys(MODALITIES)
  for modality in MODALITIES if chosen else ():
    heat[modality], layer = grad_cam(x, modality, number, rows, classes)
    layers[modality] = layer.name
  found = []
  for n, place in enumerate(chosen):
    segment = x.segments.take(row[[place]])
    of_truth = len(chosen) + wrong.index(place) if place in wrong else None
    found.append(
      {
        'clip': x.clips[clips[place]].id,
        'speaker': speaker[place],
        'truth': x.classes[truth[place]],
        'verdict': x.classes[verdict[place]],
        'right': bool(right[place]),
        'probability': float(shares[place].max()),
        'audio': {'image': x.store.audio(segment)[0], 'heat': heat['audio'][n]},
        'visual': {'image': x.store.faces(segment)[0], 'heat': heat['visual'][n]},
        'truth_heat': None if of_truth is None else {modality: heat[modality][of_truth] for modality in MODALITIES},
      }
    )
  return {'rule': RULE.format(each=each), 'layers': layers, 'examples': found}


def telling(x: Experiment, number: int, clips: np.ndarray, classes: np.ndarray) -> np.ndarray:
  """int [n]: of each clip the segment to which both networks, on average, give its class the highest probability.

  -1 where a clip has no segment with both halves.
  """
  rows = np.flatnonzero(x.segments.has_audio & x.segments.has_face & np.isin(x.segments.clip, clips))
  logits = [load_features(x, number, rows, modality, 'logits') for modality in MODALITIES]
  shares = np.mean(scipy.special.softmax(logits, axis=-1), axis=0)
  found = np.full(len(clips), -1)
  for place, (clip, wanted) in enumerate(zip(clips, classes, strict=True)):
    own = np.flatnonzero(x.segments.clip[rows] == clip)
    if len(own):
      found[place] = rows[own[shares[own, wanted].argmax()]]
  return found


def surest(probability: np.ndarray, speaker: list[str], among: np.ndarray, *, each: int) -> list[int]:
  """Places of the highest probabilities, a speaker's second only after every other's first, and so on.

  Args:
    probability: [n].
    speaker: [n].
    among: bool [n], which places there are to choose from.
    each: how many, at most.
  """
  seen, turn = Counter[str](), {}
  for place in (int(place) for place in np.argsort(-probability, kind='stable') if among[place]):
    turn[place] = seen[speaker[place]]
    seen[speaker[place]] += 1
  return sorted(turn, key=turn.__getitem__)[:each]

"""The audio net and the visual net with all that stands in front of them, on the device (method.md A1, A3).

Sound images are standardised by training statistics; faces so too, or by the contract of published weights
(models/pretrained.py). Where a part of a network is frozen, it is run once over all segments, and what it gives is what
the rest learns from.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from emo_jax.models import inputs
from emo_jax.models.alexnet import AlexNet
from emo_jax.models.c3d import C3D
from emo_jax.models.i3d import I3D
from emo_jax.models.squeezenet import SqueezeNet
from emo_jax.training import parallel, supervised

Tree = Any
Front = Callable[[Tree, jax.Array, jax.Array | None], jax.Array]
AUGMENT = 100  # told apart from the dropout layers' numbers when folded into a row's key
NETWORKS = {'audio': ('alexnet', 'squeezenet'), 'visual': ('c3d', 'i3d')}


class Modality(NamedTuple):
  """A network, what stands in front of it, and its compiled steps, built once for all folds.

  Attributes:
    model: (images [B, ...], keys [B] | None) -> logits [B, C], features [B, F].
    whole: the steps from the store's rows; its variables hold 'params' and 'statistics' ('mean' and 'deviation'
      [h, w, 3], 'gain' [3]).
    trunk: (variables, batch) -> what the frozen part gives, [G, ...]; of no use with trained='all'.
    rest: the steps from such activations; its 'params' are those that are trained, its 'statistics' are empty.
  """

  model: nn.Module
  whole: supervised.Network
  trunk: Callable[[Tree, Tree], Tree]
  rest: supervised.Network


def audio(config: Any, *, classes: int, nonfinite: str = 'stop') -> Modality:
  """AlexNet or SqueezeNet on sound images: deltas, z-score by training statistics on the 64 x 64 map, masks, resize.

  With config.z_score 'after', as in the script, the resize comes before the z-score, whose statistics are then of
  [size, size] maps. Masks are in frames and bands, so checks.check refuses them there.
  """
  after = config.z_score == 'after'

  def sound_images(log_mel: jax.Array) -> jax.Array:
    images = inputs.sound_image(log_mel, points=config.deltas)
    images = inputs.resized(images, config.size) if after else images
    return images[:, None]  # the axis that a face clip's frames have

  def front(statistics: Tree, log_mel: jax.Array, keys: jax.Array | None) -> jax.Array:
    images = standardised(sound_images(log_mel), statistics)[:, 0]
    if keys is not None:
      changes = {'shift': config.shift_mel, 'level': config.level, 'static': 1 if config.deltas else 3}
      images = inputs.vary_sound(images, augment_keys(keys), **changes)
      images = inputs.mask_sound(images, augment_keys(keys), time=config.mask_time, mel=config.mask_mel)
    return inputs.resized(images * statistics['gain'], config.size)

  return _modality(_audio_model(config, classes), front, sound_images, config, nonfinite)


def visual(config: Any, *, classes: int, nonfinite: str = 'stop') -> Modality:
  """C3D or I3D on face clips: scaling, z-score (of training frames, or the contract), resize, mirroring, shift."""
  scaled = functools.partial(inputs.scaled_faces, scaling=config.scaling)

  def front(statistics: Tree, faces: jax.Array, keys: jax.Array | None) -> jax.Array:
    clips = inputs.resized(standardised(scaled(faces), statistics), config.size)
    if keys is not None:
      clips = inputs.vary_faces(
        clips, augment_keys(keys), flip=config.flip, shift=config.shift, brightness=config.brightness
      )
    return clips * statistics['gain']

  return _modality(_visual_model(config, classes), front, scaled, config, nonfinite)


MODALITIES = {'audio': audio, 'visual': visual}


def _audio_model(config: Any, classes: int) -> nn.Module:
  shared = {'dropout': config.dropout, 'trained': config.trained, 'dtype': jnp.dtype(config.precision)}
  if config.network == 'squeezenet':
    return SqueezeNet(classes, **shared)
  return AlexNet(classes, width=config.width, form=config.form, norm=config.norm, **shared)


def _visual_model(config: Any, classes: int) -> nn.Module:
  shared = {'dropout': config.dropout, 'trained': config.trained, 'dtype': jnp.dtype(config.precision)}
  if config.network == 'i3d':
    return I3D(classes, **shared)
  return C3D(classes, width=config.width, norm=config.norm, pool5=config.pool5, grid=config.grid, **shared)


def _modality(
  model: nn.Module, front: Front, images: Callable[[jax.Array], jax.Array], config: Any, nonfinite: str
) -> Modality:
  def apply(params: Tree, x: jax.Array, keys: jax.Array | None, part: str) -> Any:
    return model.apply({'params': params}, x, keys, part=part)

  def forward(variables: Tree, x: jax.Array, keys: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    clips = front(variables['statistics'], x, keys)
    return cast(tuple[jax.Array, jax.Array], apply(variables['params'], clips, keys, 'whole'))

  def trunk(variables: Tree, batch: Tree) -> jax.Array:
    clips = front(variables['statistics'], batch['input'], None)
    return cast(jax.Array, apply(variables['params'], clips, None, 'trunk'))

  def rest(variables: Tree, x: jax.Array, keys: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    return cast(tuple[jax.Array, jax.Array], apply(variables['params'], x, keys, 'rest'))

  build = functools.partial(
    supervised.build, optim_config=config.optim, accumulate=config.accumulate, nonfinite=nonfinite
  )
  return Modality(model, build(forward, images), parallel.predict_step(trunk), build(rest, images))


def augment_keys(keys: jax.Array) -> jax.Array:
  """[B] keys for augmentation, apart from those of dropout."""
  return jax.vmap(lambda key: jax.random.fold_in(key, AUGMENT))(keys)


def standardised(images: jax.Array, statistics: Tree) -> jax.Array:
  """Z-score, pixel by pixel: [B, K, h, w, 3] by 'mean' and 'deviation' [h, w, 3] (method.md A1)."""
  return (images - statistics['mean']) / statistics['deviation']

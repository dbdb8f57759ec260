"""What stands between the store and the networks, on the device: sound images, face clips, their augmentation.

All draws belong to rows (one key each), so they do not depend on the number of devices.
"""

import jax
import jax.numpy as jnp

DIVISORS = {5: 10, 9: 1}  # points of the slope's window: 2 (1 + 4) is the regression's; the script's is not divided


def deltas(x: jax.Array, *, points: int) -> jax.Array:
  """Slope along the last axis, the edges replicated (method.md A1): N frames to each side, nearer ones weigh less.

  d[t] = sum over n = 1 .. N of n (c[t + n] - c[t - n]) / divisor.

  Args:
    x: [..., time].
    points: 2 N + 1, the width of the window in frames: 5 (the paper's formula) or 9 (the script's).
  """
  reach = points // 2
  padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(reach, reach)], mode='edge')
  shifted = lambda n: jax.lax.slice_in_dim(padded, reach + n, reach + n + x.shape[-1], axis=-1)
  weighted = (n * (shifted(n) - shifted(-n)) for n in range(1, reach + 1))
  return sum(weighted, start=jnp.zeros_like(x)) / DIVISORS[points]


def sound_image(log_mel: jax.Array, *, points: int) -> jax.Array:
  """Static, delta and delta-delta of a window, all computed inside it (method.md A1): [B, 64, T] -> [B, 64, T, 3].

  Args:
    log_mel: [B, 64, T].
    points: of the slope's window, as `deltas` has it; 0 for none: the static image stands in all three channels, so
      that weights published for three still fit.
  """
  first = deltas(log_mel, points=points) if points else log_mel
  second = deltas(first, points=points) if points else log_mel
  return jnp.stack([log_mel, first, second], axis=-1)


def resized(images: jax.Array, size: int) -> jax.Array:
  """Bilinear resize of the two axes before the channels: [..., h, w, c] -> [..., size, size, c]."""
  if images.shape[-3:-1] == (size, size):
    return images
  return jax.image.resize(images, (*images.shape[:-3], size, size, images.shape[-1]), 'bilinear')


def _hidden_band(key: jax.Array, length: int, widest: int) -> jax.Array:
  """True on a random stretch of 0 to `widest` places out of `length`."""
  key_width, key_start = jax.random.split(key)
  width = jax.random.randint(key_width, (), 0, widest + 1)
  start = jax.random.randint(key_start, (), 0, length - width + 1)
  place = jnp.arange(length)
  return (place >= start) & (place < start + width)


def mask_sound(images: jax.Array, keys: jax.Array, *, time: int, mel: int) -> jax.Array:
  """Hides one random stretch of time and one of mel bands in each image (0 is the training mean after the z-score).

  Args:
    images: [B, 64, T, 3], z-scored.
    keys: [B] random keys.
    time, mel: widest stretch, in frames and in bands; 0 for none.
  """

  def one(image: jax.Array, key: jax.Array) -> jax.Array:
    bands = _hidden_band(jax.random.fold_in(key, 0), image.shape[0], mel)
    frames = _hidden_band(jax.random.fold_in(key, 1), image.shape[1], time)
    return jnp.where((bands[:, None] | frames[None, :])[..., None], 0.0, image)

  return jax.vmap(one)(images, keys)


def vary_sound(images: jax.Array, keys: jax.Array, *, shift: int, level: float, static: int) -> jax.Array:
  """Other voices and other loudness: shifts each image along the mel bands and raises its static channels as a whole.

  Args:
    images: [B, 64, T, 3], z-scored.
    keys: [B] random keys.
    shift: farthest shift in bands, edges replicated.
    level: deviation of the raise.
    static: how many of the channels, from the first, hold the static image.
  """

  def one(image: jax.Array, key: jax.Array) -> jax.Array:
    key_shift, key_level = jax.random.split(jax.random.fold_in(key, 2))
    padded = jnp.pad(image, ((shift, shift), (0, 0), (0, 0)), mode='edge')
    moved = jax.random.randint(key_shift, (), 0, 2 * shift + 1)
    image = jax.lax.dynamic_slice(padded, (moved, 0, 0), image.shape)
    return image.at[..., :static].add(level * jax.random.normal(key_level))

  return jax.vmap(one)(images, keys)


def vary_faces(faces: jax.Array, keys: jax.Array, *, flip: bool, shift: int, brightness: float) -> jax.Array:
  """One random mirroring, shift and gain for all frames of each clip: movement stays what it was.

  Args:
    faces: [B, 16, h, w, 3], centred on 0.
    keys: [B] random keys.
    flip: mirror half of the clips.
    shift: farthest shift in pixels, edges replicated.
    brightness: widest relative change of the gain.
  """

  def one(clip: jax.Array, key: jax.Array) -> jax.Array:
    key_flip, key_shift, key_gain = jax.random.split(key, 3)
    if flip:
      clip = jnp.where(jax.random.bernoulli(key_flip), clip[:, :, ::-1], clip)
    if shift:
      moved = jax.random.randint(key_shift, (2,), 0, 2 * shift + 1)
      padded = jnp.pad(clip, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode='edge')
      clip = jax.lax.dynamic_slice(padded, (0, moved[0], moved[1], 0), clip.shape)
    return clip * (1 + jax.random.uniform(key_gain, minval=-brightness, maxval=brightness))

  return jax.vmap(one)(faces, keys)


def scaled_faces(faces: jax.Array, *, scaling: str) -> jax.Array:
  """Pixels of 0 to 255 to what the network takes.

  Args:
    faces: uint8 or float [B, 16, h, w, 3]; for 'clip' [B, 17, h, w, 3], the clip's mean face before the frames.
    scaling: 'fixed' maps 0..255 to -1..1; 'segment' gives each channel of each segment mean 0 and deviation 1, which
      takes much of the speaker's skin and light away; 'clip' takes the clip's mean face away, which leaves what moves;
      'published' leaves pixels as they are, for the contract of published weights.

  Raises:
    ValueError: another word.
  """
  faces = faces.astype(jnp.float32)
  if scaling == 'fixed':
    return faces / 127.5 - 1
  if scaling == 'clip':
    return (faces[:, 1:] - faces[:, :1]) / 127.5
  if scaling == 'published':
    return faces
  if scaling == 'segment':
    axes = (1, 2, 3)
    spread = jnp.std(faces, axes, keepdims=True)
    return (faces - jnp.mean(faces, axes, keepdims=True)) / jnp.maximum(spread, 1.0)
  raise ValueError(f'visual.scaling={scaling!r}: use fixed, segment, clip or published')

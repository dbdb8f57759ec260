"""Tests of what the networks are fed, against loops in numpy."""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from emo_jax.models import inputs


def keys(count: int, seed: int = 0) -> jax.Array:
  return jax.random.split(jax.random.key(seed), count)


def loop_deltas(x: np.ndarray) -> np.ndarray:
  """d[t] = sum over n of n (c[t + n] - c[t - n]) / 10, n = 1, 2, indices held at the edges."""
  last, y = x.shape[-1] - 1, np.zeros_like(x)
  for t, n in itertools.product(range(last + 1), (1, 2)):
    y[..., t] += n * (x[..., min(t + n, last)] - x[..., max(t - n, 0)]) / 10
  return y


def test_deltas_by_hand() -> None:
  got = inputs.deltas(jnp.array([0.0, 1.0, 4.0, 9.0, 16.0]), points=5)
  # (1 - 0 + 2 (4 - 0)) / 10, (4 - 0 + 2 (9 - 0)) / 10, (9 - 1 + 2 (16 - 0)) / 10, ...
  np.testing.assert_allclose(got, [0.9, 2.2, 4.0, 4.2, 3.1], rtol=1e-6)


@pytest.mark.parametrize('length', [1, 2, 5, 64])
def test_deltas_equal_a_loop(length: int) -> None:
  x = np.random.default_rng(0).normal(size=(2, 3, length))
  np.testing.assert_allclose(inputs.deltas(jnp.asarray(x, jnp.float32), points=5), loop_deltas(x), atol=1e-5)


def filtered_deltas(x: np.ndarray) -> np.ndarray:
  """The script's: first and last column four times more, a causal filter with weights 4 to -4, the delay cut off."""
  padded = np.concatenate([np.repeat(x[..., :1], 4, -1), x, np.repeat(x[..., -1:], 4, -1)], -1)
  return scipy.signal.lfilter(np.arange(4, -5, -1), 1, padded, axis=-1)[..., 8:]


@pytest.mark.parametrize('length', [1, 3, 64])
def test_deltas_of_9_points_equal_the_scripts_filter(length: int) -> None:
  x = np.random.default_rng(0).normal(size=(2, 3, length))
  got = inputs.deltas(jnp.asarray(x, jnp.float32), points=9)
  np.testing.assert_allclose(got, filtered_deltas(x), atol=1e-4)


@pytest.mark.parametrize(('points', 'slope'), [(5, 1), (9, 60)])  # 2 (1 + 4 + 9 + 16) = 60, not divided
def test_a_ramp_has_one_slope_inside_and_a_constant_slope_0(points: int, slope: float) -> None:
  np.testing.assert_allclose(inputs.deltas(jnp.arange(20.0), points=points)[4:-4], slope, rtol=1e-6)
  np.testing.assert_array_equal(inputs.deltas(jnp.full(20, 7.0), points=points), 0)


@pytest.mark.parametrize(('points', 'delta'), [(5, loop_deltas), (9, filtered_deltas), (0, np.copy)])
def test_sound_image_holds_static_delta_and_delta_of_delta_of_one_window(points: int, delta: Callable) -> None:
  x = np.random.default_rng(0).normal(size=(3, 64, 16))
  image = inputs.sound_image(jnp.asarray(x, jnp.float32), points=points)
  assert image.shape == (3, 64, 16, 3)
  np.testing.assert_allclose(image, np.stack([x, delta(x), delta(delta(x))], -1), rtol=1e-5, atol=1e-3)


def test_resizing_to_the_same_size_changes_nothing() -> None:
  images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 7, 3)), jnp.float32)
  np.testing.assert_array_equal(inputs.resized(images, 7), images)


def test_resizing_is_bilinear_with_centred_pixels_over_the_two_axes_before_the_channels() -> None:
  x = np.random.default_rng(0).normal(size=(2, 4, 5, 6, 3))  # height 5 and width 6 to 12 pixels
  got = inputs.resized(jnp.asarray(x, jnp.float32), 12)

  def weights(length: int) -> np.ndarray:
    place = np.clip((np.arange(12) + 0.5) * length / 12 - 0.5, 0, length - 1)
    return np.maximum(1 - np.abs(place[:, None] - np.arange(length)), 0)

  np.testing.assert_allclose(got, np.einsum('hi,wj,...ijc->...hwc', weights(5), weights(6), x), atol=1e-5)


@pytest.mark.parametrize(('time', 'mel'), [(0, 0), (5, 0), (0, 7), (5, 7), (40, 64)])
def test_masks_hide_one_stretch_of_time_and_one_of_bands_within_the_limits(time: int, mel: int) -> None:
  rng = np.random.default_rng(0)
  images = rng.uniform(1, 2, size=(300, 64, 40, 3)).astype(np.float32)
  masked = np.asarray(inputs.mask_sound(jnp.asarray(images), keys(300), time=time, mel=mel))
  hidden = masked == 0
  np.testing.assert_array_equal(masked[~hidden], images[~hidden])
  assert np.all(hidden.all(-1) == hidden.any(-1))  # all channels alike
  bands, frames = hidden[..., 0].all(2), hidden[..., 0].all(1)
  full = bands.all(1) | frames.all(1)  # everything hidden: which stretch did it cannot be told
  np.testing.assert_array_equal(hidden[~full, ..., 0], bands[~full, :, None] | frames[~full, None, :])
  for marks, widest in [(bands[~full], mel), (frames[~full], time)]:
    widths, edges = marks.sum(1), np.abs(np.diff(np.pad(marks, ((0, 0), (1, 1))).astype(int), axis=1)).sum(1)
    assert np.all(edges == 2 * (widths > 0))  # one stretch
    assert set(widths) == set(range(widest + 1)) if widest < 10 else widths.max() > 0.9 * widest - 2
    assert marks.any(0).all() or widest == 0  # every place is hidden now and then, the edges too


def test_masks_belong_to_rows() -> None:
  images = jnp.ones((6, 64, 40, 3))
  whole = np.asarray(inputs.mask_sound(images, keys(6), time=9, mel=9))
  apart = [inputs.mask_sound(images[i : i + 1], keys(6)[i : i + 1], time=9, mel=9)[0] for i in range(6)]
  np.testing.assert_array_equal(whole, np.stack(apart))
  assert len({row.tobytes() for row in whole}) == 6


def test_voices_are_shifted_along_the_bands_and_raised_in_the_static_channel_alone() -> None:
  image = np.random.default_rng(0).normal(size=(64, 10, 3)).astype(np.float32)
  images = jnp.tile(jnp.asarray(image), (400, 1, 1, 1))
  varied = np.asarray(inputs.vary_sound(images, keys(400), shift=3, level=0.5, static=1))
  bands = {by: np.clip(np.arange(64) + by, 0, 63) for by in range(-3, 4)}  # edges replicated
  found = [next(by for by in bands if np.array_equal(row[..., 1:], image[bands[by], :, 1:])) for row in varied]
  assert set(found) == set(bands)
  raised = np.array([row[..., 0] - image[bands[by], :, 0] for row, by in zip(varied, found, strict=True)])
  assert np.ptp(raised, axis=(1, 2)).max() < 1e-5  # the whole channel alike
  assert raised[:, 0, 0].std() == pytest.approx(0.5, rel=0.15)
  assert abs(raised[:, 0, 0].mean()) < 4 * 0.5 / 20
  assert abs(np.corrcoef(found, raised[:, 0, 0])[0, 1]) < 0.2
  apart = [
    inputs.vary_sound(images[i : i + 1], keys(400)[i : i + 1], shift=3, level=0.5, static=1)[0] for i in range(3)
  ]
  np.testing.assert_allclose(varied[:3], np.stack(apart), atol=1e-6)


def test_no_variation_of_the_voice_changes_nothing() -> None:
  images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 64, 6, 3)), jnp.float32)
  np.testing.assert_array_equal(inputs.vary_sound(images, keys(2), shift=0, level=0.0, static=1), images)


def candidates(clip: np.ndarray, flip: bool, shift: int) -> dict[tuple[bool, int, int], np.ndarray]:
  """All mirrorings and shifts of a clip [T, h, w, 3], pixels beyond the edges replicated, by index arithmetic."""
  _, height, width, _ = clip.shape
  moves = range(-shift, shift + 1)
  found = {}
  for mirrored, down, right in itertools.product((False, True) if flip else (False,), moves, moves):
    source = clip[:, :, ::-1] if mirrored else clip
    rows = np.clip(np.arange(height) + down, 0, height - 1)
    columns = np.clip(np.arange(width) + right, 0, width - 1)
    found[mirrored, down, right] = source[:, rows][:, :, columns]
  return found


@pytest.mark.parametrize(('flip', 'shift', 'brightness'), [(True, 1, 0.3), (False, 2, 0.0), (True, 0, 0.2)])
def test_a_clip_is_mirrored_shifted_and_scaled_as_a_whole(flip: bool, shift: int, brightness: float) -> None:
  clip = np.random.default_rng(0).normal(size=(4, 6, 5, 3)).astype(np.float32)  # frames differ
  clips = jnp.asarray(np.repeat(clip[None], 200, 0))
  varied = np.asarray(inputs.vary_faces(clips, keys(200), flip=flip, shift=shift, brightness=brightness))
  known, seen, gains = candidates(clip, flip, shift), set(), []
  for got in varied:
    fits = {}
    for move, want in known.items():
      gain = float((got * want).sum() / (want * want).sum())
      if np.allclose(got, gain * want, atol=1e-5):
        fits[move] = gain
    assert len(fits) == 1, 'no single mirroring, shift and gain explains all frames of this clip'
    (move, gain), *_ = fits.items()
    seen.add(move)
    gains.append(gain)
  assert seen == set(known)  # 200 draws see all of at most 25 moves
  assert 1 - brightness - 1e-5 <= min(gains) <= 1 - 0.9 * brightness
  assert 1 + 0.9 * brightness - 1e-5 <= max(gains) <= 1 + brightness + 1e-5


def test_variations_belong_to_rows() -> None:
  clips = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2, 6, 6, 3)), jnp.float32)
  vary = lambda clips, keys: np.asarray(inputs.vary_faces(clips, keys, flip=True, shift=2, brightness=0.2))
  whole = vary(clips, keys(5))
  for i in range(5):
    np.testing.assert_allclose(vary(clips[i : i + 1], keys(5)[i : i + 1])[0], whole[i], rtol=1e-6)


def test_no_variation_changes_nothing() -> None:
  clips = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 6, 6, 3)), jnp.float32)
  np.testing.assert_array_equal(inputs.vary_faces(clips, keys(2), flip=False, shift=0, brightness=0.0), clips)


def test_fixed_scaling_maps_bytes_to_minus_1_to_1() -> None:
  faces = jnp.asarray(np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 1, 3))
  np.testing.assert_allclose(inputs.scaled_faces(faces, scaling='fixed').ravel(), [-1, -0.6, 1], atol=1e-6)


def test_segment_scaling_standardises_each_channel_of_each_segment() -> None:
  rng = np.random.default_rng(0)
  faces = (rng.uniform(0, 100, size=(2, 4, 5, 6, 3)) + np.array([0, 50, 150])).astype(np.uint8)
  faces[1, ..., 2] = 77  # a flat channel stays 0
  scaled = np.asarray(inputs.scaled_faces(jnp.asarray(faces), scaling='segment'))
  for segment, channel in itertools.product(range(2), range(3)):
    x = faces[segment, ..., channel].astype(np.float64)
    want = (x - x.mean()) / x.std() if x.std() else np.zeros_like(x)
    np.testing.assert_allclose(scaled[segment, ..., channel], want, atol=1e-4)


def test_clip_scaling_takes_the_mean_face_away() -> None:
  faces = np.random.default_rng(0).integers(0, 256, size=(2, 17, 3, 4, 3)).astype(np.uint8)
  scaled = np.asarray(inputs.scaled_faces(jnp.asarray(faces), scaling='clip'))
  want = [[(faces[b, 1 + k].astype(float) - faces[b, 0]) / 127.5 for k in range(16)] for b in range(2)]
  np.testing.assert_allclose(scaled, want, atol=1e-6)


def test_an_unknown_scaling_is_refused_by_name() -> None:
  with pytest.raises(ValueError, match=r"scaling='frame'.*fixed, segment, clip or published"):
    inputs.scaled_faces(jnp.zeros((1, 1, 1, 1, 3)), scaling='frame')

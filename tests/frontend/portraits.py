"""Pictures of drawn faces whose eyes are known: the heads of the demo corpus."""

import functools

import cv2
import numpy as np

from emo_jax.corpora import demo

SHAPE = (270, 360)


@functools.cache
def _drawn(speaker: int) -> tuple[np.ndarray, np.ndarray]:
  """A head on its canvas, RGB [560, 680, 3], and where it is opaque."""
  who = demo._speaker(0, speaker)
  image, cover, *_ = demo._head(who)
  demo._features(image, who, 0.0, 0.3, 0.0)
  return image, cover


def portrait(
  *, apart: float, middle: tuple[float, float], angle: float = 0.0, speaker: int = 0, onto: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """A picture of a drawn face, on grey or `onto` another, and its eyes [2, 2], `apart` px about `middle`."""
  image, cover = _drawn(speaker)
  turn = cv2.getRotationMatrix2D(demo.CENTRE.tolist(), angle, apart / demo.EYES)
  turn[:, 2] += np.array(middle) - demo.CENTRE
  alpha = cv2.warpAffine(cover, turn, SHAPE[::-1])[..., None]
  shown = cv2.warpAffine(image, turn, SHAPE[::-1], borderMode=cv2.BORDER_REPLICATE)
  behind = np.full((*SHAPE, 3), 120) if onto is None else onto
  eyes = demo.CENTRE + np.array([[-0.5, 0], [0.5, 0]]) * demo.EYES
  return (shown * alpha + behind * (1 - alpha)).astype(np.uint8), eyes @ turn[:, :2].T + turn[:, 2]


def error(eyes: np.ndarray, truth: np.ndarray) -> float:
  """Distance of the worse eye as a share of the distance between the two."""
  return float(np.linalg.norm(eyes - truth, axis=1).max() / np.linalg.norm(truth[1] - truth[0]))

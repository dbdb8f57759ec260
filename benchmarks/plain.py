"""The plain recipe that a user would write: clips to features, and on to two networks (for prepare.py, predict.py)."""

import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np


@functools.cache
def _cascade(name: str) -> Any:
  import cv2

  cv2.setNumThreads(1)
  return cv2.CascadeClassifier(str(pathlib.Path(cv2.__file__).parent / f'data/haarcascade_{name}.xml'))


def plain_clip(path: str, folder: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
  """Writes one clip's features, and returns the boxes [F, 4] and the eyes [F, 2, 2] in its frames."""
  import av
  import cv2
  import librosa

  with av.open(path) as container:
    rate = container.streams.audio[0].rate
    wave = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
  mel = librosa.feature.melspectrogram(
    y=wave, sr=rate, n_fft=rate // 40, hop_length=rate // 100, n_mels=64, fmin=20, fmax=8000
  )
  static = librosa.power_to_db(mel)
  sound = np.stack([static, librosa.feature.delta(static), librosa.feature.delta(static, order=2)])
  crops, boxes, pairs = [], [], []
  with av.open(path) as container:
    for frame in container.decode(video=0):
      image = frame.to_ndarray(format='rgb24')
      gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
      box, pair = np.full(4, np.nan), np.full((2, 2), np.nan)
      found = _cascade('frontalface_default').detectMultiScale(gray, 1.1)
      if len(found):
        x, y, w, h = box = max(found, key=lambda each: each[2])
        eyes = _cascade('eye').detectMultiScale(gray[y : y + h, x : x + w], 1.1)
        if len(eyes) > 1:
          pair = np.array([(x + ex + ew / 2, y + ey + eh / 2) for ex, ey, ew, eh in sorted(eyes[:2].tolist())])
        crops.append(cv2.resize(image[y : y + h, x : x + w], size[::-1]))
      boxes.append(box)
      pairs.append(pair)
  np.savez(pathlib.Path(folder) / pathlib.Path(path).stem, sound=sound, faces=np.array(crops))
  return np.array(boxes), np.array(pairs)


def networks(configs: dict[str, Any]) -> Any:
  """(sound [3, 64, T], faces [F, h, w, 3], as `plain_clip` writes them) -> a clip's mean verdict of each network.

  The networks are of the sizes that the configs name, in eager PyTorch, with random weights.

  Args:
    configs: 'audio' and 'visual', parts of an experiment's config.
  """
  import torch

  from benchmarks import peers

  nets = {name: peers.Net(configs[name], name).eval() for name in ('audio', 'visual')}

  def verdicts(sound: np.ndarray, faces: np.ndarray) -> list[np.ndarray]:
    found = []
    for name, windows in zip(nets, _windows(sound, faces, configs), strict=True):
      with torch.inference_mode():
        shares = [nets[name](batch)[0].softmax(-1) for batch in torch.from_numpy(windows).split(8)]
      found.append(torch.cat(shares).mean(0).numpy())
    return found

  return verdicts


def _windows(sound: np.ndarray, faces: np.ndarray, configs: dict[str, Any]) -> Iterator[np.ndarray]:
  """Of a clip's features the log-mel windows [S, 3, h, w], then 16 faces of each [S, 3, 16, h, w], float32."""
  import cv2

  scaled = lambda image, name: cv2.resize(image.astype(np.float32), (configs[name].size,) * 2)
  starts = range(0, max(sound.shape[2] - 63, 1), 30)
  yield np.stack([scaled(sound[:, :, s : s + 64].transpose(1, 2, 0), 'audio').transpose(2, 0, 1) for s in starts])
  small = np.stack([scaled(face, 'visual') for face in faces]).transpose(3, 0, 1, 2) / np.float32(255)
  ends = np.array([(s, s + 64) for s in starts]) / sound.shape[2] * len(faces)
  yield np.stack([small[:, np.linspace(first, last, 16).astype(int).clip(max=len(faces) - 1)] for first, last in ends])

"""One half of a clip to its hand-crafted vector, in a decoder's process (pipeline step: handcrafted).

As in preparing, strangers' media and libraries in C are kept out of the run: `take` has a child do it, this module run
as a program. It differs from frontend/decoder.py in what it makes of a file.
"""

import os
import pathlib
from typing import Any

import numpy as np

from emo_jax.frontend import decoder, media, store
from emo_jax.handcrafted import face, sound

COMMAND = (*decoder.COMMAND[:-1], 'emo_jax.handcrafted.halves')


def take(half: str, path: str, target: str, settings: dict[str, Any], limit: float) -> str:
  """Writes a half's vector in a child, which a bad clip may crash.

  Args:
    half, path, target, settings: as `describe` has them.
    limit: seconds without a sign of life after which the child is killed.

  Returns:
    why nothing was written, '' if it was.

  Raises:
    MachineFailure: it is not the clip's fault; a missing package, for one.
  """
  return decoder.prepare_half(half, path, target, settings, limit=limit, command=COMMAND)['reason']


def describe(
  half: str, path: str, target: str, settings: dict[str, Any], beat: store.Beat = store.nothing
) -> dict[str, Any]:
  """Writes a half's vector to `<target>.npy`, and never raises for what a clip can hold.

  Args:
    half: 'sound' or 'face'.
    path: the media file, or the face in the store, without its ending.
    target: what is written, without its ending.
    settings: config.handcrafted.
    beat: called at every block of sound, and between a face's steps.

  Returns:
    {'reason': why nothing was written, '' if it was}.

  Raises:
    OSError, ImportError, MemoryError: the machine's fault, not the clip's.
  """
  try:
    values = {'sound': _sound, 'face': _face}[half](path, settings, beat)
  except (OSError, ImportError, MemoryError):
    raise
  except Exception as error:
    return {'reason': f'{pathlib.Path(path).name}: {half} failed with {type(error).__name__}: {error}'}
  with open(f'{target}.partial', 'wb') as file:
    np.save(file, values)
  os.replace(f'{target}.partial', f'{target}.npy')
  return {'reason': ''}


def _sound(path: str, settings: dict[str, Any], beat: store.Beat) -> np.ndarray:
  samples = np.concatenate(list(store.watched(media.sound(path), beat)))
  return sound.describe(samples, media.probe(path).rate, kind=settings['sound'])


def _face(path: str, settings: dict[str, Any], beat: store.Beat) -> np.ndarray:
  frames = np.load(f'{path}.npy', mmap_mode='r', allow_pickle=False)
  facts = store.read_facts(pathlib.Path(path))
  if facts is None:
    raise ValueError('its times and eyes are gone from the store')
  film = face.grey(store.watched(frames, beat), size=settings['size'])
  beat()
  return face.describe(film, facts['confidence'][: len(film)] > 0)


if __name__ == '__main__':
  decoder.serve(describe)

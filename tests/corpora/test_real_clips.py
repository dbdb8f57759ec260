"""Real clips of RAVDESS and CREMA-D, through the corpora's readers and into the store."""

import pathlib
from collections.abc import Sequence

import numpy as np
import pytest

from configs import default
from emo_jax.corpora import cremad, ravdess
from emo_jax.corpora.clip import Clip, content_hash
from emo_jax.frontend import halves


def sample(data_root: pathlib.Path, name: str) -> str:
  if not (data_root / name).is_dir():
    pytest.skip(f'no real clips: {data_root / name} is absent')
  return str(data_root / name)


def check_prepared(clips: Sequence[Clip], folder: pathlib.Path, *, shortest: float, longest: float) -> None:
  """Both halves of every clip are stored, last as long as the clip (in seconds), and show a face nearly throughout."""
  settings = default.get_config().frontend.to_dict()
  settings['faces']['every'] = 4
  for clip in clips:
    assert clip.picture is not None
    record = halves.prepare_clip(clip, {str(clip.picture): content_hash(clip.picture)}, str(folder), settings)
    assert record['audio'] and record['faces'] and not record['reason']
    columns = np.load(folder / f'{record["audio"]}.npy', mmap_mode='r')
    faces = np.load(folder / f'{record["faces"]}.npz')
    assert shortest < 0.01 * columns.shape[1] < longest and np.ptp(columns) > 40  # decibels: not silence
    assert shortest < np.ptp(faces['times']) < longest
    assert np.mean(faces['confidence'] > 0) > 0.9


def test_six_films_of_cremad(data_root: pathlib.Path, tmp_path: pathlib.Path) -> None:
  clips = cremad.read(sample(data_root, 'crema_d_sample'), label='acted').clips
  assert [clip.id for clip in clips] == [f'1001_DFA_{code}_XX' for code in ('ANG', 'DIS', 'FEA', 'HAP', 'NEU', 'SAD')]
  assert [clip.emotion for clip in clips] == ['anger', 'disgust', 'fear', 'happiness', 'neutral', 'sadness']
  assert {(clip.speaker, clip.sentence, clip.group) for clip in clips} == {('1001', 'DFA', '1')}
  check_prepared(clips, tmp_path, shortest=1.7, longest=2.6)


def test_a_film_of_ravdess(data_root: pathlib.Path, tmp_path: pathlib.Path) -> None:
  (clip,) = ravdess.read(sample(data_root, 'ravdess_sample')).clips
  assert (clip.id, clip.speaker, clip.emotion, clip.group) == ('01-01-01-01-01-01-01', '01', 'neutral', '1')
  check_prepared([clip], tmp_path, shortest=2.5, longest=5.0)

"""Tests of what the networks' stages expect of each other, without training."""

import pathlib

import numpy as np
import pytest

from emo_jax.context import Experiment
from emo_jax.steps import networks, start
from tests import tiny


@pytest.mark.parametrize(
  ('modality', 'z_score', 'shape'),
  [('audio', 'before', (64, 40, 3)), ('audio', 'after', (80, 80, 3)), ('visual', 'before', (32, 24, 3))],
)
def test_statistics_are_of_what_is_standardised(modality: str, z_score: str, shape: tuple[int, ...]) -> None:
  config = tiny.get_config()
  config.frontend.segments.length = 40
  config.frontend.faces.size = (32, 24)
  config.audio.update({'size': 80, 'z_score': z_score, 'mask_time': 0, 'mask_mel': 0})
  x = Experiment(config, pathlib.Path(), pathlib.Path(), [], ['a', 'b'], [])
  like = start.variables_like(x, modality)['statistics']
  assert {name: (leaf.shape, leaf.dtype) for name, leaf in like.items()} == {
    'mean': (shape, np.float32),
    'deviation': (shape, np.float32),
    'gain': ((3,), np.float32),
  }
  networks.check(x, modality)  # and the network takes them


def test_a_network_is_built_once_for_all_folds_and_anew_for_another_config() -> None:
  x = Experiment(tiny.get_config(), pathlib.Path(), pathlib.Path(), [], ['a', 'b'], [])
  built = start.modality_of(x, 'audio')
  assert start.modality_of(x, 'audio') is built
  x.config.audio.optim.lr = 0.5
  assert start.modality_of(x, 'audio') is not built


def test_features_of_other_segments_are_never_handed_out(tmp_path: pathlib.Path) -> None:
  x = Experiment(tiny.get_config(), pathlib.Path(), pathlib.Path(), [], ['a', 'b'], [])
  x.made['features'] = [tmp_path]
  np.save(tmp_path / 'audio_rows.npy', np.array([0, 2, 3, 7]))
  np.save(tmp_path / 'audio_features.npy', np.arange(8.0).reshape(4, 2))
  np.testing.assert_array_equal(networks.load_features(x, 0, np.array([2, 7]), 'audio'), [[2, 3], [6, 7]])
  for wrong in ([1], [2, 4]):
    with pytest.raises(AssertionError, match='other segments'):
      networks.load_features(x, 0, np.array(wrong), 'audio')

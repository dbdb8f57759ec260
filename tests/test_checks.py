"""What a config may say: every refusal names the field, its value and what it may be."""

import importlib.util
from typing import Any

import pytest

from emo_jax import checks
from tests import tiny


def check(changes: dict[str, Any]) -> None:
  config = tiny.get_config()
  config.update_from_flattened_dict(changes)
  checks.check(config, stages=('report',), corpora=('demo',))


@pytest.mark.parametrize(
  'changes',
  [
    {},
    {'audio.mask_mel': 64, 'audio.shift_mel': 63},
    {'fusion.scaling': 'standard', 'fusion.visible': 'gaussian', 'fusion.rbm.learn_variance': True},
    {'fusion.top': 'linear', 'fusion.scaling': 'joint'},
    {'fusion.finetune.drop_half': 1.0, 'missing.part': 'leave_out', 'missing.whole': 'zero', 'missing.steps': 1},
    {'fusion.rbm.ais.chains': 5, 'fusion.rbm.momentum': (0.9,)},
    {'executor.backend': 'dask', 'executor.address': 'tcp://host:8786', 'executor.workers': -1},
  ],
)
def test_what_can_run_is_accepted(changes: dict[str, Any]) -> None:
  check(changes)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'data.cremad.label': 'voted'}, "cremad.label='voted': use acted or crowd"),
    ({'fusion.rbm.momentum': ()}, r'fusion\.rbm\.momentum=\(\)'),
    ({'fusion.rbm.lr': -1.0}, r'fusion\.rbm\.lr=-1\.0.*from 0'),
    ({'fusion.rbm.ais.chains': -1}, r'ais\.chains=-1.*from 0'),
    ({'fusion.rbm.ais.temperatures': 0}, r'ais\.temperatures=0.*from 1'),
    ({'fusion.finetune.dropout': 1.5}, r'finetune\.dropout=1\.5.*0 to 0\.999'),
    ({'fusion.finetune.drop_half': 1.1}, r'finetune\.drop_half=1\.1.*0 to 1'),
    ({'fusion.finetune.drop_half': -0.1}, r'finetune\.drop_half=-0\.1.*0 to 1'),
    ({'missing.part': 'median'}, r"missing\.part='median': use gibbs or mean_field or zero or mean or leave_out"),
    ({'missing.whole': ''}, r"missing\.whole='': use gibbs"),
    ({'missing.steps': 0}, r'missing\.steps=0.*whole number'),
    ({'audio.dropout': 1.0}, r'audio\.dropout=1\.0'),
    ({'audio.level': -0.1}, r'audio\.level=-0\.1'),
    ({'audio.shift_mel': 64}, r'audio\.shift_mel=64.*use 0 to 63'),
    ({'audio.z_score': 'after', 'audio.mask_time': 0, 'audio.mask_mel': 0, 'audio.shift_mel': 1}, 'frames or bands'),
    ({'visual.shift': -2}, r'visual\.shift=-2'),
    ({'frontend.faces.every': 0}, r'faces\.every=0.*whole number'),
    ({'frontend.faces.min_face': 0.0}, r'min_face=0\.0'),
    ({'fusion.rbm.learn_variance': True}, 'learn_variance needs gaussian visible units, not probability'),
    ({'fusion.visible': 'gaussian'}, r"scaling='modality' with config\.fusion\.visible='gaussian'"),
    ({'fusion.scaling': 'standard'}, r"scaling='standard' with config\.fusion\.visible='probability'"),
    ({'fusion.top': 'relu'}, r"fusion\.top='relu'.*linear"),
    ({'fusion.finetune.kind': 'none', 'fusion.finetune.select': 'held'}, 'needs kind=softmax'),
    ({'fusion.rbm.persistent': True, 'fusion.top': 'linear'}, 'nothing is sampled'),
    ({'executor.backend': 'multiprocessing'}, "executor.backend='multiprocessing': use threading or loky or dask"),
    ({'methods': ()}, r'methods=\(\)'),
    ({'methods': ('audio', 'audio')}, 'each once'),
    ({'methods': ('audio', 'sum')}, 'one or more, each once, of audio, visual'),
    ({'handcrafted.sound': 'praat'}, "handcrafted.sound='praat': use librosa or egemaps or compare"),
    ({'score.sound': 1.5}, r'score\.sound=1\.5.*0 to 1'),
    ({'score.candidates': (0.5, 2.0)}, 'weights of the sound are from 0 to 1'),
    ({'score.candidates': (0.5,), 'data.judge': 'held'}, 'score.candidates with config.data.judge=held'),
    ({'executor.workers': 0}, r'executor\.workers=0: use -1'),
    ({'executor.workers': -2}, r'executor\.workers=-2'),
    ({'executor.limit': 0.0}, r'executor\.limit=0\.0.*from 1'),
    ({'executor.limit': float('inf')}, r'executor\.limit=inf.*to 86400'),
    ({'executor.address': 'tcp://host:8786'}, 'executor.address with config.executor.backend=threading: set backend=d'),
  ],
)
def test_what_a_stage_would_stumble_over_is_refused_before_anything_runs(changes: dict[str, Any], message: str) -> None:
  with pytest.raises(ValueError, match=message):
    check(changes)


def test_dask_that_is_not_installed_is_asked_for_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
  find = importlib.util.find_spec
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'distributed' else find(name))
  with pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[dask\]'"):
    check({'executor.backend': 'dask'})
  check({'executor.backend': 'loky'})

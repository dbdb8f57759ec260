"""Who is judged, and which stages that needs."""

import pytest

from emo_jax import contenders, experiment
from tests import tiny


@pytest.mark.parametrize(
  ('methods', 'skipped'),
  [
    (('audio', 'hybrid'), {'handcrafted'}),
    (('mean',), {'handcrafted', 'fusion'}),
    (('handcrafted',), {'audio_net', 'visual_net', 'features', 'fusion'}),
    (('face_features', 'concat'), {'fusion'}),
    (tuple(contenders.CONTENDERS), set()),
  ],
)
def test_stages_that_nobody_needs_are_left_out(methods: tuple[str, ...], skipped: set[str]) -> None:
  config = tiny.get_config()
  config.methods = methods
  names = list(experiment.STAGES)
  assert experiment.stages_of(config) == [name for name in names if name not in skipped]
  config.until = 'features'
  assert experiment.stages_of(config) == [name for name in names[:4] if name not in skipped]


def test_hybrid_is_what_its_kind_makes_of_it() -> None:
  meanings = {contenders.meaning('hybrid', kind) for kind in contenders.FUSED}
  assert len(meanings) == len(contenders.FUSED)
  assert contenders.level('hybrid', 'mlp') == 'feature' and contenders.level('hybrid', 'dbn') == 'model'
  assert contenders.meaning('audio', 'mlp') == contenders.meaning('audio', 'dbn')

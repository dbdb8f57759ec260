"""Who is judged: the model and all that it is compared with, in the same folds (step: decide; method.md A5)."""

from collections.abc import Sequence
from typing import NamedTuple


class Contender(NamedTuple):
  """What stands behind a name in config.methods.

  Attributes:
    level: where sound and face come together, if they do.
    meaning: for people.
    needs: the stages whose results it is judged by.
  """

  level: str
  meaning: str
  needs: tuple[str, ...]


def _of_nets(level: str, meaning: str) -> Contender:
  return Contender(level, meaning, ('features',))


# `sum` would give the verdicts of `mean`, and is not here.
LEVELS = ('one modality', 'hand-crafted', 'feature', 'decision', 'score', 'model')
CONTENDERS = {
  'audio': _of_nets('one modality', 'sound alone: SVM on the 2-D CNN'),
  'visual': _of_nets('one modality', 'face alone: SVM on the 3-D CNN'),
  'audio_softmax': _of_nets('one modality', "sound alone: the 2-D CNN's own softmax"),
  'visual_softmax': _of_nets('one modality', "face alone: the 3-D CNN's own softmax"),
  'sound_features': Contender('hand-crafted', 'sound alone: SVM on hand-crafted features', ('handcrafted',)),
  'face_features': Contender('hand-crafted', 'face alone: SVM on HOG, LBP, LBP-TOP', ('handcrafted',)),
  'handcrafted': Contender('hand-crafted', 'both hand-crafted, joined: SVM', ('handcrafted',)),
  'concat': _of_nets('feature', 'both joined: SVM, no DBN'),
  'max': _of_nets('decision', 'the surer of both softmaxes'),
  'min': _of_nets('decision', 'the softer of both softmaxes, class by class'),
  'mean': _of_nets('decision', 'mean (or sum) of both softmaxes'),
  'product': _of_nets('decision', 'product of both softmaxes'),
  'majority': _of_nets('decision', 'most votes of the segments of both'),
  'score': _of_nets('score', 'both softmaxes, weighted'),
  'hybrid': Contender('model', 'both fused by the fusion network', ('features', 'fusion')),
}
# What config.fusion.kind makes of hybrid.
FUSED = {
  'dbn': 'both fused by the DBN: SVM',
  'fc': 'both fused by fully connected layers: SVM',
  'mlp': 'both joined and fused by an MLP on whole clips',
  'attention': 'cross-modal attention over segments',
  'encoding': 'joint encoding by transformers over segments',
}
FUSED_LEVEL = {'mlp': 'feature'}  # Tripathi's MLP joins features; the others are models of both
OF_SEGMENTS = ('dbn', 'fc')  # these give a feature of each segment, to pool and judge by an SVM; the others a verdict
SEEDED = ('hybrid',)  # config.seed acts on these alone
_OF_NETS = ('audio_net', 'visual_net', 'features')


def meaning(method: str, kind: str) -> str:
  """What a contender is, in words.

  Args:
    method: a name in CONTENDERS.
    kind: config.fusion.kind.
  """
  return FUSED[kind] if method == 'hybrid' else CONTENDERS[method].meaning


def level(method: str, kind: str) -> str:
  """Where a contender brings sound and face together: 'one modality', 'hand-crafted', 'feature', ... 'model'."""
  return FUSED_LEVEL.get(kind, 'model') if method == 'hybrid' else CONTENDERS[method].level


def unused_stages(methods: Sequence[str]) -> set[str]:
  """The stages that nobody in `methods` needs."""
  needed = {stage for method in methods for stage in CONTENDERS[method].needs}
  unused = {'handcrafted', 'fusion'} - needed
  return unused if 'features' in needed else unused | set(_OF_NETS)

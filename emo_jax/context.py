"""What the stages of an experiment share: its config, its clips and folds, and where each stage's folders lie."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from emo_jax import stages
from emo_jax.corpora.clip import Clip, LeftOut
from emo_jax.evaluation import folds as splitting
from emo_jax.evaluation.folds import Fold
from emo_jax.training import loop
from emo_jax.training.metrics import progress


class Unusable(ValueError):
  """What the user gave cannot be run; the message says why and what to do."""


@dataclasses.dataclass
class Experiment:
  """What the stages share.

  Attributes:
    config: the whole ConfigDict.
    workdir, cache: where results and stages lie.
    clips, classes, folds: the corpus and its split.
    left_out, warnings: of the corpus's archive, as its reader found them.
    split: what split.json says (evaluation/splits.py).
    metrics: where training writes its numbers, while the experiment runs.
    records: of each prepared clip, as halves.prepare_clip returns them.
    store, segments: the prepared clips and their windows.
    made: stage name -> its folders, one a fold ('decide/<method>' -> those of a method; prepare and handcrafted: one).
    planning: nothing is made; `made` says what would be.
  """

  config: Any
  workdir: pathlib.Path
  cache: pathlib.Path
  clips: list[Clip]
  classes: list[str]
  folds: list[Fold]
  left_out: list[LeftOut] = dataclasses.field(default_factory=list)
  warnings: list[str] = dataclasses.field(default_factory=list)
  split: dict[str, Any] = dataclasses.field(default_factory=dict)
  metrics: Any = None
  records: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  store: Any = None
  segments: Any = None
  made: dict[str, list[pathlib.Path]] = dataclasses.field(default_factory=dict)
  planning: bool = False

  def sides(self, fold: Fold) -> np.ndarray:
    """'train', 'held', 'test' or '' for each clip in a fold."""
    return np.array([splitting.side(clip, fold) or '' for clip in self.clips])

  def rows(self, fold: Fold, modalities: tuple[str, ...], *sides: str) -> np.ndarray:
    """int [n]: the segments of a fold's clips on these sides that have all these modalities ('audio', 'visual')."""
    has = {'audio': self.segments.has_audio, 'visual': self.segments.has_face}
    wanted = np.isin(self.sides(fold), sides)[self.segments.clip]
    return np.flatnonzero(np.logical_and.reduce([wanted, *(has[name] for name in modalities)]))

  def labels(self, rows: np.ndarray) -> np.ndarray:
    """int [n]: the class of the clip that each segment belongs to (method.md A3: a segment's label is its clip's)."""
    return self.truth()[self.segments.clip[rows]]

  def contents(self, clips: Iterable[int], halves: tuple[str, ...]) -> list[list[str | None]]:
    """What a stage's key says of clips: id, emotion, and the content of these halves ('audio', 'faces')."""
    return [[self.clips[c].id, self.clips[c].emotion, *(self.records[c][half] for half in halves)] for c in clips]

  def watch(self, folder: pathlib.Path, tick: Callable[[int], Any]) -> loop.Watch:
    """How the trainings of a stage's folder report and save (config.log, config.save)."""
    return loop.Watch(
      self.metrics.beside(folder), tick, log_every=self.config.log.every, save_every=self.config.save.every
    )

  @property
  def nets_seed(self) -> int:
    """The seed of the two networks: config.nets_seed, or config.seed where that is not set."""
    return self.config.seed if self.config.nets_seed is None else self.config.nets_seed

  def truth(self) -> np.ndarray:
    """int [clips]: the class of each clip."""
    return np.array([self.classes.index(clip.emotion) for clip in self.clips], int)

  def planned(self, name: str, keys: list[Any]) -> bool:
    """Whether a stage is only planned; then its folders are noted, and nothing is to be made."""
    if self.planning:
      self.made[name] = [stages.folder_of(self.cache, name, key) for key in keys]
    return self.planning

  def make_folds(self, name: str, keys: list[Any], work: Callable[..., None], weights: list[int], unit: str) -> None:
    """Makes a stage's folder of every fold under one progress bar: work(folder, fold number, tick)."""
    if self.planned(name, keys):
      return
    self.made[name] = []
    with progress(name, sum(weights), unit) as bar:
      for number, key in enumerate(keys):
        folder = stages.run(self.cache, name, key, functools.partial(work, number=number, tick=bar.update))
        self.made[name].append(folder)
        bar.update(sum(weights[: number + 1]) - bar.n)

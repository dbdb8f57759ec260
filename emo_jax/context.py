"""What the stages of an experiment share: its config, its clips and folds, and where each stage's folders lie."""

import contextlib
import dataclasses
import functools
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from emo_jax import processes, provenance, stages
from emo_jax.corpora.clip import Clip, LeftOut
from emo_jax.evaluation import folds as splitting
from emo_jax.evaluation.folds import Fold
from emo_jax.frontend import decoder
from emo_jax.training import checkpoint, loop
from emo_jax.training.metrics import progress


class Unusable(ValueError):
  """What the user gave cannot be run; the message says why and what to do."""


@contextlib.contextmanager
def explained(*places: pathlib.Path) -> Iterator[None]:
  """Says in a sentence what is wrong with the machine or with what was saved, met while working below `places`.

  Raises:
    Unusable: that.
  """
  try:
    yield
  except checkpoint.Unfit as error:
    raise Unusable(str(error)) from error
  except OSError as error:
    fullest = min((place for place in places if place.exists()), default=places[0], key=_free)
    raise Unusable(decoder.explain(error, fullest)) from error


def _free(place: pathlib.Path) -> int:
  return shutil.disk_usage(place).free


def by_lead(workdir: pathlib.Path, call: Callable[[], object]) -> None:
  """What the lead alone does in a work directory. What is wrong with that, all processes of the team are told.

  Raises:
    Unusable: that.
  """

  def called() -> None:
    with explained(workdir):
      call()

  try:
    processes.by_lead(called)
  except ValueError as error:
    raise Unusable(str(error)) from error


@contextlib.contextmanager
def holding(workdir: pathlib.Path) -> Iterator[None]:
  """Within the context no other run has the work directory. In several processes all call it, and the lead has it.

  Raises:
    Unusable: another run has it.
  """
  with contextlib.ExitStack() as stack:
    by_lead(workdir, lambda: stack.enter_context(provenance.locked(workdir)))
    yield


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
    profile: each kind of training leaves a trace of some of its steps in <workdir>/profile.
    spent: of each training of this process, where its seconds went (training/clock.py).
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
  profile: bool = False
  spent: list[dict[str, float]] = dataclasses.field(default_factory=list)

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

  def watch(
    self, folder: pathlib.Path, tick: Callable[[int, float], Any], segments: np.ndarray, *, by_clip: bool = False
  ) -> loop.Watch:
    """How the trainings of a stage's folder report and save (config.log, config.save).

    Args:
      folder, tick: of the stage; for its progress bar.
      segments: int [N], what the rows of the trainings are; with `by_clip` they are the clips of these, ascending.
    """
    items = self.clips_as_items if by_clip else self.items
    rows_are = np.unique(self.segments.clip[segments]) if by_clip else segments
    return loop.Watch(
      self.metrics.beside(folder),
      tick,
      log_every=self.config.log.every,
      save_every=self.config.save.every,
      items=lambda rows: items(rows_are[rows]),
      workdir=self.workdir,
      spent=self._note_spent,
      traces=self.workdir / 'profile' if self.profile and processes.lead() else None,
    )

  def items(self, segments: np.ndarray) -> list[dict[str, Any]]:
    """What segments are, for messages: of which clip, and their first log-mel frame."""
    of_clips, starts = self.clips_as_items(self.segments.clip[segments]), self.segments.start[segments].tolist()
    return [{**of, 'start': start} for of, start in zip(of_clips, starts, strict=True)]

  def clips_as_items(self, clips: np.ndarray) -> list[dict[str, Any]]:
    """What clips are, for messages."""
    return [{'clip': self.clips[clip].id} for clip in clips]

  def _note_spent(self, training: str, seconds: dict[str, float]) -> None:
    self.spent.append(seconds)
    rounded = {part: round(of_part, 4) for part, of_part in seconds.items()}
    provenance.note(self.workdir, event='training', train=training, **rounded)

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
    team, own = self.own_folds()
    with processes.working(team), progress(name, sum(weights[number] for number in own), unit) as bar:
      for turn, number in enumerate(own, start=1):
        stages.run(self.cache, name, keys[number], functools.partial(work, number=number, tick=bar.tick))
        bar.tick(sum(weights[number] for number in own[:turn]) - bar.n, 0)  # what was there already
    processes.together()
    self.made[name] = [stages.folder_of(self.cache, name, key) for key in keys]

  def own_folds(self) -> tuple[tuple[int, ...], range]:
    """The team of this process (config.parallel.folds), and the folds that are its."""
    teams = processes.teams(self.config.parallel.folds)
    place = next(place for place, members in enumerate(teams) if processes.number() in members)
    return teams[place], range(place, len(self.folds), len(teams))

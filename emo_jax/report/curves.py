"""Learning curves, as the trainings behind a finished experiment have left them (pipeline step: report)."""

import math
import pathlib
from collections.abc import Mapping

import numpy as np

from emo_jax import files
from emo_jax.context import Experiment

POINTS = 200  # most that a page can show of a curve
Curve = list[tuple[float, float]]  # (step, value), steps ascending


def read(x: Experiment) -> dict[str, dict[str, dict[str, Curve]]]:
  """The curves of all trainings behind an experiment, from the metrics.jsonl of its stages' folders.

  Returns:
    training -> 'fold_0', 'fold_1', ... -> measure -> at most 200 (step, value), both floats. A training is named as in
    metrics.jsonl but for the fold: 'audio_net', 'visual_net', 'fusion/rbm0', 'fusion/finetune'; after-epoch numbers
    are trainings of their own ('audio_net/epochs', 'fusion/rbm0/monitor', 'fusion/rbm0/likelihood'). The fold is this
    experiment's: another one, which shares the cache, may have counted otherwise. Folders without metrics.jsonl give
    nothing.
  """
  curves: dict[str, dict[str, dict[str, Curve]]] = {}
  for folders in x.made.values():
    for number, folder in enumerate(folders):
      for name, measures in _of_folder(folder / 'metrics.jsonl').items():
        stage, _, *part = name.split('/')
        curves.setdefault('/'.join([stage, *part]), {})[f'fold_{number}'] = {
          measure: binned(steps) for measure, steps in measures.items()
        }
  return curves


def _of_folder(path: pathlib.Path) -> dict[str, dict[str, dict[int, float]]]:
  """training -> measure -> step -> value; of lines with the same step the last holds: it is of the run that went on."""
  found: dict[str, dict[str, dict[int, float]]] = {}
  for values in files.entries(path):
    measures = found.setdefault(values.pop('train'), {})
    step = values.pop('step')
    for measure, value in values.items():
      measures.setdefault(measure, {})[step] = math.nan if value is None else value
  return found


def binned(values: Mapping[int, float], *, points: int = POINTS) -> Curve:
  """step -> value as a curve: means over neighbouring steps where there are more than `points`; all finite."""
  steps = sorted(step for step, value in values.items() if math.isfinite(value))
  if not steps:
    return []
  bins = np.array_split(np.array([(step, values[step]) for step in steps], float), min(points, len(steps)))
  return [(float(step), float(value)) for step, value in (part.mean(0) for part in bins)]

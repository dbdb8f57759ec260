"""Training with the input pipeline attached, against training without (for train_step.py --pipeline)."""

import contextlib
import itertools
import json
import pathlib
import tempfile
import time
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from benchmarks import cases, race, tables

SEGMENTS = 240  # at most; an epoch
MEASURED_S = 2.0  # seconds that are measured in one piece, of a training three times as long
CLIP_S, FRAMES_A_SECOND = 4, 30  # of the random clips


def write_random(folder: pathlib.Path, clips: int, size: tuple[int, int]) -> list[dict[str, Any]]:
  """Writes random clips into a store, as the front end writes real ones; returns their records."""
  from emo_jax.frontend import audio, store

  random = np.random.default_rng(0)
  frames = CLIP_S * FRAMES_A_SECOND
  sound_facts = {'column_s': np.asarray(0.01), 'rate': np.asarray(16000)}
  face_facts = {'times': np.arange(frames) / FRAMES_A_SECOND, 'confidence': np.ones(frames)}
  records = []
  for clip in range(clips):
    record = {'audio': f'audio/{clip}', 'faces': f'faces/{clip}'}
    sound = random.standard_normal((audio.BANDS, 100 * CLIP_S), np.float32)
    faces = random.integers(256, size=(frames, *size, 3), dtype=np.uint8)
    store.write(folder / record['audio'], iter([sound]), sound_facts, store.nothing, fortran=True)
    store.write(folder / record['faces'], iter([faces]), face_facts, store.nothing, fortran=False)
    records.append(record)
  return records


def prepared(case: cases.Case, stages: str | None, scratch: pathlib.Path) -> Any:
  """An experiment whose clips are prepared: those in an experiment's folder of stages, or random ones.

  Raises:
    FileNotFoundError: nothing of this modality is prepared there.
  """
  from emo_jax.context import Experiment
  from emo_jax.frontend.store import Store

  modality, config = cases.NETWORKS[case.network][0], cases.config_of(case)
  cache = pathlib.Path(stages) if stages else scratch
  if stages:
    half = {'audio': 'audio', 'visual': 'faces'}[modality]
    found = sorted(cache.glob('prepare/*/index.json'), key=lambda path: path.stat().st_mtime)
    records = [record for path in found[-1:] for record in json.loads(path.read_text()) if record[half]]
    if not records:
      raise FileNotFoundError(f'--stages={stages}: no clip with {half} there; give <workdir>/stages of an experiment')
    if modality == 'visual':
      config.frontend.faces.size = np.load(cache / f'store/{records[0][half]}.npy', mmap_mode='r').shape[1:3]
  else:
    windows = (100 * CLIP_S - config.frontend.segments.length) // config.frontend.segments.shift
    records = write_random(cache / 'store', SEGMENTS // windows, tuple(config.frontend.faces.size))
  x = Experiment(config, scratch, cache, clips=[], classes=[str(n) for n in range(cases.CLASSES)], folds=[])
  x.store = Store(cache / 'store', records, **config.frontend.segments)
  x.segments = x.store.table()
  return x


class Trial(NamedTuple):
  """What is trained, on what, and how many steps are measured."""

  case: cases.Case
  network: Any
  variables: Any
  rows: int
  steps: int


class _Enough(Exception):
  """The training has run for long enough."""


def seconds_in_fit(trial: Trial, read: Any, folder: pathlib.Path) -> float:
  """Seconds a step within a training, of the second of three stretches, after which it is left."""
  from emo_jax.training import batches, loop, supervised

  ticks: list[float] = []

  def tick(*_: float) -> None:
    ticks.append(time.perf_counter())
    if len(ticks) == 3:  # the first one was that of the start
      raise _Enough

  silent: Any = types.SimpleNamespace(write=lambda *_: None, flush=lambda: None)
  watch = loop.Watch(silent, tick, log_every=trial.steps, save_every=1 << 30)
  batch, optim_config = trial.case.batch, cases.settings(trial.case)[1].optim
  with contextlib.suppress(_Enough):
    supervised.train(
      trial.network,
      trial.variables,
      read,
      np.arange(trial.rows) % cases.CLASSES,
      batch=batch,
      epochs=-(-3 * trial.steps // batches.steps_per_epoch(trial.rows, batch)),
      optim_config=optim_config,
      seed=0,
      names=('pipeline',),
      name='pipeline',
      folder=folder,
      watch=watch,
    )
  return (ticks[2] - ticks[1]) / trial.steps


def ways(case: cases.Case, x: Any, scratch: pathlib.Path) -> dict[str, Callable[[], float]]:
  """Three ways to come by batches -> seconds a step."""
  import jax

  from emo_jax.steps import start

  modality, config = cases.settings(case)
  rows = np.flatnonzero(x.segments.has_audio if modality == 'audio' else x.segments.has_face)
  rows = rows[np.linspace(0, len(rows) - 1, max(min(len(rows), SEGMENTS), case.batch)).astype(int)]
  stored = start.reader(x, modality, x.segments.take(rows))
  in_memory = stored(np.arange(len(rows)))
  network = start.modality_of(x, modality).whole
  like = start.variables_like(x, modality)['statistics']
  statistics = {name: np.full(of.shape, name != 'mean', np.float32) for name, of in like.items()}
  params = jax.device_get(jax.jit(lambda: start.random_params(x, modality))())  # each training gives up its own copy
  variables = {'params': params, 'statistics': statistics}
  labels = np.arange(case.batch) % cases.CLASSES
  on_device = cases.stepping(network, variables, config.optim, in_memory[: case.batch], labels)
  on_device(1)
  steps = race.filling(on_device, MEASURED_S)
  trial, folders = Trial(case, network, variables, len(rows), steps), (scratch / f'fit_{n}' for n in itertools.count())
  fit = lambda read: seconds_in_fit(trial, read, next(folders))
  return {
    'the store': lambda: fit(stored),
    'memory': lambda: fit(lambda rows: in_memory[rows]),
    'the device': lambda: race.timed(on_device, steps),
  }


def compare(stages: str | None) -> None:
  """Prints, for each case, the speed with the store attached as a share of that without."""
  logging.set_verbosity(logging.WARNING)  # Orbax tells of every checkpoint
  for case in cases.cases():
    with tempfile.TemporaryDirectory() as folder:
      scratch = pathlib.Path(folder)
      measured = ways(case, prepared(case, stages, scratch), scratch)
      seconds: dict[str, list[float]] = {name: [] for name in measured}
      for _ in range(race.REPEATS.value):
        for name, way in measured.items():
          seconds[name].append(way())
    results = {name: race.Result(of_way, 0.0, 0, 0.0, {}) for name, of_way in seconds.items()}
    print(f'\npipeline: {case.network}, batch {case.batch}, {case.precision}; batches from')
    for name, of_way in seconds.items():
      print(f'  {name:12s}{tables.spread([1e3 * one for one in of_way]):>30s} ms a step')
    for other in ('memory', 'the device'):
      share = tables.spread(tables.ratios(results[other], results['the store']))
      print(f'  speed with the store, as a share of that with batches from {other}: {share}', flush=True)
    tables.write('pipeline', case._asdict(), results)

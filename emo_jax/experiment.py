"""The experiment, top to bottom: prepare -> audio net -> visual net -> features -> fusion -> decide -> report.

Each stage is made fold by fold, a folder each, named by what it depends on (stages.py). A network's folder hangs on
its training clips alone, so nothing of a test speaker can reach it.
"""

import dataclasses
import functools
import json
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import joblib
import numpy as np

from emo_jax import provenance, stages
from emo_jax.corpora import clip as clip_list
from emo_jax.corpora import demo, java_sed, manifest
from emo_jax.evaluation import folds as splitting
from emo_jax.evaluation import pooling, svm
from emo_jax.evaluation.folds import Fold
from emo_jax.frontend import store as stored
from emo_jax.frontend.segments import Segments
from emo_jax.models import dbn
from emo_jax.report import report as reporting
from emo_jax.training import batches, checkpoint, contrastive, loop, rngs, supervised
from emo_jax.training.metrics import Metrics, progress

# Raised when the code of a stage changes its result. The front end has its own in frontend/store.py.
VERSION = {'prepare': 1, 'audio_net': 1, 'visual_net': 1, 'features': 1, 'fusion': 1, 'decide': 1}
NETWORKS = {'audio': supervised.audio_network, 'visual': supervised.visual_network}
METHODS = ('audio', 'visual', 'concat', 'hybrid')
Folders = list[pathlib.Path]


@dataclasses.dataclass
class Experiment:
  """What the stages share.

  Attributes:
    config: the whole ConfigDict.
    workdir, cache: where results and stages lie.
    clips, classes, folds: the corpus and its split.
    metrics: where training writes its numbers.
    records: of each prepared clip, as store.prepare_clip returns them.
    store, segments: the prepared clips and their windows.
    made: stage name -> its folders, one a fold.
  """

  config: Any
  workdir: pathlib.Path
  cache: pathlib.Path
  clips: list[clip_list.Clip]
  classes: list[str]
  folds: list[Fold]
  metrics: Metrics
  records: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  store: Any = None
  segments: Any = None
  made: dict[str, Folders] = dataclasses.field(default_factory=dict)

  def sides(self, fold: Fold) -> np.ndarray:
    """'train', 'held', 'test' or '' for each clip in a fold."""
    fixed = self.config.data.rule == 'fixed'
    return np.array([splitting.side(clip, fold, fixed=fixed) or '' for clip in self.clips])

  def rows(self, fold: Fold, modalities: tuple[str, ...], *sides: str) -> np.ndarray:
    """int [n]: the segments of a fold's clips on these sides that have all these modalities ('audio', 'visual')."""
    has = {'audio': self.segments.has_audio, 'visual': self.segments.has_face}
    wanted = np.isin(self.sides(fold), sides)[self.segments.clip]
    return np.flatnonzero(np.logical_and.reduce([wanted, *(has[name] for name in modalities)]))

  def labels(self, rows: np.ndarray) -> np.ndarray:
    """int [n]: the class of the clip that each segment belongs to (method.md A3: a segment's label is its clip's)."""
    of_clip = np.array([self.classes.index(clip.emotion) for clip in self.clips])
    return of_clip[self.segments.clip[rows]]

  def clips_of(self, rows: np.ndarray) -> list[list[str | None]]:
    """What segments depend on, for a stage's key: id, emotion and content of their clips."""
    return [
      [self.clips[c].id, self.clips[c].emotion, self.records[c]['audio'], self.records[c]['faces']]
      for c in np.unique(self.segments.clip[rows])
    ]

  def watch(self, tick: Callable[[int], Any]) -> loop.Watch:
    """How trainings report and save (config.log, config.save)."""
    return loop.Watch(self.metrics, tick, log_every=self.config.log.every, save_every=self.config.save.every)


def set_up(config: Any, workdir: str) -> Experiment:
  """Checks what the user gave and fixes the split; nothing is computed yet.

  Raises:
    ValueError: a config value, a corpus or a split that cannot be run, or a work directory of another experiment.
  """
  if config.until not in STAGES:
    raise ValueError(f'config.until={config.until!r}: use one of {", ".join(STAGES)}')
  if config.data.judge not in ('test', 'held') or (config.data.judge == 'held' and not config.data.held):
    raise ValueError(f'config.data.judge={config.data.judge!r}: use test, or held together with config.data.held=1')
  for field, value, known in (
    ('frontend.short', config.frontend.short, ('pad', 'refuse')),
    ('fusion.finetune.kind', config.fusion.finetune.kind, ('softmax', 'none')),
    ('pool', config.pool, ('mean',)),
    ('parallel.folds', config.parallel.folds, (1,)),
  ):
    if value not in known:
      raise ValueError(f'config.{field}={value!r}: use {" or ".join(map(str, known))}')
  folder = pathlib.Path(workdir).absolute()
  folder.mkdir(parents=True, exist_ok=True)
  provenance.claim(folder, config.to_dict())
  readers: dict[str, Callable[[Any], list[clip_list.Clip]]] = {
    'java_sed': lambda data: java_sed.read(data.root, takes=data.java_sed.takes),
    'manifest': lambda data: manifest.read(data.root),
    'demo': lambda data: demo.read(data.root, **data.demo),
  }
  if config.data.corpus not in readers:
    raise ValueError(f'config.data.corpus={config.data.corpus!r}: use one of {", ".join(readers)}')
  clips = readers[config.data.corpus](config.data)
  clip_list.check(clips)
  split = splitting.make_folds(
    clips, rule=config.data.rule, held=bool(config.data.held), allow_leaks=config.data.allow_leaks
  )
  cache = pathlib.Path(config.cache).absolute() if config.cache else folder / 'stages'
  x = Experiment(config, folder, cache, clips, clip_list.classes(clips), split, Metrics(folder))
  for modality in NETWORKS:
    jax.eval_shape(lambda: initial_params(x, modality))  # noqa: B023 - words and sizes are refused now, not hours later
  (folder / 'split.json').write_text(json.dumps(reporting.split_record(x), indent=1) + '\n')
  return x


def run(x: Experiment) -> None:
  """Runs the stages in order, up to config.until. What is done is not done again."""
  provenance.note(x.workdir, event='start', **provenance.facts())
  try:
    for name, stage in STAGES.items():
      started = time.monotonic()
      stage(x)
      provenance.note(x.workdir, event='stage', stage=name, seconds=round(time.monotonic() - started, 2))
      if name == x.config.until:
        break
  finally:
    x.metrics.close()


# prepare ------------------------------------------------------------------------------------------------------------


def prepare(x: Experiment) -> None:
  """Decodes every clip once: log-mel columns and aligned faces into the store. Bad clips are listed, never fatal."""
  files = sorted({str(file) for clip in x.clips for file in clip.files})
  pool = joblib.Parallel(n_jobs=-1, prefer='threads')
  hashes = dict(zip(files, pool(joblib.delayed(clip_list.content_hash)(pathlib.Path(f)) for f in files), strict=True))
  settings = x.config.frontend.to_dict()
  length, shift = settings['segments']['length'], settings['segments']['shift']
  store = x.cache / 'store'
  of_clip = [[clip.id, *(hashes[str(f)] if f else None for f in (clip.sound, clip.picture))] for clip in x.clips]
  key = {'version': [VERSION['prepare'], stored.VERSION], 'frontend': settings, 'clips': of_clip}

  def work(folder: pathlib.Path) -> None:
    executor = x.config.executor
    parallel = joblib.Parallel(n_jobs=executor.workers, backend=executor.backend, return_as='generator')
    jobs = (joblib.delayed(stored.prepare_clip)(clip, hashes, str(store), settings) for clip in x.clips)
    with progress('prepare', len(x.clips), 'clip') as bar:
      records = []
      for record in parallel(jobs):
        records.append(record)
        bar.update()
    (folder / 'index.json').write_text(json.dumps(records, indent=1) + '\n')

  folder = stages.run(x.cache, 'prepare', key, work)
  x.made['prepare'] = [folder]
  x.records = json.loads((folder / 'index.json').read_text())
  x.store = stored.Store(store, x.records, length=length, shift=shift, refuse_short=settings['short'] == 'refuse')
  x.segments = x.store.table()
  reporting.write_rejected(x)


# the two networks ---------------------------------------------------------------------------------------------------


def initial_params(x: Experiment, modality: str) -> Any:
  """The network's parameters before training, the same in every fold."""
  _, model = NETWORKS[modality](x.config[modality], classes=len(x.classes))
  size = x.config[modality].size
  shape = (1, size, size, 3) if modality == 'audio' else (1, 16, size, size, 3)
  seed = x.config.seed if x.config.nets_seed is None else x.config.nets_seed
  return model.init(rngs.stream(seed, modality, 'init'), jnp.zeros(shape))['params']


def statistics_like(x: Experiment, modality: str) -> Any:
  """The shapes of the statistics that a network's images are standardised by."""
  frontend = x.config.frontend
  size = (64, frontend.segments.length) if modality == 'audio' else tuple(frontend.faces.size)
  return {name: jax.ShapeDtypeStruct((*size, 3), np.float32) for name in ('mean', 'deviation')}


def reader(x: Experiment, modality: str, table: Segments) -> supervised.Read:
  """rows of `table` -> the network's input, from the store."""
  read = x.store.audio if modality == 'audio' else x.store.faces
  return lambda rows: read(table.take(rows))


def train_networks(x: Experiment, modality: str) -> None:
  """Trains one network a fold on the training segments that have its modality."""
  config, name = x.config[modality], f'{modality}_net'
  seed = x.config.seed if x.config.nets_seed is None else x.config.nets_seed
  network, _ = NETWORKS[modality](config, classes=len(x.classes))
  rows = [x.rows(fold, (modality,), 'train') for fold in x.folds]
  if any(len(of_fold) == 0 for of_fold in rows):
    raise ValueError(f'a fold has no training clip with {modality}; see rejected.csv and report the corpus as it is')
  steps = [config.epochs * batches.steps_per_epoch(len(of_fold), config.batch) for of_fold in rows]

  def work(folder: pathlib.Path, number: int, tick: Callable[[int], Any]) -> None:
    table = x.segments.take(rows[number])
    read = reader(x, modality, table)
    statistics = supervised.image_statistics(network, read, len(table), batch=config.batch)
    variables = supervised.train(
      network,
      {'params': jax.jit(lambda: initial_params(x, modality))(), 'statistics': statistics},
      read,
      x.labels(rows[number]),
      batch=config.batch,
      epochs=config.epochs,
      optim_config=config.optim,
      seed=seed,
      names=(modality,),
      name=f'{name}/fold_{number}',
      folder=folder / 'checkpoints',
      watch=x.watch(tick),
    )
    checkpoint.save(folder / 'network', variables)
    shutil.rmtree(folder / 'checkpoints')

  keys = [
    {
      'version': VERSION[name],
      'config': config.to_dict(),
      'seed': seed,
      'segments': x.config.frontend.segments.to_dict(),
      'classes': x.classes,
      'clips': x.clips_of(of_fold),
    }
    for of_fold in rows
  ]
  make_folds(x, name, keys, work, steps, 'step')


def make_folds(
  x: Experiment,
  name: str,
  keys: list[Any],
  work: Callable[..., None],
  weights: list[int],
  unit: str,
) -> None:
  """Makes a stage's folder of every fold under one progress bar: work(folder, fold number, tick)."""
  x.made[name] = []
  with progress(name, sum(weights), unit) as bar:
    for number, key in enumerate(keys):
      folder = stages.run(x.cache, name, key, functools.partial(work, number=number, tick=bar.update))
      x.made[name].append(folder)
      bar.update(sum(weights[: number + 1]) - bar.n)


# features -----------------------------------------------------------------------------------------------------------


def extract_features(x: Experiment) -> None:
  """fc7 and logits of both networks for every segment of a fold's clips: train, held and test."""
  sides = ('train', 'held', 'test')
  networks = {m: NETWORKS[m](x.config[m], classes=len(x.classes))[0] for m in NETWORKS}
  rows = [{m: x.rows(fold, (m,), *sides) for m in NETWORKS} for fold in x.folds]

  def work(folder: pathlib.Path, number: int, tick: Callable[[int], Any]) -> None:
    for modality, network in networks.items():
      wanted = rows[number][modality]
      like = {'params': jax.eval_shape(lambda: initial_params(x, modality))}  # noqa: B023
      like['statistics'] = statistics_like(x, modality)
      variables = checkpoint.load(x.made[f'{modality}_net'][number] / 'network', like)
      read = reader(x, modality, x.segments.take(wanted))
      logits, features = supervised.predict(network, variables, read, len(wanted), batch=x.config[modality].batch)
      for what, array in (('rows', wanted), ('logits', logits), ('features', features)):
        np.save(folder / f'{modality}_{what}.npy', array)
      tick(len(wanted))
    np.savez(folder / 'segments.npz', **cast(Any, dataclasses.asdict(x.segments)))

  keys = [
    {
      'version': VERSION['features'],
      'networks': [x.made[f'{m}_net'][number].name for m in NETWORKS],
      'clips': x.clips_of(np.union1d(rows[number]['audio'], rows[number]['visual'])),
      'sides': ''.join(side[:1] for side in x.sides(fold)),
    }
    for number, fold in enumerate(x.folds)
  ]
  make_folds(x, 'features', keys, work, [sum(map(len, of_fold.values())) for of_fold in rows], 'segment')


def load_features(x: Experiment, number: int, rows: np.ndarray, modality: str) -> np.ndarray:
  """fc7 [n, F] of the given segments in a fold."""
  folder = x.made['features'][number]
  place = np.searchsorted(np.load(folder / f'{modality}_rows.npy'), rows)
  return np.load(folder / f'{modality}_features.npy', mmap_mode='r')[place]


# fusion -------------------------------------------------------------------------------------------------------------


def fuse(x: Experiment) -> None:
  """The DBN of every fold: fitted to the training segments that have both halves, then applied to all that do."""
  config = x.config.fusion
  tune = config.finetune
  both = ('audio', 'visual')
  train_rows = [x.rows(fold, both, 'train') for fold in x.folds]
  steps = []
  for rows in train_rows:
    if len(rows) == 0:
      raise ValueError(
        'a fold has no training clip with both sound and face; fusion needs some (config.until=features)'
      )
    of_rbm = config.rbm.epochs * batches.steps_per_epoch(len(rows), config.rbm.batch)
    of_tuning = tune.epochs * batches.steps_per_epoch(len(rows), tune.batch) if tune.kind == 'softmax' else 0
    steps.append(len(config.units) * of_rbm + of_tuning)
  forward = lambda variables, data, keys: dbn.classify(variables['params'], data, keys, dropout_rate=tune.dropout)
  network = supervised.build(forward, lambda data: data, tune.optim)

  def work(folder: pathlib.Path, number: int, tick: Callable[[int], Any]) -> None:
    rows = x.rows(x.folds[number], both, 'train', 'held', 'test')
    training = np.isin(rows, train_rows[number])
    parts = {}
    for modality in both:
      features = load_features(x, number, rows, modality)
      statistics = dbn.scaler(features[training])
      np.savez(folder / f'{modality}_scaler.npz', **cast(Any, statistics))
      parts[modality] = dbn.scale(statistics, features)
    visible = np.concatenate(list(parts.values()), axis=1)
    watch = x.watch(tick)
    stack = contrastive.train_stack(
      visible[training],
      units=tuple(config.units),
      config=config.rbm,
      seed=x.config.seed,
      fold=number,
      folder=folder,
      watch=watch,
    )
    params = {'stack': stack, 'head': dbn.init_head(stack, classes=len(x.classes))}
    if tune.kind == 'softmax':
      variables = supervised.train(
        network,
        {'params': params, 'statistics': {}},
        lambda wanted: visible[training][wanted],
        x.labels(rows[training]),
        batch=tune.batch,
        epochs=tune.epochs,
        optim_config=tune.optim,
        seed=x.config.seed,
        names=('fusion', 'finetune'),
        name=f'fusion/fold_{number}/finetune',
        folder=folder / 'finetune_checkpoints',
        watch=watch,
      )
      params = variables['params']
    checkpoint.save(folder / 'dbn', params)
    np.save(folder / 'rows.npy', rows)
    np.save(folder / 'joint.npy', np.asarray(jax.jit(dbn.joint_feature)(params['stack'], visible)))
    for leftover in folder.glob('*_checkpoints'):
      shutil.rmtree(leftover)

  keys = [
    {
      'version': VERSION['fusion'],
      'config': config.to_dict(),
      'seed': x.config.seed,
      'features': x.made['features'][number].name,
    }
    for number in range(len(x.folds))
  ]
  make_folds(x, 'fusion', keys, work, steps, 'step')


# decide -------------------------------------------------------------------------------------------------------------


def method_features(x: Experiment, number: int, method: str) -> tuple[np.ndarray, np.ndarray]:
  """What a method's SVM sees: pooled features [clips, F], and which clips [clips] have them, in a fold."""
  sides = ('train', 'held', 'test')
  fold = x.folds[number]
  if method == 'hybrid':
    rows = np.load(x.made['fusion'][number] / 'rows.npy')
    features = np.load(x.made['fusion'][number] / 'joint.npy')
  else:
    modalities = ('audio', 'visual') if method == 'concat' else (method,)
    rows = x.rows(fold, modalities, *sides)
    features = np.concatenate([load_features(x, number, rows, modality) for modality in modalities], axis=1)
  return pooling.mean_of_clips(features, x.segments.clip[rows])


def decide(x: Experiment) -> None:
  """A linear SVM for each method and fold, fitted to the training clips; the judged clips' scores."""
  judge = x.config.data.judge
  labels = np.array([x.classes.index(clip.emotion) for clip in x.clips])

  def work(folder: pathlib.Path, number: int, tick: Callable[[int], Any]) -> None:
    sides = x.sides(x.folds[number])
    for method in METHODS:
      features, clips = method_features(x, number, method)
      training, judged = sides[clips] == 'train', sides[clips] == judge
      machine = svm.fit(features[training], labels[clips[training]], c=x.config.svm.c, classes=len(x.classes))
      np.savez(folder / f'{method}_svm.npz', **cast(Any, machine))
      np.savez(folder / f'{method}_scores.npz', clip=clips[judged], scores=svm.scores(machine, features[judged]))
    tick(1)

  keys = [
    {
      'version': VERSION['decide'],
      'svm': x.config.svm.to_dict(),
      'pool': x.config.pool,
      'judge': judge,
      'fusion': x.made['fusion'][number].name,
    }
    for number in range(len(x.folds))
  ]
  make_folds(x, 'decide', keys, work, [1] * len(keys), 'fold')
  if judge == 'test':
    provenance.note_look(x.cache, x.clips, x.config.to_dict())


def report(x: Experiment) -> None:
  """predictions.csv, report.json, report.md and pictures in the work directory."""
  reporting.write(x)


STAGES: dict[str, Callable[[Experiment], None]] = {
  'prepare': prepare,
  'audio_net': lambda x: train_networks(x, 'audio'),
  'visual_net': lambda x: train_networks(x, 'visual'),
  'features': extract_features,
  'fusion': fuse,
  'decide': decide,
  'report': report,
}

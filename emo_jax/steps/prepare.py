"""Step 1, prepare: every clip decoded once, into the store."""

import json
import pathlib

import joblib
import numpy as np

from emo_jax import stages
from emo_jax.context import Experiment, Unusable
from emo_jax.corpora import clip as clip_list
from emo_jax.frontend import store as stored
from emo_jax.report import report
from emo_jax.training.metrics import progress

VERSION = 1  # raised when this code changes its result; the front end has its own in frontend/store.py


def prepare(x: Experiment) -> None:
  """Decodes every clip once: log-mel columns and aligned faces into the store. Bad clips are listed, never fatal."""
  files = sorted({str(file) for clip in x.clips for file in clip.files})
  pool = joblib.Parallel(n_jobs=-1, prefer='threads')
  hashes = dict(zip(files, pool(joblib.delayed(clip_list.content_hash)(pathlib.Path(f)) for f in files), strict=True))
  settings = x.config.frontend.to_dict()
  length, shift = settings['segments']['length'], settings['segments']['shift']
  store = x.cache / 'store'
  of_clip = [[clip.id, *(hashes[str(f)] if f else None for f in (clip.sound, clip.picture))] for clip in x.clips]
  key = {'version': [VERSION, stored.VERSION], 'frontend': settings, 'clips': of_clip}

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
  report.write_rejected(x)
  if x.config.until != 'prepare':
    check_folds(x)


def check_folds(x: Experiment) -> None:
  """Refuses, before anything is trained, folds in which a later stage would have nothing to learn or choose from.

  Raises:
    Unusable: a fold without training clips of a modality, without clips of both, or with a single emotion among them;
      or without such held clips where an epoch or a penalty is to be chosen on them.
  """
  config = x.config
  trained = ((('audio',), config.audio), (('visual',), config.visual), (('audio', 'visual'), config.fusion.finetune))
  for number, fold in enumerate(x.folds):
    for halves, part in trained:
      choosing = part.select == 'held' or config.svm.candidates
      if choosing and not len(x.rows(fold, halves, 'held')):
        raise Unusable(
          f'fold {number} (held speakers {", ".join(fold.held)}) has no held clip with {" and ".join(halves)} to '
          'choose on. Look at rejected.csv, or set select=last for this part of the config and svm.candidates=()'
        )
      rows = x.rows(fold, halves, 'train')
      emotions = sorted({x.classes[label] for label in x.labels(rows)})
      if len(emotions) < 2:
        raise Unusable(
          f'fold {number} (test speakers {", ".join(fold.test)}) has {len(np.unique(x.segments.clip[rows]))} training '
          f'clips with {" and ".join(halves)}, of the emotions {emotions}; at least two emotions are needed. Look at '
          'rejected.csv, add clips, or use fewer folds (config.data.rule)'
        )

"""Times the prediction of clips step by step, against their own length and against the plain recipe.

  python -m benchmarks.predict --model=DIR [--clips=DIR] [--count=N] [--device=cpu|gpu] [--repeats=N] [--threads=N]
    [--out=FILE]

Each step runs on every clip, turn by turn, after a clip that warms up; a turn's seconds are summed over the clips. The
real-time factor is seconds of work for a second of clip: below 1 it keeps up with the clip. `whole` is what a user
meets, from a file's name to the answer, with a decoder process that has begun and programs that are compiled; the steps
above it are run once more by themselves. Fusion is of the segments with sound and face; filling in is of the faces of
all these. Saliency, of every segment, is for those who ask for it. The plain recipe (benchmarks/plain.py) decodes,
finds faces and computes both networks' verdicts in a process of its own: it has no following, no fusion, and no
calibration. What a first clip costs is told before the table, without JAX's cache of compiled programs, with which it
is less.
"""

import contextlib
import multiprocessing
import pathlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import numpy as np
from absl import app, flags

from benchmarks import plain, race, tables

MODEL = flags.DEFINE_string('model', None, 'A model folder.', required=True)
CLIPS = flags.DEFINE_string('clips', '../shared/data/java_sed/video', 'Films: of this folder and those in it.')
COUNT = flags.DEFINE_integer('count', 8, 'Clips, evenly among the sorted ones.', lower_bound=1)

ENDINGS = ('.avi', '.flv', '.mkv', '.mov', '.mp4', '.webm')
LIMIT_S = 60.0  # without a frame
Spent = dict[str, float]  # step -> seconds


@contextlib.contextmanager
def clock(spent: Spent, step: str) -> Iterator[None]:
  """Adds the seconds of what it is around to a step's."""
  start = time.perf_counter()
  yield
  spent[step] = spent.get(step, 0.0) + time.perf_counter() - start


def decode(config: Any, path: str, spent: Spent) -> None:
  """Both halves of a clip, in a decoder process, as a prediction has them decoded."""
  from emo_jax.frontend import decoder

  with tempfile.TemporaryDirectory() as folder:
    for half, part, step in (('audio', 'sound', 'sound to log-mel'), ('faces', 'faces', 'picture to faces')):
      settings = config.frontend[part].to_dict()
      with clock(spent, step):
        decoder.prepare_half(half, path, f'{folder}/{half}/clip', settings, limit=LIMIT_S)


def features_of(model: Any, x: Any, spent: Spent) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """Both networks' features of the segments that have both halves, and which these are."""
  from emo_jax import inference
  from emo_jax.steps import start
  from emo_jax.training import supervised

  rows = np.flatnonzero(x.segments.has_audio & x.segments.has_face)
  features = {}
  for modality in ('audio', 'visual') if len(rows) else ():
    network, read = start.modality_of(x, modality).whole, start.reader(x, modality, x.segments.take(rows))
    with clock(spent, f'{modality} network'):
      output = supervised.predict(network, model.variables[modality], read, len(rows), batch=inference.BATCH)
    features[modality] = output[1]
  return features, rows


def fuse(model: Any, features: dict[str, np.ndarray], rows: np.ndarray, spent: Spent) -> None:
  """The DBN's features with both halves there, and with every face filled in; the SVMs of all three."""
  from emo_jax.evaluation import svm
  from emo_jax.steps import filling

  has, settings = np.ones((len(rows), 2), bool), {'steps': model.config.missing.steps, 'seed': model.config.seed}
  with clock(spent, 'fusion, SVMs'):
    joint, _ = filling.joint(model.fused, features, has, rows, how='zero', **settings)
    for method, vectors in {**features, 'hybrid': joint}.items():
      svm.scores(model.machines[method], vectors)
  for how in filling.BY_DBN:
    with clock(spent, f'filling in, {how}'):
      filling.joint(model.fused, features, has & [True, False], rows, how=how, **settings)


def ours(model: Any, paths: list[str]) -> Spent:
  """Seconds of each step over all clips; 'clip' are the clips' own, 'segments' how many there were."""
  from emo_jax import inference

  decode(model.config, paths[0], {})  # the decoder may have ended for want of work
  spent, whole = Spent(clip=0.0, segments=0.0), Spent()
  for path in paths:
    decode(model.config, path, spent)
    with contextlib.ExitStack() as stack:
      with clock(whole, 'whole'):
        x = stack.enter_context(model.opened(path))
        result = inference.judge(model, x)
      spent['clip'] += result['seconds']
      spent['segments'] += len(x.segments)
      features, rows = features_of(model, x, spent)
      if len(rows):
        fuse(model, features, rows, spent)
      every = np.arange(len(x.segments))
      with clock(spent, 'saliency'):
        inference.saliency(model, x, every, np.zeros_like(every))
  return spent | whole


def by_plain_recipe(paths: list[str], config: dict[str, Any], size: tuple[int, int]) -> Spent:
  """The same of the plain recipe, in a process that has PyTorch.

  Args:
    config: 'audio' and 'visual', of the networks.
    size: height, width of a face.
  """
  import ml_collections

  verdicts = plain.networks({name: ml_collections.ConfigDict(values) for name, values in config.items()})
  spent = Spent()
  with tempfile.TemporaryDirectory() as folder:
    for number, path in enumerate([paths[0], *paths]):
      of_clip = Spent()
      with clock(of_clip, 'plain: sound, picture'):
        plain.plain_clip(path, folder, size)
      with clock(of_clip, 'plain: both networks'), np.load(f'{folder}/{pathlib.Path(path).stem}.npz') as made:
        if len(made['faces']):
          verdicts(made['sound'], made['faces'])
      if number:  # the first warms up
        spent = {step: spent.get(step, 0.0) + seconds for step, seconds in of_clip.items()}
  return {**spent, 'plain: whole': sum(spent.values())}


def table(turns: list[Spent], title: str) -> None:
  """Prints a line a step."""
  print(
    f'\n| {title} | ms a second of clip | real-time factor | times real time | ms a segment |\n|---|---|---|---|---|'
  )
  for step in [step for step in turns[0] if step not in ('clip', 'segments')]:
    each = [turn[step] / turn['clip'] for turn in turns]
    middle, of_segment = statistics.median(each), statistics.median(turn[step] / turn['segments'] for turn in turns)
    shown = f'{middle:.4f} | {1 / middle:.1f} | {1e3 * of_segment:.2f}'
    print(f'| {step} | {tables.spread([1e3 * one for one in each])} | {shown} |', flush=True)


def begin(paths: list[str]) -> Any:
  """The model; prints what it costs to begin."""
  spent = Spent()
  with clock(spent, 'imports'):
    from emo_jax import inference
  with clock(spent, 'loading'):
    model = inference.load(MODEL.value)
  for clip in ('first', 'again'):
    with clock(spent, clip):
      model.predict(paths[0])
  print(
    f'to begin: {spent["imports"]:.1f} s imports, {spent["loading"]:.1f} s loading; the first clip takes '
    f'{spent["first"]:.1f} s and again {spent["again"]:.1f} s: what is between is compiling, and the decoder beginning'
  )
  return model


def main(argv: list[str]) -> None:
  """Prints the table."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  found = sorted(str(path) for path in pathlib.Path(CLIPS.value).rglob('*') if path.suffix.lower() in ENDINGS)
  if not found:
    raise SystemExit(f'predict.py: no films in {CLIPS.value}; set --clips')
  count = min(COUNT.value, len(found))
  paths = [found[i * len(found) // count] for i in range(count)]
  race.set_up()
  model = begin(paths)
  ours(model, paths[:1])  # compiles what a prediction does without
  config = {name: model.config[name].to_dict() for name in ('audio', 'visual')}
  turns: list[Spent] = []
  with futures.ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as process:
    for _ in range(race.REPEATS.value):
      turn = ours(model, paths)
      try:
        turn |= process.submit(by_plain_recipe, paths, config, tuple(model.config.frontend.faces.size)).result()
      except ModuleNotFoundError as error:
        print(f'  the plain recipe is left out: {error}')
      turns.append(turn)
  table(turns, f'{count} clips of {turns[0]["clip"]:.1f} s in all, {turns[0]["segments"]:.0f} segments')
  results = {step: race.Result([turn[step] for turn in turns], 0.0, 0, 0.0, {}) for step in turns[0]}
  tables.write('predict', {'clips': paths, 'model': model.facts['sha256']}, results)


if __name__ == '__main__':
  app.run(main)

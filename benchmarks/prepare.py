"""Preparing clips against the plain recipe that a user would write: the same clips, in turn, in one run.

  python -m benchmarks.prepare [--data=DIR] [--config=FILE] [--clips=N] [--parts=N] [--long=MINUTES]

The plain recipe: PyAV decodes, librosa makes the log-mel spectrogram and its deltas, OpenCV's Haar cascades look at
every whole frame at scaleFactor 1.1 (frontalface_default; haarcascade_eye in the largest box), which is cut out and
scaled to the size of the config; a pool of processes shares the clips. Ours is what `launch.py --config.until=prepare`
does to the clips: the store, through the config's executor. The clips are dealt into parts; each part is prepared by
both, on one core and on two, in a fresh process each, the next part in the opposite order. Seconds hold the start of
workers and their imports; CPU seconds are those of all processes, which other work on the machine troubles less. Memory
is the largest sum of resident sets of a run's processes, looked at ten times a second; what processes share counts in
each. Eyes are compared where both found them, the worse of the two in distances between ours. `--long` prepares a clip
of so many minutes as well, made by repeating the first one's packets.
"""

import concurrent.futures
import functools
import multiprocessing
import os
import pathlib
import resource
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags
from ml_collections import config_flags

from benchmarks.plain import plain_clip

CONFIG = config_flags.DEFINE_config_file('config', 'configs/java_sed.py', 'How ours prepares.')
DATA = flags.DEFINE_string('data', '../shared/data/java_sed', 'The unpacked Java-SED.')
CLIPS = flags.DEFINE_integer('clips', 192, 'Clips, evenly among the sorted ones.', lower_bound=1)
PARTS = flags.DEFINE_integer('parts', 4, 'Parts in which the clips are prepared.', lower_bound=1)
LONG = flags.DEFINE_float('long', 0.0, 'Minutes of the long clip; 0 for none.', lower_bound=0)

Eyes = list[np.ndarray]  # of each clip, [F, 2, 2] in px, nan where they were not found


class Run(NamedTuple):
  """What came of preparing clips: seconds, those of the CPU, bytes at the worst, where faces and eyes were found."""

  seconds: float
  cpu: float
  memory: int
  faces: Eyes
  eyes: Eyes


def pool(processes: int) -> concurrent.futures.ProcessPoolExecutor:
  """Fresh processes."""
  return concurrent.futures.ProcessPoolExecutor(processes, multiprocessing.get_context('spawn'))


def ours(paths: list[str], folder: str, config: Any, cores: int) -> tuple[Eyes, Eyes]:
  """Prepares as the first stage does; a frame counts as one with eyes where they are good enough to be used."""
  from emo_jax.corpora.clip import Clip, content_hash
  from emo_jax.frontend import decoder, halves, workers

  settings = config.frontend.to_dict()
  prepare = functools.partial(decoder.prepare_half, limit=config.executor.limit)
  clips = [Clip(path, pathlib.Path(path), pathlib.Path(path), 'one', 'joy', 'java_sed') for path in paths]
  jobs = {c.id: (c, {c.id: content_hash(pathlib.Path(c.id))}, folder, settings, prepare) for c in clips}
  config.executor.workers = cores
  records = dict(workers.run(halves.prepare_clip, jobs, config.executor))
  eyes = []
  for path in paths:
    if records[path]['reason'] or records[path]['warnings']:
      print(f'  {pathlib.Path(path).name}: {records[path]["reason"]} {records[path]["warnings"]}')
    with np.load(f'{folder}/{records[path]["faces"]}.npz') as facts:
      eyes.append(np.where(facts['confidence'][:, None, None] > 0, facts['eyes'], np.nan))
  return eyes, eyes


def plain(paths: list[str], folder: str, config: Any, cores: int) -> tuple[Eyes, Eyes]:
  """Prepares by the plain recipe."""
  one = functools.partial(plain_clip, folder=folder, size=tuple(config.frontend.faces.size))
  with pool(cores) as processes:
    found = list(processes.map(one, paths))
  return [box for box, _ in found], [eyes for _, eyes in found]


def _timed(prepare: Any, paths: list[str], config: Any, cores: set[int]) -> tuple[float, float, Eyes, Eyes]:
  """Seconds, those of the CPU, faces and eyes of clips prepared on these cores."""
  os.sched_setaffinity(0, cores)
  with tempfile.TemporaryDirectory() as folder:
    start = time.perf_counter()
    faces, eyes = prepare(paths, folder, config, len(cores))
    seconds = time.perf_counter() - start
  spent = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
  return seconds, sum(one.ru_utime + one.ru_stime for one in spent), faces, eyes


def _resident() -> int:
  """Bytes of the resident sets of all processes that this one has started, and those of theirs."""
  parents, pages = {}, {}
  for entry in pathlib.Path('/proc').glob('[0-9]*'):
    try:
      parents[int(entry.name)] = int((entry / 'stat').read_text().rpartition(')')[2].split()[1])
      pages[int(entry.name)] = int((entry / 'statm').read_text().split()[1])
    except OSError:  # it has ended
      continue
  family = {os.getpid()}
  while more := {pid for pid, parent in parents.items() if parent in family} - family:
    family |= more
  return sum(pages.get(pid, 0) for pid in family - {os.getpid()}) * os.sysconf('SC_PAGE_SIZE')


def run(prepare: Any, paths: list[str], cores: int) -> Run:
  """Prepares clips in a fresh process on so many cores."""
  usable = set(sorted(os.sched_getaffinity(0))[:cores])
  with pool(1) as process:
    job = process.submit(_timed, prepare, paths, CONFIG.value, usable)
    memory = 0
    while not job.done():
      memory = max(memory, _resident())
      concurrent.futures.wait([job], timeout=0.1)
    seconds, cpu, faces, eyes = job.result()
  return Run(seconds, cpu, memory, faces, eyes)


def race(paths: list[str]) -> None:
  """Both on all clips, on one core and on two; prints the table."""
  sides = [(prepare, cores) for cores in (1, 2) for prepare in (ours, plain)]
  runs: dict[Any, list[Run]] = {side: [] for side in sides}
  parts = [paths[part :: PARTS.value] for part in range(PARTS.value)]
  for number, part in enumerate(parts):
    for prepare, cores in sides[:: (-1) ** number]:
      print(f'part {number}, {prepare.__name__} on {cores}: load before {os.getloadavg()[0]:.1f}', end='', flush=True)
      runs[prepare, cores].append(run(prepare, part, cores))
      print(f', {len(part) / runs[prepare, cores][-1].seconds:.2f} clips/s', flush=True)
  print(f'\n{len(paths)} clips  clips/s  to plain  to one core  CPU s a clip  to plain  memory MiB  faces %  eyes %')
  speed = {side: len(paths) / sum(one.seconds for one in runs[side]) for side in sides}
  cpu = {side: sum(one.cpu for one in runs[side]) / len(paths) for side in sides}
  for side in sides:
    prepare, cores = side
    found = [np.concatenate([clip for one in runs[side] for clip in getattr(one, what)]) for what in ('faces', 'eyes')]
    shares = (100 * np.isfinite(of.reshape(len(of), -1)).all(1).mean() for of in found)
    times = speed[side] / speed[plain, cores], speed[side] / speed[prepare, 1], cpu[side], cpu[plain, cores] / cpu[side]
    memory = max(one.memory for one in runs[side]) / 2**20
    title = f'{prepare.__name__} on {cores}'
    print(
      '{:11s}{:9.2f}{:10.2f}{:13.2f}{:14.2f}{:10.2f}{:12.0f}{:9.1f}{:8.1f}'.format(
        title, speed[side], *times, memory, *shares
      )
    )
  agreement(*([clip for one in runs[prepare, 1] for clip in one.eyes] for prepare in (ours, plain)))


def agreement(one: Eyes, other: Eyes) -> None:
  """Prints how far the eyes of the one are from the other's, clip by clip."""
  pairs = [(a, b) for a, b in zip(one, other, strict=True) if len(a) == len(b)]
  away = np.concatenate(
    [np.linalg.norm(a - b, axis=2).max(1) / np.linalg.norm(a[:, 1] - a[:, 0], axis=1) for a, b in pairs]
  )
  median, most, nearly_all = np.nanquantile(away, [0.5, 0.9, 0.99])
  print(
    f'worse eye, ours to plain, where both found the pair ({np.isfinite(away).mean():.0%} of the frames): '
    f'median {median:.3f}, 90th percentile {most:.3f}, 99th {nearly_all:.3f}'
  )


def repeated(source: str, target: str, minutes: float) -> None:
  """Writes a film of so many minutes, a real one's packets again and again."""
  import av

  shift = 0.0
  with av.open(source) as container, av.open(target, 'w') as out:
    streams = {stream.type: out.add_stream_from_template(stream) for stream in container.streams.get(video=0, audio=0)}
    while shift < 60 * minutes:
      with av.open(source) as container:
        end = 0.0
        for packet in container.demux(video=0, audio=0):
          if packet.pts is None or packet.dts is None:  # the last one, which is empty
            continue
          kind, base = packet.stream.type, packet.time_base
          end = max(end, float((packet.pts + (packet.duration or 0)) * base))
          packet.pts, packet.dts = packet.pts + round(shift / base), packet.dts + round(shift / base)
          packet.stream = streams[kind]
          out.mux(packet)
        shift += end


def long_clip(source: str) -> None:
  """Prepares a long clip on one core; prints its memory."""
  with tempfile.TemporaryDirectory() as folder:
    path = f'{folder}/long.mp4'
    repeated(source, path, LONG.value)
    made = run(ours, [path], 1)
  print(
    f'{LONG.value:g} minutes, {len(made.faces[0])} frames: {made.seconds:.0f} s on one core, '
    f'{1e3 * made.cpu / len(made.faces[0]):.2f} ms of the CPU a frame, {made.memory / 2**20:.0f} MiB'
  )


def main(argv: list[str]) -> None:
  """Prints the table."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  found = sorted(str(path) for path in pathlib.Path(DATA.value).glob('video/*.mp4'))
  if not found:
    raise SystemExit(f'prepare.py: no video/*.mp4 in {DATA.value}; set --data')
  count = min(CLIPS.value, len(found))
  race([found[i * len(found) // count] for i in range(count)])
  if LONG.value:
    long_clip(found[0])


if __name__ == '__main__':
  app.run(main)

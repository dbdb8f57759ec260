"""Who prepares the clips: threads or processes of this machine, or a Dask cluster (pipeline step: prepare).

Threads do for one machine, for the work is done by the decoders' processes (decoder.py) that they look after. Where the
program itself runs in several processes (processes.py), each does its part with workers of its own; but for Dask, whose
cluster is all the machines there are: the lead alone hands it jobs, and starts it where it has no address.
"""

import concurrent.futures
import contextlib
import functools
import logging
import os
import pathlib
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import joblib
from joblib.externals import loky

from emo_jax import processes, stopping
from emo_jax.frontend import decoder

# As many as here: sums hang on their number in the last bits, and loky's and Dask's workers would get fewer.
THREADS = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS')
ATTEMPTS = 3  # to go on after workers were killed, without a job done in between
LATE_S = 120  # that a shared file system may hide what another host has written; NFS remembers for up to 60
_Key = TypeVar('_Key', bound=Hashable)
_Item = TypeVar('_Item')
_Call = tuple[_Key, Callable[..., Any], tuple[Any, ...], int]


@functools.cache
def _end_with(parent: int) -> None:
  """Lets this process end soon after its parent, which loky's workers do not of themselves."""

  def watch() -> None:
    while os.getppid() == parent:
      time.sleep(0.5)
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


def _do(key: _Key, function: Callable[..., Any], job: tuple[Any, ...], parent: int) -> tuple[_Key, Any]:
  if parent:
    _end_with(parent)
  return key, function(*job)


def _threads(name: str) -> int:
  return int(os.environ.get(name, joblib.cpu_count()))


def _by_joblib(executor: Any, calls: Iterable[_Call]) -> Iterator[tuple[_Key, Any]]:
  threads = {'inner_max_num_threads': _threads(THREADS[0])} if executor.backend == 'loky' else {}
  with joblib.parallel_config(executor.backend, n_jobs=executor.workers, **threads):
    parallel = joblib.Parallel(return_as='generator_unordered', batch_size=1)
  with stopping.deaf() if executor.backend == 'loky' else contextlib.nullcontext():
    results = parallel(joblib.delayed(_do)(*call) for call in calls)
  yield from results


def _by_dask(client: Any, calls: Iterable[_Call]) -> Iterator[tuple[_Key, Any]]:
  """Not through joblib, which waits for ever (1.6) where Dask gives a job up for having lost its workers."""
  import distributed

  futures = [client.submit(_do, *call, pure=False) for call in calls]
  try:
    for future in distributed.as_completed(futures):
      yield future.result()
  except distributed.KilledWorker as error:
    raise concurrent.futures.BrokenExecutor from error
  except concurrent.futures.CancelledError as error:
    raise decoder.MachineFailure('the Dask scheduler is gone: run the same command again, it goes on') from error


@contextlib.contextmanager
def _dask(address: str, workers: int) -> Iterator[Any]:
  """A client of the Dask scheduler at `address`, or else of a cluster on this machine that ends with the context."""
  import dask
  import distributed

  threads = {f'distributed.nanny.pre-spawn-environ.{name}': _threads(name) for name in THREADS}
  logging.getLogger('distributed').setLevel(logging.CRITICAL)  # the work of a worker that is lost is done by another
  with contextlib.ExitStack() as stack, dask.config.set(threads):
    try:
      if not address:
        count = joblib.cpu_count() if workers == -1 else workers
        options: dict[str, Any] = {'silence_logs': logging.CRITICAL, 'dashboard_address': ':0'}
        options['memory_limit'] = 0  # of workers; the decoders' is the matter
        with stopping.deaf():
          cluster = distributed.LocalCluster(n_workers=count, threads_per_worker=1, **options)
        address = stack.enter_context(cluster).scheduler_address
      client = stack.enter_context(distributed.Client(address))
    except (OSError, ValueError) as error:
      raise decoder.MachineFailure(f'config.executor.address={address!r}: no Dask scheduler ({error})') from error
    yield client


@contextlib.contextmanager
def _pool(executor: Any) -> Iterator[Callable[[Iterable[_Call]], Iterator[tuple[Any, Any]]]]:
  """What does calls in parallel. Its processes end with the context."""
  try:
    if executor.backend == 'dask':
      with _dask(executor.address, executor.workers) as client:
        yield functools.partial(_by_dask, client)
    else:
      yield functools.partial(_by_joblib, executor)
  finally:
    if executor.backend == 'loky':
      loky.get_reusable_executor().shutdown(wait=True, kill_workers=True)
    decoder.end()


def run(
  function: Callable[..., Any], jobs: Mapping[_Key, tuple[Any, ...]], executor: Any
) -> Iterator[tuple[_Key, Any]]:
  """function(*job) for every job, in parallel. A job whose worker is killed is done again.

  Args:
    executor: config.executor.

  Yields:
    key, result, as they come.

  Raises:
    MachineFailure: workers are killed again and again, or cannot be had.
  """
  left, attempts = dict(jobs), ATTEMPTS
  parent = os.getpid() if executor.backend == 'loky' else 0
  while left and attempts:
    attempts -= 1
    with contextlib.suppress(concurrent.futures.BrokenExecutor), _pool(executor) as each:
      for key, result in each([(key, function, job, parent) for key, job in left.items()]):
        del left[key]
        attempts = ATTEMPTS
        yield key, result
  if left:
    raise decoder.MachineFailure(
      'the workers are killed again and again, perhaps for want of memory: set a smaller config.executor.workers, run '
      'the same command again, it goes on'
    )


def share(items: list[_Item], executor: Any) -> list[_Item]:
  """What this process is to hand to its workers, of a list that its team deals out.

  Args:
    executor: config.executor.
  """
  if executor.backend == 'dask':
    return items if processes.lead() else []
  return processes.share(items)


def titled(stage: str) -> str:
  """What a stage's progress bar is called: of several processes' bars the lead's is seen, 'prepare 1/4'."""
  members = processes.team()
  return stage if len(members) == 1 else f'{stage} {members.index(processes.number()) + 1}/{len(members)}'


def await_files(paths: Collection[pathlib.Path]) -> None:
  """Waits until this host sees files that are there: workers and processes elsewhere have written them.

  Raises:
    MachineFailure: it does not.
  """
  missing, until = set(paths), time.monotonic() + LATE_S
  while missing := missing - {path for folder in {path.parent for path in missing} for path in _in(folder)}:
    if time.monotonic() > until:
      raise decoder.MachineFailure(
        f'{min(missing)} has been written elsewhere and is not seen here after {LATE_S} s: let the work directory and '
        'config.cache be on a file system that all processes share, run the same command again, it goes on'
      )
    time.sleep(0.5)


def _in(folder: pathlib.Path) -> list[pathlib.Path]:
  """A folder's files. To list it makes NFS ask its server, where asking for a file is answered from memory."""
  try:
    return list(folder.iterdir())
  except FileNotFoundError:
    return []

"""Strangers' media are decoded in processes of their own: a crash or a hang costs one clip (pipeline step: prepare).

Whoever prepares a clip (a thread, a process, a worker of Dask's) hands what the store lacks to a child, `python -m
emo_jax.frontend.decoder`, and looks after it. A child serves clip after clip, for its imports cost seconds: a line of
JSON is a job, and lines come back, signs of life while frames are decoded and then the answer. It ends with its parent,
however that ends, because its standard input ends then.
"""

import atexit
import contextlib
import errno
import json
import math
import os
import pathlib
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from emo_jax.frontend import halves

# -P: not the working directory's modules, whoever filled it. -W: what warns here warns there.
COMMAND = (sys.executable, '-P', *(f'-W{kind}' for kind in sys.warnoptions), '-m', 'emo_jax.frontend.decoder')
START_S = 300  # seconds that a child may take to begin: libraries may come from a slow, shared disk
IDLE_S = 60  # seconds without a job after which a child ends
_ONE_CORE = {f'{library}_NUM_THREADS': '1' for library in ('OMP', 'OPENBLAS', 'MKL')}  # a child is one of many
# glibc would take to serving whole frames from its heap, where the few numbers that are kept of each come to lie
# between them and cut what was freed to pieces: 28 kB a frame are lost then, and a film of an hour takes 3 GB.
_FLAT = {'MALLOC_MMAP_THRESHOLD_': str(1 << 17)}  # bytes; its default, but fixed


class MachineFailure(Exception):
  """No clip's fault: somebody has to see to the machine. The message says what to do."""


ADVICE = {
  errno.EROFS: 'mount it for writing, or use another folder',
  errno.EACCES: 'see to its permissions, or use another folder',
  errno.EPERM: 'see to its permissions, or use another folder',
  errno.EMFILE: 'allow more open files (ulimit -n)',
  errno.ENFILE: 'allow more open files (sysctl fs.file-max)',
}


def explain(error: Exception, place: str | pathlib.Path) -> str:
  """What to tell the user of an error of the machine's, met while writing below `place`."""
  again = 'run the same command again, it goes on'
  if isinstance(error, OSError) and (error.errno in (errno.ENOSPC, errno.EDQUOT) or _cut_short(error)):
    return f'the disk is full while writing {place}: free space, {again}'
  if isinstance(error, OSError):
    advice = ADVICE.get(error.errno or 0, 'see to that')
    return f'{place} cannot be written ({error}): {advice}, {again}'
  if isinstance(error, MemoryError):
    return f'out of memory ({error}): set a smaller config.executor.workers, {again}'
  return str(error)


def _cut_short(error: OSError) -> bool:
  """Whether it is numpy's, which has no number for a full disk: '65536 requested and 12256 written'."""
  return error.errno is None and str(error).endswith(' written')


class _Child:
  """A decoder process. `ready`: it has begun; `busy`: somebody waits for it; `dismissed`: it was ended on purpose."""

  def __init__(self, command: Sequence[str]):
    paths = [str(pathlib.Path(__file__).parents[2]), os.environ.get('PYTHONPATH', '')]
    env = {**os.environ, **_ONE_CORE, **_FLAT, 'PYTHONPATH': os.pathsep.join(filter(None, paths))}
    self.command, self.ready, self.busy, self.dismissed = command, False, True, False
    pipe = subprocess.PIPE
    try:  # a process group of its own: Ctrl-C is the parent's
      self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0, env=env, process_group=0)
    except OSError as error:
      raise MachineFailure(f'the decoder cannot be started ({error})') from error

  def answer(self, job: dict[str, Any], total: float) -> dict[str, Any]:
    """Has a job done.

    Raises:
      TimeoutError: no sign of life for job['limit'] seconds, or no answer in `total`; the message says which.
      EOFError: the process has died.
    """
    assert self.process.stdin and self.process.stdout
    with contextlib.suppress(BrokenPipeError):  # then reading tells
      self.process.stdin.write(json.dumps(job).encode() + b'\n')
    poll = select.poll()
    poll.register(self.process.stdout, select.POLLIN)
    limit, end = job['limit'], time.monotonic() + total if self.ready else math.inf
    while (left := end - time.monotonic()) > 0 and poll.poll(1000 * min(left, limit if self.ready else START_S)):
      line = self.process.stdout.readline()
      if not line.endswith(b'\n'):
        raise EOFError
      if message := json.loads(line):
        return message
      if not self.ready:  # to begin is not the job's time
        self.ready, end = True, time.monotonic() + total
    if left < limit:
      raise TimeoutError(f'decoding it takes more than {total:g} s, which is all that it may take')
    raise TimeoutError(f'decoding it stood still for {limit:g} s (config.executor.limit)')

  def end(self, *, patience: float = 0) -> str:
    """Kills the process unless it ends by itself within `patience` seconds, and says how it ended."""
    assert self.process.stdin and self.process.stdout
    for seconds in (patience, 5):  # a process that waits for a dead disk outlives its being killed
      with contextlib.suppress(subprocess.TimeoutExpired):
        self.process.wait(seconds)
      self.process.kill()
    self.process.stdin.close()
    self.process.stdout.close()
    with _lock:
      _children.discard(self)
    code = self.process.returncode or 0
    name = next((number.name for number in signal.Signals if number == -code), '')
    return f'signal {-code} {name}'.rstrip() if code < 0 else f'exit status {code}'


_children: set[_Child] = set()
_lock = threading.RLock()


def _borrow(command: Sequence[str], *, fresh: bool) -> _Child:
  """An idle child, or a new one."""
  with _lock:
    for child in [child for child in _children if child.command == command and not child.busy]:
      if child.process.poll() is not None:
        child.end()
      elif not fresh:
        child.busy = True
        return child
  child = _Child(command)
  with _lock:
    _children.add(child)
  return child


@atexit.register
def end() -> None:
  """Ends all children of this process. Those at work are left to whoever waits for them."""
  with _lock:
    children = list(_children)
  for child in children:
    child.dismissed = True
    child.process.kill()
    if not child.busy:
      child.end()


def prepare_half(
  half: str,
  path: str,
  target: str,
  settings: dict[str, Any],
  *,
  limit: float,
  total: float = math.inf,
  command: Sequence[str] = COMMAND,
) -> dict[str, Any]:
  """As halves.prepare_half, in a child: neither a crash nor a hang of a decoder reaches the caller.

  Args:
    limit: seconds without a frame after which the child is killed.
    total: seconds after which it is killed however many frames come.
    command: starts a child.

  Returns:
    {'reason': why nothing was written, '' if it was}, and where the child was lost over it 'again': the limit above
    which to try again, 0 after a crash.

  Raises:
    MachineFailure: it is not the clip's fault.
  """
  job = {'half': half, 'path': path, 'target': target, 'settings': settings, 'limit': limit}
  name = pathlib.Path(path).name
  for fresh in (False, True):
    child = _borrow(command, fresh=fresh)
    try:
      answer = child.answer(job, total)
    except TimeoutError as error:
      child.end()
      if not child.ready:
        raise MachineFailure(f'the decoder does not start: nothing came of it in {START_S} s') from None
      return {'reason': f'{name}: {error}', 'again': limit}
    except EOFError:
      died = child.end(patience=5)
      if child.dismissed:
        raise MachineFailure('preparing was broken off') from None
      continue
    except BaseException:  # the run is asked to stop, while its main thread waits here
      child.end()
      raise
    child.busy = False
    if 'machine' in answer:
      raise MachineFailure(answer['machine'])
    return answer
  if not child.ready:
    raise MachineFailure(f'the decoder does not start ({died}): try {" ".join(command)}')
  return {'reason': f'{name}: the decoder died ({died}), and once more in a fresh process', 'again': 0}


def serve(prepare: Callable[..., dict[str, Any]] = halves.prepare_half) -> None:
  """The child: does jobs until its parent ends or gives it none for IDLE_S seconds."""
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)  # what libraries print is not an answer
  jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

  def read() -> None:
    with open(0, 'rb', buffering=0, closefd=False) as lines:
      for line in lines:
        jobs.put(json.loads(line))
    os._exit(0)

  def say(message: dict[str, Any]) -> None:
    try:
      print(json.dumps(message), file=answers, flush=True)
    except BrokenPipeError:
      os._exit(0)

  threading.Thread(target=read, daemon=True).start()
  with contextlib.suppress(ImportError):  # here, not in the time of the first clip; which says what is missing
    import av  # noqa: F401
    import cv2  # noqa: F401
    from librosa.util import frame  # noqa: F401 - librosa loads its parts when they are asked for
  say({})
  with contextlib.suppress(queue.Empty):
    while True:
      say(_do(jobs.get(timeout=IDLE_S), prepare, say))
  answers.close()


def _do(job: dict[str, Any], prepare: Callable[..., dict[str, Any]], say: Callable[..., None]) -> dict[str, Any]:
  """One job, with a sign of life now and then as frames come."""
  limit, spoken = job.pop('limit'), -math.inf

  def beat() -> None:
    nonlocal spoken
    if time.monotonic() - spoken >= min(1.0, limit / 4):
      spoken = time.monotonic()
      say({})
      signal.alarm(math.ceil(limit) + 30)  # kills what hangs where no parent is left and no thread gets to run

  beat()
  try:
    return prepare(**job, beat=beat)
  except (OSError, ImportError, MemoryError) as error:
    return {'machine': explain(error, pathlib.Path(job['target']).parents[1])}
  finally:
    signal.alarm(0)


if __name__ == '__main__':
  serve()

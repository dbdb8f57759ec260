"""Being asked to stop, by a scheduler (SIGTERM) or a user (Ctrl-C): a training saves itself first (all steps).

Elsewhere the program ends where it is, and what it was making goes on from its last whole file. Python sees to signals
in its main thread alone, and not while that computes: then the program ends a little later.
"""

import contextlib
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
ONE_S = 0.5  # within which signals are one: `timeout` and wrappers of a terminal's programs send theirs twice

_asked: signal.Signals | None = None
_deferred = False


class Stopped(SystemExit):
  """The program ends because it was asked to; `code` is what schedulers expect, 128 + the signal's number.

  Args:
    number: the signal.
    saved: what was saved for it, in words.
  """

  def __init__(self, number: signal.Signals, saved: str = ''):
    super().__init__(128 + number)
    there = f'saved {saved}; the same command goes on from there' if saved else 'the same command goes on'
    self.said = f'stopped by {number.name}: {there}'


def watch() -> None:
  """From now on, SIGTERM and SIGINT raise Stopped in the main thread, or wait for the step of a training to end."""
  heard, told = os.pipe()
  os.set_blocking(told, False)
  signal.set_wakeup_fd(told, warn_on_full_buffer=False)
  threading.Thread(target=_listen, args=(heard,), daemon=True).start()
  for number in SIGNALS:
    signal.signal(number, _on_signal)


def _on_signal(number: int, frame: Any) -> None:
  global _asked
  if _asked is None:  # a second one must not break the tidying up after the first
    _asked = signal.Signals(number)
    if not _deferred:
      raise Stopped(_asked)
    _say(f'{_asked.name}: the training saves itself and ends; Ctrl-C once more ends at once')


def _listen(heard: int) -> None:
  """Hears a signal at once, also while the main thread computes: Ctrl-C once more ends the program, whatever it does.

  SIGTERM once more does not: some schedulers repeat it, and all have SIGKILL.
  """
  first = 0.0
  while number := int.from_bytes(os.read(heard, 1)):
    if not first and number in SIGNALS:
      first = time.monotonic()
    elif number == signal.SIGINT and time.monotonic() - first > ONE_S:
      _say('stopped by SIGINT once more: the same command goes on from what is saved')
      os._exit(128 + number)


def _say(sentence: str) -> None:
  """Not by sys.stderr, which a sweep's cell has for itself."""
  with contextlib.suppress(OSError):
    os.write(2, f'\n{sentence}\n'.encode())


@contextlib.contextmanager
def saying() -> Iterator[None]:
  """The whole of a run: where it is stopped, the last words are a sentence that says so."""
  try:
    yield
  except Stopped as stop:
    print(stop.said, file=sys.stderr, flush=True)
    raise


def asked() -> bool:
  """Whether the program is to stop."""
  return _asked is not None


def heed() -> None:
  """Ends the program if it was asked to while that was deferred; for places where nothing is half done."""
  if _asked:
    stop()


def stop(saved: str = '') -> None:
  """Ends the program, after what is named was saved. Of several processes perhaps another one was asked."""
  raise Stopped(_asked or signal.SIGTERM, saved)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
  """Within the context, a signal only makes `asked` true."""
  global _deferred
  before, _deferred = _deferred, True
  try:
    yield
  finally:
    _deferred = before


@contextlib.contextmanager
def deaf() -> Iterator[None]:
  """Processes started within the context do not hear Ctrl-C, which terminals send to all: this one sees to their end.

  They inherit what the thread that starts them does not listen to; other threads of this process still hear it.
  """
  multiprocessing.resource_tracker.ensure_running()  # whose start, in Python 3.11, makes the thread listen again
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)

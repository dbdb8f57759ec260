"""Being asked to stop: when a signal takes effect, what is said, and what it must not break."""

import os
import pathlib
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable

import pytest

from emo_jax import stopping
from emo_jax.frontend import workers

REPO = pathlib.Path(__file__).parents[1]
AGAIN = 3 * stopping.ONE_S  # seconds after which a signal is a second one


@pytest.fixture
def program(tmp_path: pathlib.Path) -> Callable[..., tuple[int, str]]:
  """(lines of a program that watches and prints 'on', *(seconds to wait, signal)) -> its status, what it said."""

  def run(lines: str, *signals: tuple[float, signal.Signals]) -> tuple[int, str]:
    script = tmp_path / 'program.py'
    body = ''.join(f'  {line}\n' for line in lines.splitlines())
    script.write_text(
      f'import hashlib, os, sys, time\nfrom emo_jax import stopping\nstopping.watch()\nwith stopping.saying():\n{body}'
    )
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    with subprocess.Popen([sys.executable, script], env={**os.environ, 'PYTHONPATH': str(REPO)}, **pipes) as ran:
      assert ran.stdout and ran.stderr and ran.stdout.readline() == 'on\n', ran.stderr.read()
      for seconds, number in signals:
        time.sleep(seconds)
        ran.send_signal(number)
      said = ran.communicate(timeout=60)[1]
    assert 'Traceback' not in said, said
    return ran.returncode, said

  return run


FOR_LONG = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"  # in C, which does not see to signals
SLEEP = 'time.sleep(60)'


@pytest.mark.parametrize(('number', 'status'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_program_where_it_is_but_not_without_tidying_up(program, number, status):
  lines = (
    "print('on', flush=True)\ntry:\n  time.sleep(60)\nexcept Exception:\n  print('swallowed')\n"
    "finally:\n  time.sleep(0.3)\n  print('tidied up', file=sys.stderr)"
  )
  code, said = program(lines, (0, number), (0.1, signal.SIGTERM))  # another one does not break off the tidying up
  assert code == status
  assert said == f'tidied up\nstopped by {number.name}: the same command goes on\n'


def test_where_it_is_deferred_the_program_is_told_and_ends_itself(program):
  lines = (
    "print('on', flush=True)\nwith stopping.deferred():\n  while not stopping.asked():\n    time.sleep(0.01)\n"
    "  stopping.stop('net/fold_0 at step 7')"
  )
  code, said = program(lines, (0, signal.SIGTERM))
  assert code == 143 and 'SIGTERM: the training saves itself and ends; Ctrl-C once more ends at once\n' in said
  assert said.endswith('stopped by SIGTERM: saved net/fold_0 at step 7; the same command goes on from there\n')


def test_one_that_came_too_late_for_the_last_step_is_heeded_at_the_next_good_place(program):
  lines = (
    "stopping.heed()\nwith stopping.deferred():\n  print('on', flush=True)\n  time.sleep(0.5)\n"
    "print('saved', file=sys.stderr)\nstopping.heed()\ntime.sleep(60)"
  )
  code, said = program(lines, (0, signal.SIGTERM))
  assert code == 143 and said.endswith('saved\nstopped by SIGTERM: the same command goes on\n')


@pytest.mark.parametrize(
  'before', [f"print('on', flush=True)\n{FOR_LONG}", f'with stopping.deferred():\n  print("on", flush=True)\n  {SLEEP}']
)
def test_ctrl_c_once_more_ends_the_program_at_once_whatever_it_does(program, before):
  began = time.monotonic()
  code, said = program(before, (0.1, signal.SIGTERM), (AGAIN, signal.SIGTERM), (0, signal.SIGINT))
  assert code == 130 and time.monotonic() - began < 30
  assert said.endswith('stopped by SIGINT once more: the same command goes on from what is saved\n')


def test_one_that_is_sent_twice_is_one_and_so_is_any_number_of_sigterms(program):
  lines = "with stopping.deferred():\n  print('on', flush=True)\n  time.sleep(2)\n  stopping.stop('all')"
  code, said = program(lines, (0, signal.SIGINT), (0.01, signal.SIGINT), (AGAIN, signal.SIGTERM))
  assert code == 130 and said.endswith('stopped by SIGINT: saved all; the same command goes on from there\n')


def test_a_process_that_is_started_deaf_does_not_hear_ctrl_c(tmp_path):
  """As workers do not, to which a terminal sends it as well."""
  lines = "signal.signal(signal.SIGINT, signal.SIG_DFL); print('on', flush=True); time.sleep(1)"
  child = [sys.executable, '-c', f'import signal, time; {lines}']
  with stopping.deaf():
    deaf = subprocess.Popen(child, stdout=subprocess.PIPE)
  hearing = subprocess.Popen(child, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
  with deaf, hearing:
    for process in (deaf, hearing):
      assert process.stdout and process.stdout.readline() == b'on\n'
      process.send_signal(signal.SIGINT)
  assert (deaf.returncode, hearing.returncode) == (0, -signal.SIGINT)
  assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_workers_in_processes_of_their_own_do_not_hear_it() -> None:
  def heard(number: int) -> bool:
    return signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())

  executor = types.SimpleNamespace(backend='loky', workers=2, address='')
  assert dict(workers.run(heard, {0: (0,), 1: (1,)}, executor)) == {0: False, 1: False}

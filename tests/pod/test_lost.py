"""Two processes of which one is lost: the other ends soon and says why, and both, started again, end in the same bytes
as if nothing had been."""

import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

from emo_jax import processes
from emo_jax.training import checkpoint

TRAINING = 'audio_net/*.partial/scratch/checkpoints/2'
SAID = 'run the same command again in all, it goes on from what is saved'
Pod = list['subprocess.Popen[str]']


def printed(logs: pathlib.Path) -> list[str]:
  return [path.read_text() for path in sorted(logs.iterdir())]


def strike(started: Pod, number: int, what: signal.Signals, stages: pathlib.Path, when: str) -> float:
  """Sends one process a signal as soon as something lies below `stages`; the seconds until the other one has ended."""
  while not list(stages.glob(when)):
    assert all(process.poll() is None for process in started)
    time.sleep(0.002)
  started[number].send_signal(what)
  struck = time.monotonic()
  started[1 - number].wait(timeout=300)
  return time.monotonic() - struck


def networks(workdir: pathlib.Path) -> dict[str, str]:
  """Fold's folder -> digest of the audio net that it holds."""
  folders = [path for path in (workdir / 'stages' / 'audio_net').iterdir() if path.is_dir()]
  return {folder.name: checkpoint.digest(checkpoint.read(folder / 'network')) for folder in folders}


def test_one_process_killed_while_training_ends_the_other_and_both_go_on(pod, clips, unbroken, paired, tmp_path):
  for name in ('prepare', 'store'):
    shutil.copytree(unbroken / 'stages' / name, tmp_path / 'w' / 'stages' / name)
  run = lambda: pod(tmp_path / 'w', f'data.root={clips}', 'until=audio_net', logs=tmp_path / 'logs')
  started = run()
  seconds = strike(started, 1, signal.SIGKILL, tmp_path / 'w' / 'stages', TRAINING)
  assert started[0].returncode == processes.LOST and seconds < 20
  assert started[1].wait(timeout=60) == -signal.SIGKILL
  lead, _ = printed(tmp_path / 'logs')
  assert f'process 0: process 1 of 2 has ended before its time; see its own output. This one ends too: {SAID}' in lead
  assert 'Traceback' not in lead
  assert [process.wait(timeout=300) for process in run()] == [0, 0], printed(tmp_path / 'logs')
  assert networks(tmp_path / 'w') == networks(paired) and len(networks(paired)) == 3


@pytest.mark.kill
@pytest.mark.parametrize('what', [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize('number', [0, 1])
@pytest.mark.parametrize('when', [TRAINING, 'decide/*/*.partial'])  # of preparing: test_preparing.py
def test_wherever_one_is_lost_the_other_ends_and_the_predictions_are_the_same(
  pod, clips, paired, tmp_path, when, number, what
):
  if what == signal.SIGSTOP and when != TRAINING:
    pytest.skip('waiting is the same everywhere, and takes a minute')
  logs, other = tmp_path / 'logs', 1 - number
  started = pod(tmp_path / 'w', f'data.root={clips}', logs=logs)
  seconds = strike(started, number, what, tmp_path / 'w' / 'stages', when)
  print(f'{what.name} of process {number}, {when}: {seconds:.1f} s, status {started[other].returncode}')
  print(printed(logs)[other][-600:])
  assert started[other].returncode == processes.LOST
  assert seconds < 20 if what == signal.SIGKILL else seconds < 2 * processes.HEARTBEAT_S + 20
  assert SAID in printed(logs)[other].splitlines()[-1] and 'Traceback' not in printed(logs)[other]
  if what == signal.SIGSTOP:
    started[number].send_signal(signal.SIGCONT)
  assert started[number].wait(timeout=60) == (-signal.SIGKILL if what == signal.SIGKILL else processes.LOST)
  again = pod(tmp_path / 'w', f'data.root={clips}', logs=logs)
  assert [process.wait(timeout=900) for process in again] == [0, 0], printed(logs)
  assert (tmp_path / 'w' / 'predictions.csv').read_bytes() == (paired / 'predictions.csv').read_bytes()


@pytest.mark.kill
@pytest.mark.parametrize('number', [0, 1])
def test_sigterm_to_one_stops_both_after_the_same_step(pod, clips, paired, tmp_path, number):
  logs = tmp_path / 'logs'
  started = pod(tmp_path / 'w', f'data.root={clips}', 'save.every=1000', 'audio.epochs=2', logs=logs)
  strike(started, number, signal.SIGTERM, tmp_path / 'w' / 'stages', 'audio_net/*.partial/metrics.jsonl')
  assert [process.wait(timeout=60) for process in started] == [143, 143], printed(logs)
  saved = [re.findall(r'saved (.* at step \d+);', text) for text in printed(logs)]
  assert saved[0] == saved[1] and len(saved[0]) == 1
  again = pod(tmp_path / 'w', f'data.root={clips}', 'save.every=1000', 'audio.epochs=2', logs=logs)
  assert [process.wait(timeout=900) for process in again] == [0, 0], printed(logs)
  assert (tmp_path / 'w' / 'predictions.csv').read_bytes() == (paired / 'predictions.csv').read_bytes()


@pytest.mark.kill
@pytest.mark.parametrize('number', [0, 1])
def test_what_is_wrong_on_one_host_alone_ends_all(pod, clips, tmp_path, number):
  started = pod(tmp_path / 'w', f'data.root={clips}', own={number: 'svm.c=-1.0'}, logs=tmp_path / 'logs')
  assert started[number].wait(timeout=120) == 1
  failed = time.monotonic()
  assert started[1 - number].wait(timeout=60) == processes.LOST and time.monotonic() - failed < 10
  told = printed(tmp_path / 'logs')
  assert 'a penalty is a number above 0' in told[number] and f'process {number} of 2 has ended' in told[1 - number]
  assert not any('Traceback' in text for text in told)

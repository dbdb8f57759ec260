"""launch.py on disks that are full, read-only or damage what they hold, and two runs in one work directory."""

import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

import psutil
import pytest

Command = Callable[..., list[str]]
Run = Callable[..., subprocess.CompletedProcess[str]]
GOES_ON = 'run the same command again, it goes on\n'


@pytest.fixture
def with_disk(tmp_path: pathlib.Path, environment: dict[str, str]) -> Callable[[str], list[str]]:
  """Runs a shell script that has a disk of its own, of 50 MB at first, at <tmp_path>/disk; the lines it puts out."""
  disk, own = tmp_path / 'disk', ['unshare', '--mount', '--map-root-user', 'sh', '-c']
  disk.mkdir()
  mount = f'mount -t tmpfs -o size=50m none {disk}'
  if not shutil.which('unshare') or subprocess.run([*own, mount], capture_output=True, check=False).returncode:
    pytest.skip('no disk can be made here: unshare --mount --map-root-user is refused')

  def run(script: str) -> list[str]:
    done = subprocess.run([*own, f'{mount} && {script}'], capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0 and 'Traceback' not in done.stderr, done.stderr
    return done.stdout.splitlines() + done.stderr.splitlines()

  return run


def later(*case: object) -> object:
  return pytest.param(*case, marks=pytest.mark.kill)


@pytest.mark.parametrize(
  ('before', 'stage', 'kilobytes'),
  [
    ('prepare', 'audio_net', 60),  # a checkpoint fits, a network does not
    later('prepare', 'audio_net', 4),
    later('prepare', 'audio_net', 200),
    later('audio_net', 'visual_net', 40),
    later('visual_net', 'features', 4),
    later('features', 'fusion', 8),
    later('features', 'fusion', 120),
    later('fusion', 'decide', 4),
    later('decide', 'report', 4),
    later('decide', 'report', 60),
  ],
)
def test_a_disk_that_fills_up_is_said_in_a_sentence_and_with_room_the_run_ends_as_ever(
  unbroken: pathlib.Path,
  clips: pathlib.Path,
  command: Command,
  with_disk: Callable[[str], list[str]],
  tmp_path: pathlib.Path,
  before: str,
  stage: str,
  kilobytes: int,
) -> None:
  disk = tmp_path / 'disk'
  to = lambda name: shlex.join(command(disk / 'w', f'data.root={clips}', f'until={name}'))
  used = f'$(df -k --output=used {disk} | tail -1)'
  said = with_disk(
    f'{to(before)} && mount -o remount,size=$(({used} + {kilobytes}))k {disk} && '
    f'{{ {to(stage)}; echo status $?; mount -o remount,size=50m {disk}; {to("report")} && '
    f'cp {disk}/w/predictions.csv {tmp_path}; }}'
  )
  assert 'status 1' in said
  assert f'launch.py: the disk is full while writing {disk}/w/stages: free space, {GOES_ON.rstrip()}' in said
  assert not any('damaged' in line for line in said)  # nothing half-written was taken for whole
  assert (tmp_path / 'predictions.csv').read_bytes() == (unbroken / 'predictions.csv').read_bytes()


@pytest.mark.parametrize('what', ['workdir', later('cache')])
def test_a_read_only_folder_is_said_in_a_sentence(
  clips: pathlib.Path, command: Command, with_disk: Callable[[str], list[str]], tmp_path: pathlib.Path, what: str
) -> None:
  disk = tmp_path / 'disk'
  workdir, cache = (disk, tmp_path / 'stages') if what == 'workdir' else (tmp_path / 'w', disk)
  run = shlex.join(command(workdir, f'data.root={clips}', f'cache={cache}', 'until=audio_net'))
  said = with_disk(f'mount -o remount,ro {disk}; {run}; echo status $?')
  assert 'status 1' in said
  (sentence,) = (line for line in said if line.startswith('launch.py: '))
  assert sentence.startswith(f'launch.py: {disk} cannot be written ([Errno 30] Read-only file system: ')
  assert sentence.endswith(f'mount it for writing, or use another folder, {GOES_ON.rstrip()}')


def test_a_second_run_is_refused_while_the_first_lives(
  clips: pathlib.Path, command: Command, environment: dict[str, str], launch: Run, tmp_path: pathlib.Path
) -> None:
  workdir = tmp_path / 'w'
  lock = (workdir / 'lock').resolve()
  with open(tmp_path / 'log', 'w') as log:
    settings = (f'data.root={clips}', 'until=audio_net')
    first = subprocess.Popen(command(workdir, *settings), stdout=log, stderr=log, env=environment)
  while first.poll() is None and not list(workdir.glob('stages/store/*/*.npz')):
    time.sleep(0.01)
  first.send_signal(signal.SIGSTOP)
  holders = [
    process.pid
    for process in [psutil.Process(first.pid), *psutil.Process(first.pid).children(recursive=True)]
    if any(os.readlink(fd) == str(lock) for fd in pathlib.Path(f'/proc/{process.pid}/fd').iterdir())
  ]
  assert holders == [first.pid]  # a decoder that outlives its parent holds nothing
  second = launch(workdir, *settings)
  other = launch(workdir, *settings, 'seed=7', 'audio.optim.lr=0.5')
  first.kill()
  first.wait()
  assert second.returncode == 1 and 'Traceback' not in second.stderr
  assert f'launch.py: {workdir} is in use by process {first.pid} on ' in second.stderr
  assert second.stderr.endswith('let it end, or use another --workdir\n')
  assert other.returncode == 1 and 'Traceback' not in other.stderr
  assert f'launch.py: {workdir} belongs to another config; different: audio.optim.lr (' in other.stderr
  assert 'seed (0 there, 7 now). Use another --workdir.' in other.stderr
  third = launch(workdir, f'data.root={clips}', 'until=prepare')
  assert third.returncode == 0, third.stderr  # a dead run holds nothing either


def test_a_checkpoint_cut_off_and_a_damaged_network_cost_no_more_than_what_they_held(
  unbroken: pathlib.Path,
  clips: pathlib.Path,
  command: Command,
  environment: dict[str, str],
  launch: Run,
  tmp_path: pathlib.Path,
) -> None:
  workdir = tmp_path / 'w'
  shutil.copytree(unbroken, workdir)
  for stage in ('audio_net', 'features', 'fusion', 'decide'):
    shutil.rmtree(workdir / 'stages' / stage)
  settings = (f'data.root={clips}', 'save.every=1')
  with open(tmp_path / 'log', 'w') as log:
    run = subprocess.Popen(command(workdir, *settings), stdout=log, stderr=log, env=environment)
  while run.poll() is None and not list(workdir.glob('stages/audio_net/*.partial/scratch/checkpoints/2')):
    time.sleep(0.001)
  run.kill()
  run.wait()
  steps = {int(path.name): path for path in workdir.glob('stages/audio_net/*/scratch/checkpoints/[0-9]')}
  _cut_off(steps[max(steps)])
  network = sorted((workdir / 'stages' / 'visual_net').glob('*/network'))[0]
  _cut_off(network)
  refused = launch(workdir, *settings)
  aside = f'{steps[max(steps)]}.damaged: the checkpoint of step {max(steps)} is damaged ('
  assert aside in refused.stderr and f'; training goes on from step {min(steps)}\n' in refused.stderr
  assert refused.returncode == 1 and 'Traceback' not in refused.stderr
  assert f'launch.py: {network} is damaged (' in refused.stderr
  assert refused.stderr.endswith(f': delete {network.parent}, then the same command makes it again\n')
  shutil.rmtree(network.parent)
  done = launch(workdir, *settings)
  assert done.returncode == 0 and 'damaged' not in done.stderr, done.stderr
  assert (workdir / 'predictions.csv').read_bytes() == (unbroken / 'predictions.csv').read_bytes()


def _cut_off(folder: pathlib.Path) -> None:
  """Halves the file that the arrays are in."""
  largest = max((path for path in folder.rglob('*') if path.is_file()), key=lambda path: path.stat().st_size)
  os.truncate(largest, largest.stat().st_size // 2)

"""Several processes prepare one store on a shared folder: the same bytes as one makes, whoever is killed meanwhile."""

import pathlib
import random
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

PREPARE = ('until=prepare', 'data.corpus=manifest', 'data.rule=loso', 'executor.workers=1')
LISTS = ('rejected.csv', 'warnings.csv', 'split.json')
LOST = 75
Pod = Callable[..., list['subprocess.Popen[str]']]


@pytest.fixture(scope='module')
def corpus(clips: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> str:
  """The tiny clips, one of them twice, two that are bad, and one that is not there: a root to be read by lists."""
  root = tmp_path_factory.mktemp('corpus')
  lines = ['path,speaker,emotion']
  for path in sorted(clips.rglob('*.mp4')):
    speaker, emotion = path.parent.name, path.stem.split('_')[0]
    shutil.copy(path, root / f'{speaker}_{path.name}')
    lines.append(f'{speaker}_{path.name},{speaker},{emotion}')
  first = lines[1].split(',')
  shutil.copy(root / first[0], root / 'again.mp4')
  (root / 'words.mp4').write_text('no film')
  (root / 'half.mp4').write_bytes((root / first[0]).read_bytes()[:3000])
  lines += [','.join((name, *first[1:])) for name in ('again.mp4', 'words.mp4', 'half.mp4', 'gone.mp4')]
  (root / 'list.csv').write_text('\n'.join(lines) + '\n')
  return str(root / 'list.csv')


def made(workdir: pathlib.Path) -> dict[str, bytes]:
  """Every file of a store, the records and the lists of what is odd."""
  stages = workdir / 'stages'
  files = [*(stages / 'store').rglob('*'), *stages.glob('prepare/*/index.json'), *(workdir / name for name in LISTS)]
  return {str(path.relative_to(workdir)): path.read_bytes() for path in files if path.is_file()}


def ends(pod: list['subprocess.Popen[str]'], seconds: float = 120) -> list[int]:
  return [process.wait(seconds) for process in pod]


def written(workdir: pathlib.Path) -> int:
  return len(list((workdir / 'stages' / 'store').glob('*/*.npz')))


def until(pod: list['subprocess.Popen[str]'], there: Callable[[], bool]) -> None:
  """Waits until something is there, or the processes have ended."""
  while not there() and any(process.poll() is None for process in pod):
    time.sleep(0.01)


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory: pytest.TempPathFactory, corpus: str, launch: Callable[..., Any]) -> dict[str, bytes]:
  """What one process makes."""
  workdir = tmp_path_factory.mktemp('unbroken')
  done = launch(workdir, f'data.root={corpus}', *PREPARE)
  assert done.returncode == 0, done.stderr
  found = made(workdir)
  assert len(found) == 12 * 2 * 2 + 2 + 3  # two halves, array and facts of each; the lock, the records; the lists
  assert found['rejected.csv'].count(b'\n') == 1 + 3
  return found


def test_two_processes_prepare_a_part_each_and_make_the_same_bytes(
  unbroken: dict[str, bytes], corpus: str, pod: Pod, tmp_path: pathlib.Path
) -> None:
  assert ends(pod(tmp_path / 'w', f'data.root={corpus}', *PREPARE, devices=1, logs=tmp_path)) == [0, 0]
  lead, other = ((tmp_path / f'{number}.txt').read_text() for number in range(2))
  assert 'prepare 1/2: 100% 9/9' in lead and 'prepare: 16 clips' in lead  # what is there twice is of one part
  assert 'prepare' not in other
  assert made(tmp_path / 'w') == unbroken


def test_one_killed_in_mid_run_ends_the_other_and_one_alone_goes_on(
  unbroken: dict[str, bytes], corpus: str, pod: Pod, launch: Callable[..., Any], tmp_path: pathlib.Path
) -> None:
  workdir, settings = tmp_path / 'w', (f'data.root={corpus}', *PREPARE)
  team = pod(workdir, *settings, devices=1, logs=tmp_path)
  until(team, lambda: written(workdir) >= 6)
  team[0].kill()
  assert ends(team, 20) == [-9, LOST]
  said = (tmp_path / '1.txt').read_text()
  assert 'process 0 of 2 has ended before its time' in said and 'Traceback' not in said
  assert 6 <= written(workdir) < 24
  done = launch(workdir, *settings)
  assert done.returncode == 0 and 'damaged' not in done.stderr
  assert made(workdir) == unbroken


@pytest.mark.kill
def test_any_of_two_or_three_killed_at_random_moments_changes_no_byte_of_the_store(
  unbroken: dict[str, bytes], corpus: str, pod: Pod, tmp_path: pathlib.Path
) -> None:
  workdir, settings, moments = tmp_path / 'w', (f'data.root={corpus}', *PREPARE), random.Random(0)
  for turn in range(6):
    team = pod(workdir, *settings, processes=2 + turn % 2, devices=1, logs=tmp_path)
    until(team, lambda: 'prepare 1/' in (tmp_path / '0.txt').read_text())  # they have met
    time.sleep(moments.uniform(0, 3))
    team[turn % len(team)].kill()
    assert set(ends(team, 20)) <= {0, -9, LOST}  # 0: it was at its end
    if list(workdir.glob('stages/prepare/*/index.json')):  # it was done before: once more from nothing
      shutil.rmtree(workdir)
  assert ends(pod(workdir, *settings, devices=1, logs=tmp_path)) == [0, 0]
  assert made(workdir) == unbroken


@pytest.mark.kill
def test_a_disk_that_is_full_for_one_ends_all_and_with_more_room_they_go_on(
  unbroken: dict[str, bytes],
  corpus: str,
  command: Callable[..., list[str]],
  environment: dict[str, str],
  tmp_path: pathlib.Path,
) -> None:
  disk, kept = tmp_path / 'disk', tmp_path / 'kept'
  disk.mkdir()
  own_mounts = ['unshare', '--mount', '--map-root-user', 'sh', '-c']
  mount = f'mount -t tmpfs -o size=500k none {disk}'
  if not shutil.which('unshare') or subprocess.run([*own_mounts, mount], capture_output=True, check=False).returncode:
    pytest.skip('no disk can be made here: unshare --mount --map-root-user is refused')
  run = shlex.join(command(tmp_path / 'w', f'data.root={corpus}', *PREPARE, f'cache={disk}'))

  def both(name: str) -> str:
    """Runs two, and prints their statuses."""
    with socket.create_server(('127.0.0.1', 0)) as free:
      flags = f'--coordinator=127.0.0.1:{free.getsockname()[1]} --num_processes=2'
    one, other = (f'{run} {flags} --process_id={number} 2>{tmp_path}/{name}{number}.txt' for number in range(2))
    return f'{one} & first=$!; {other}; second=$?; wait $first; echo $? $second'

  script = f'{mount} && ({both("full")}; mount -o remount,size=50m {disk}; {both("room")}; cp -r {disk} {kept})'
  done = subprocess.run([*own_mounts, script], capture_output=True, text=True, env=environment, timeout=300, check=True)
  full, room = done.stdout.splitlines()
  assert full in ('1 1', f'1 {LOST}', f'{LOST} 1') and room == '0 0'
  said = [(tmp_path / f'full{number}.txt').read_text() for number in range(2)]
  sentence = f'the disk is full while writing {disk}/store: free space, run the same command again, it goes on'
  assert any(f'launch.py: {sentence}\n' in of for of in said) and not any('Traceback' in of for of in said)
  shutil.move(kept, tmp_path / 'w' / 'stages')
  assert made(tmp_path / 'w') == unbroken

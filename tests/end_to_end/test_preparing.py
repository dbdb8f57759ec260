"""launch.py up to prepare, on machines that fail: killed runs and workers, a full disk, a damaged store."""

import pathlib
import random
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

PREPARE = ('until=prepare', 'executor.workers=2')
Run = Callable[..., subprocess.CompletedProcess[str]]


def _store(workdir: pathlib.Path) -> dict[str, bytes]:
  """Every file of a store, and the records."""
  stages = workdir / 'stages'
  files = [*(stages / 'store').rglob('*'), *stages.glob('prepare/*/index.json')]
  return {str(path.relative_to(stages)): path.read_bytes() for path in files if path.is_file()}


def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
  _, alive = psutil.wait_procs(processes, timeout=5)
  return [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory: pytest.TempPathFactory, clips: pathlib.Path, launch: Run) -> dict[str, bytes]:
  workdir = tmp_path_factory.mktemp('unbroken')
  done = launch(workdir, f'data.root={clips}', *PREPARE)
  assert done.returncode == 0, done.stderr
  *_, progress, summary, spent = done.stderr.splitlines()  # which is no terminal here
  assert spent.startswith('time: ') and 'prepare' in spent
  assert '12/12 [' in progress and 'clip/s' in progress
  assert summary == 'prepare: 12 clips: 12 whole, 0 halves or warned (warnings.csv), 0 rejected (rejected.csv)'
  found = _store(workdir)
  assert len(found) == 12 * 2 * 2 + 2  # two halves, array and facts of each; the lock and the records
  return found


@pytest.mark.parametrize('backend', ['loky', 'dask'])
def test_a_worker_killed_in_mid_run_costs_nothing(
  unbroken: dict[str, bytes],
  clips: pathlib.Path,
  command: Callable[..., list[str]],
  environment: dict[str, str],
  tmp_path: pathlib.Path,
  backend: str,
) -> None:
  settings = (f'data.root={clips}', *PREPARE, f'executor.backend={backend}')
  with open(tmp_path / 'log', 'w') as log:
    run = subprocess.Popen(command(tmp_path / 'w', *settings), stdout=log, stderr=log, env=environment)
    while run.poll() is None and len(list((tmp_path / 'w').glob('stages/store/*/*.npz'))) < 4:
      time.sleep(0.01)
    decoders = [child for child in psutil.Process(run.pid).children(recursive=True) if 'decoder' in child.cmdline()[-1]]
    worker = decoders[0].parent()
    assert worker and worker.pid != run.pid
    worker.kill()
    assert run.wait(120) == 0, (tmp_path / 'log').read_text()
  assert 'Traceback' not in (tmp_path / 'log').read_text()
  assert _store(tmp_path / 'w') == unbroken
  assert not _alive(decoders)


def test_a_full_disk_is_said_in_a_sentence_and_with_more_room_the_run_goes_on(
  unbroken: dict[str, bytes],
  clips: pathlib.Path,
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
  run = shlex.join(command(tmp_path / 'w', f'data.root={clips}', *PREPARE, f'cache={disk}'))
  script = f'{mount} && ({run}; echo status $?; mount -o remount,size=50m {disk}; {run}; cp -r {disk} {kept})'
  done = subprocess.run([*own_mounts, script], capture_output=True, text=True, env=environment, timeout=200, check=True)
  assert done.stdout.splitlines()[0] == 'status 1'
  sentence = f'the disk is full while writing {disk}/store: free space, run the same command again, it goes on'
  assert f'launch.py: {sentence}\n' in done.stderr and 'Traceback' not in done.stderr
  assert 'damaged' not in done.stderr  # nothing half-written was taken for whole
  shutil.move(kept, tmp_path / 'w' / 'stages')
  assert _store(tmp_path / 'w') == unbroken


def test_a_damaged_store_is_mended_by_the_next_run(
  unbroken: dict[str, bytes], clips: pathlib.Path, launch: Run, tmp_path: pathlib.Path
) -> None:
  assert launch(tmp_path, f'data.root={clips}', *PREPARE).returncode == 0
  first, second = sorted((tmp_path / 'stages' / 'store').glob('*/*.npy'))[:2]
  first.write_bytes(first.read_bytes()[:-1])
  second.unlink()
  done = launch(tmp_path, f'data.root={clips}', *PREPARE)
  assert done.returncode == 0 and 'store: 2 damaged files, prepared again\n' in done.stderr
  assert _store(tmp_path) == unbroken


@pytest.mark.kill
def test_sigkill_at_ten_random_moments_changes_no_byte_of_the_store(
  unbroken: dict[str, bytes],
  clips: pathlib.Path,
  command: Callable[..., list[str]],
  environment: dict[str, str],
  tmp_path: pathlib.Path,
) -> None:
  stages, moments, kills = tmp_path / 'w' / 'stages', random.Random(0), 0
  with open(tmp_path / 'log', 'w') as log:
    options: dict[str, Any] = {'stdout': log, 'stderr': log, 'env': environment}
    while kills < 10:
      settings = (f'data.root={clips}', *PREPARE, f'executor.backend={("threading", "loky", "dask")[kills % 3]}')
      run = subprocess.Popen(command(tmp_path / 'w', *settings), **options)
      while run.poll() is None and not list(stages.glob('prepare/*.partial')):
        time.sleep(0.01)
      time.sleep(moments.uniform(0, 3))  # while workers start, or clips are decoded
      if run.poll() is None:
        children = psutil.Process(run.pid).children(recursive=True)
        run.kill()
        assert not _alive(children), 'orphans'
      assert run.wait() in (0, -9), (tmp_path / 'log').read_text()
      if list(stages.glob('prepare/*/index.json')):  # it was done before: once more from nothing
        shutil.rmtree(stages)
      else:
        kills += 1
    last = subprocess.run(command(tmp_path / 'w', f'data.root={clips}', *PREPARE), check=False, **options)
  said = (tmp_path / 'log').read_text()
  assert last.returncode == 0 and 'Traceback' not in said and 'damaged' not in said, said
  assert _store(tmp_path / 'w') == unbroken

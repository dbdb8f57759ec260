"""Real runs of launch.py in several processes, on fake devices of this machine."""

import pathlib
import socket
import subprocess
from collections.abc import Callable

import pytest


@pytest.fixture(scope='session')
def pod(command: Callable[..., list[str]], environment: dict[str, str]) -> Callable[..., list['subprocess.Popen[str]']]:
  """Starts launch.py as several processes with some devices each; the caller waits for their ends.

  `own` has overrides of some processes alone.
  """

  def start(
    workdir: pathlib.Path,
    *overrides: str,
    processes: int = 2,
    devices: int = 2,
    logs: pathlib.Path,
    own: dict[int, str] | None = None,
  ) -> list['subprocess.Popen[str]']:
    with socket.create_server(('127.0.0.1', 0)) as free:
      port = free.getsockname()[1]
    given = {**environment, 'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}'}
    logs.mkdir(exist_ok=True)
    started = []
    for number in range(processes):
      flags = [f'--coordinator=127.0.0.1:{port}', f'--num_processes={processes}', f'--process_id={number}']
      with open(logs / f'{number}.txt', 'w') as log:
        wishes = (*overrides, own[number]) if own and number in own else overrides
        run = [*command(workdir, *wishes), *flags]
        started.append(subprocess.Popen(run, stdout=log, stderr=log, text=True, env=given))
    return started

  return start


@pytest.fixture(scope='session')
def paired(pod, clips, tmp_path_factory) -> pathlib.Path:
  """The work directory of a run in two processes that nothing happens to; what they print lies beside it, in `logs`."""
  folder = tmp_path_factory.mktemp('paired')
  started = pod(folder / 'w', f'data.root={clips}', logs=folder / 'logs')
  statuses = [process.wait(timeout=900) for process in started]
  assert statuses == [0, 0], [path.read_text() for path in (folder / 'logs').iterdir()]
  return folder / 'w'

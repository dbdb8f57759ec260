"""Jobs in threads, processes and on Dask: all are done, whoever is killed; what is wrong is said in a sentence."""

import os
import pathlib
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import joblib
import pytest

from emo_jax.frontend import decoder, workers

REPO = pathlib.Path(__file__).parents[2]


def executor(backend: str, count: int = 2, address: str = '') -> Any:
  return types.SimpleNamespace(backend=backend, workers=count, address=address)


def jobs(count: int, *rest: Any) -> dict[int, tuple[Any, ...]]:
  return {number: (number, *rest) for number in range(count)}


@pytest.mark.parametrize(('backend', 'count'), [('threading', 1), ('threading', 3), ('loky', 2), ('dask', 2)])
def test_every_job_is_done_once(backend: str, count: int, tmp_path: pathlib.Path) -> None:
  def work(number: int, folder: pathlib.Path) -> int:
    with open(folder / str(number), 'a') as file:
      file.write('x')
    return number * number

  results = list(workers.run(work, jobs(9, tmp_path), executor(backend, count)))
  assert sorted(results) == [(number, number * number) for number in range(9)]
  assert [path.read_text() for path in tmp_path.iterdir()] == ['x'] * 9


@pytest.mark.parametrize('given', [False, True])
@pytest.mark.parametrize('backend', ['loky', 'dask'])
def test_workers_have_as_many_threads_as_the_run(backend: str, given: bool, monkeypatch: pytest.MonkeyPatch) -> None:
  """Or sums come out different in their last bits, and with them what is trained."""
  for name in workers.THREADS:
    monkeypatch.setenv(name, '7') if given else monkeypatch.delenv(name, raising=False)

  def threads(number: int) -> list[str]:
    return [os.environ[name] for name in workers.THREADS]

  found = dict(workers.run(threads, jobs(2), executor(backend, 2)))
  assert found == {number: ['7' if given else str(joblib.cpu_count())] * len(workers.THREADS) for number in range(2)}


def test_results_come_when_they_are_there() -> None:
  def work(number: int) -> None:
    time.sleep(1.0 if number == 0 else 0.01)

  assert [key for key, _ in workers.run(work, jobs(6), executor('threading'))][-1] == 0


def test_without_jobs_nothing_is_done() -> None:
  assert list(workers.run(len, {}, executor('threading'))) == []


@pytest.mark.parametrize('backend', ['loky', 'dask'])
def test_a_killed_worker_costs_no_job(backend: str, tmp_path: pathlib.Path) -> None:
  def work(number: int, folder: pathlib.Path) -> int:
    if number in (2, 5) and not (folder / str(number)).exists():
      (folder / str(number)).touch()
      os.kill(os.getpid(), signal.SIGKILL)
    return number

  results = list(workers.run(work, jobs(8, tmp_path), executor(backend)))
  assert sorted(results) == [(number, number) for number in range(8)]
  assert (tmp_path / '2').exists() and (tmp_path / '5').exists()


@pytest.mark.parametrize('backend', ['loky', 'dask'])
def test_workers_that_are_killed_again_and_again_end_in_a_sentence(backend: str) -> None:
  def work(number: int) -> int:
    if number == 2:
      os.kill(os.getpid(), signal.SIGKILL)
    return number

  with pytest.raises(decoder.MachineFailure, match='killed again and again'):
    list(workers.run(work, jobs(4), executor(backend)))


@pytest.mark.parametrize('backend', ['threading', 'loky', 'dask'])
def test_a_fault_of_the_machine_reaches_the_run(backend: str) -> None:
  def work(number: int) -> int:
    if number == 3:
      raise decoder.MachineFailure('the disk is full')
    return number

  with pytest.raises(decoder.MachineFailure, match=r'^the disk is full$'):
    list(workers.run(work, jobs(8), executor(backend)))


def test_a_scheduler_elsewhere_is_used_and_goes_on() -> None:
  import distributed

  def work(number: int) -> int:
    return os.getpid()

  options: dict[str, Any] = {'n_workers': 1, 'threads_per_worker': 2, 'dashboard_address': ':0'}
  with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster.scheduler_address) as client:
    results = dict(workers.run(work, jobs(3), executor('dask', address=cluster.scheduler_address)))
    assert results == dict.fromkeys(range(3), client.submit(os.getpid).result(timeout=30))


def test_where_no_scheduler_answers_a_sentence_says_so() -> None:
  import dask

  with dask.config.set({'distributed.comm.timeouts.connect': 0.5}):
    for address in ('tcp://127.0.0.1:9', 'carrier-pigeon://here'):
      with pytest.raises(decoder.MachineFailure, match=f"config.executor.address='{address}': no Dask scheduler"):
        list(workers.run(len, jobs(1), executor('dask', address=address)))


def descendants(pid: int) -> list[Any]:
  import psutil

  return psutil.Process(pid).children(recursive=True)


@pytest.mark.parametrize('backend', ['loky', 'dask'])
def test_workers_end_when_the_run_is_killed(backend: str, tmp_path: pathlib.Path) -> None:
  import psutil

  script = tmp_path / 'run.py'
  script.write_text(
    'import pathlib, time, types\n'
    'from emo_jax.frontend import workers\n'
    'def work(number):\n'
    f'  pathlib.Path({str(tmp_path)!r}, str(number)).touch()\n'
    '  time.sleep(60)\n'
    'if __name__ == "__main__":\n'
    f'  executor = types.SimpleNamespace(backend={backend!r}, workers=2, address="")\n'
    '  list(workers.run(work, {0: (0,), 1: (1,)}, executor))\n'
  )
  run = subprocess.Popen([sys.executable, str(script)], env={**os.environ, 'PYTHONPATH': str(REPO)})
  until(lambda: (tmp_path / '0').exists() and (tmp_path / '1').exists())
  left = descendants(run.pid)
  assert len(left) >= 2
  run.kill()
  run.wait()
  until(lambda: not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in left))


def until(condition: Callable[[], bool]) -> None:
  end = time.monotonic() + 30
  while not condition():
    assert time.monotonic() < end, 'in vain'
    time.sleep(0.05)

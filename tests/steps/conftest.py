"""What the tests of stages share: a team whose processes are threads of the test."""

import concurrent.futures
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from emo_jax import processes


@pytest.fixture
def as_team(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
  """Calls each call in a thread that takes itself for one of so many processes; what they return."""
  here = threading.local()

  def run(*calls: Callable[[], Any]) -> list[Any]:
    told, all_here = [''] * len(calls), threading.Barrier(len(calls), timeout=20)

    def exchange(value: Any) -> list[Any]:
      if len(here.team) == 1:
        return [value]
      told[here.number] = json.dumps(value)
      all_here.wait()
      found = [json.loads(each) for each in told]
      all_here.wait()
      return found

    @contextlib.contextmanager
    def working(members: tuple[int, ...]) -> Iterator[None]:
      before, here.team = here.team, members
      yield
      here.team = before

    def member(number: int) -> Any:
      here.number, here.team = number, tuple(range(len(calls)))
      return calls[number]()

    told_apart = {'team': lambda: here.team, 'number': lambda: here.number, 'exchange': exchange, 'working': working}
    with monkeypatch.context() as patch, concurrent.futures.ThreadPoolExecutor(len(calls)) as threads:
      for name, value in told_apart.items():
        patch.setattr(processes, name, value)
      return list(threads.map(member, range(len(calls))))

  return run

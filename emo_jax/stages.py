"""A stage is a folder named by what it depends on: done once, shared by all experiments, never stale.

The digest covers the stage's part of the config, the VERSION of its code, the clips that it reads and the digests of
the stages above it. A folder is filled under the name `<digest>.partial`, which is where an interrupted run goes on,
and renamed when it is whole.
"""

import contextlib
import fcntl
import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any


def digest(key: Any) -> str:
  """16 hex digits that name a JSON value. Equal values have equal digests, whatever the order of their keys."""
  return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


@contextlib.contextmanager
def only_writer(path: pathlib.Path) -> Iterator[None]:
  """Two experiments may share a cache: the second waits while the first fills the same folder."""
  with open(path, 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield


def folder_of(cache: pathlib.Path, name: str, key: Any) -> pathlib.Path:
  """Where the result of a stage with this key lies, once it is made."""
  return cache / name / digest(key)


def _note(cache: pathlib.Path, name: str, made: str, seconds: float) -> None:
  line = json.dumps({'stage': name, 'digest': made, 'seconds': round(seconds, 3), 'time': round(time.time(), 3)})
  with open(cache / 'executions.jsonl', 'a', encoding='utf-8') as file:
    file.write(line + '\n')


def executions(cache: pathlib.Path) -> list[dict[str, Any]]:
  """Every folder that was made in a cache, in order: 'stage', 'digest', 'seconds' (of the last attempt), 'time'."""
  path = cache / 'executions.jsonl'
  return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run(cache: pathlib.Path, name: str, key: Any, work: Callable[[pathlib.Path], None]) -> pathlib.Path:
  """The folder of a stage, made by `work(folder)` unless it is there already.

  Args:
    cache: where all stages lie.
    name: of the stage; a folder in the cache.
    key: a JSON value that holds all that the stage's result depends on; written beside the result.
    work: fills the folder that it is given; called again on the same folder after an interruption. What it keeps in
      the subfolder 'scratch', as checkpoints, is removed when the folder is whole, and not before.
  """
  folder = folder_of(cache, name, key)
  if folder.exists():
    shutil.rmtree(folder / 'scratch', ignore_errors=True)  # what a run killed just here left
    return folder
  folder.parent.mkdir(parents=True, exist_ok=True)
  partial = folder.with_suffix('.partial')
  with only_writer(folder.with_suffix('.lock')):  # beside the folder: a lock in it would be renamed with it
    if not folder.exists():
      partial.mkdir(exist_ok=True)
      started = time.monotonic()
      work(partial)
      (partial / 'key.json').write_text(json.dumps(key, sort_keys=True, indent=1) + '\n')
      partial.rename(folder)
      _note(cache, name, folder.name, time.monotonic() - started)
      shutil.rmtree(folder / 'scratch', ignore_errors=True)
  return folder

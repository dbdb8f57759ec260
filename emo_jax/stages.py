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

from emo_jax import files, processes, stopping


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
  entry = {'stage': name, 'digest': made, 'seconds': round(seconds, 3), 'time': round(time.time(), 3)}
  files.add(cache / 'executions.jsonl', entry)


def executions(cache: pathlib.Path) -> list[dict[str, Any]]:
  """Every folder that was made in a cache, in order: 'stage', 'digest', 'seconds' (of the last attempt), 'time'."""
  return files.entries(cache / 'executions.jsonl')


def run(cache: pathlib.Path, name: str, key: Any, work: Callable[[pathlib.Path], None]) -> pathlib.Path:
  """The folder of a stage, made by `work(folder)` unless it is there already.

  In several processes all of a team call it, and work on the folder together; the lead alone says whether it is there.

  Args:
    cache: where all stages lie.
    name: of the stage; a folder in the cache.
    key: a JSON value that holds all that the stage's result depends on; written beside the result.
    work: fills the folder that it is given; called again on the same folder after an interruption. What it keeps in
      the subfolder 'scratch', as checkpoints, is removed when the folder is whole, and not before. Of a team the lead
      alone may write.

  Raises:
    ValueError: the processes of a team do not mean the same folder.
  """
  stopping.heed()
  folder = folder_of(cache, name, key)
  partial = folder.with_suffix('.partial')
  if len(set(names := processes.exchange(folder.name))) > 1:
    raise ValueError(f'{name}: the processes mean different folders, {names}: do all run the same code and packages?')
  with _writing(folder) if processes.lead() else contextlib.nullcontext():
    if not processes.by_lead(folder.exists):
      started = time.monotonic()
      if processes.lead():
        partial.mkdir(exist_ok=True)
      processes.together()
      work(partial)
      processes.together()
      if processes.lead():
        (partial / 'key.json').write_text(json.dumps(key, sort_keys=True, indent=1) + '\n')
        partial.rename(folder)
        _note(cache, name, folder.name, time.monotonic() - started)
    if processes.lead():
      shutil.rmtree(folder / 'scratch', ignore_errors=True)  # or what a run killed just here left
    processes.together()
    if not processes.lead():
      list(folder.parent.iterdir())  # has NFS ask its server, and see what another host has renamed
  return folder


@contextlib.contextmanager
def _writing(folder: pathlib.Path) -> Iterator[None]:
  """Until a folder is there, one writer at a time has it."""
  if folder.exists():
    yield
    return
  folder.parent.mkdir(parents=True, exist_ok=True)
  with only_writer(folder.with_suffix('.lock')):  # beside the folder: a lock in it would be renamed with it
    yield

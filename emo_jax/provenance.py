"""Where a result comes from: a work directory's config, each run's versions and devices, the looks at the test."""

import contextlib
import datetime
import fcntl
import importlib.metadata
import json
import os
import pathlib
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from emo_jax import files, processes, stages
from emo_jax.corpora.clip import Clip

# These change neither what is computed nor for whom, so they may differ between runs in one work directory.
FREE = ('cache', 'until', 'page', 'executor', 'parallel', 'nonfinite', 'log', 'save', 'data.root', 'missing')
PACKAGES = (
  *('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'scipy', 'scikit-learn', 'statsmodels'),
  *('av', 'librosa', 'opensmile', 'opencv-python-headless', 'scikit-image'),
)


def _flat(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  flat: dict[str, Any] = {}
  for key, value in tree.items():
    flat |= _flat(value, f'{prefix}{key}.') if isinstance(value, dict) else {prefix + key: value}
  return flat


def _kept(config: dict[str, Any]) -> dict[str, Any]:
  """The fields that say what is computed, flat, as JSON gives them back (tuples become lists)."""
  flat = _flat(json.loads(json.dumps(config)))
  return {key: value for key, value in flat.items() if key not in FREE and key.split('.')[0] not in FREE}


def claim(workdir: pathlib.Path, config: dict[str, Any]) -> None:
  """Writes config.json, once: a work directory belongs to one config.

  Raises:
    ValueError: it belongs to another config; the keys that differ are named.
  """
  path = workdir / 'config.json'
  if not path.exists():
    with files.whole(path) as file:
      file.write(json.dumps(config, indent=1, sort_keys=True) + '\n')
    return
  here, there = _kept(config), _kept(json.loads(path.read_text()))
  differ = sorted(k for k in here.keys() | there.keys() if here.get(k) != there.get(k))
  if differ:
    pairs = ', '.join(f'{k} ({there.get(k)!r} there, {here.get(k)!r} now)' for k in differ[:8])
    raise ValueError(f'{workdir} belongs to another config; different: {pairs}. Use another --workdir.')


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
  """Within the context no other run has the work directory. The lock ends with the process, however that ends.

  Raises:
    ValueError: another run has it; which one, where and since when.
  """
  lock = os.open(workdir / 'lock', os.O_RDWR | os.O_CREAT)  # which no child inherits
  try:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      other = os.read(lock, 1000).decode() or 'another process'
      raise ValueError(f'{workdir} is in use by {other}: let it end, or use another --workdir') from None
    os.truncate(lock, 0)
    os.write(lock, f'process {os.getpid()} on {socket.gethostname()} since {_now()}'.encode())
    yield
  finally:
    os.close(lock)


def _now() -> str:
  return datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')


def facts() -> dict[str, Any]:
  """git commit, versions, command line and devices of this run."""
  from emo_jax.training import parallel

  def git(*arguments: str) -> str:
    here = pathlib.Path(__file__).parent
    done = subprocess.run(['git', '-C', str(here), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()

  return {
    'time': _now(),
    'git': git('rev-parse', 'HEAD') or None,
    'changed': bool(git('status', '--porcelain')),
    'argv': sys.argv,
    'python': platform.python_version(),
    'versions': {name: importlib.metadata.version(name) for name in PACKAGES if _installed(name)},
    'devices': parallel.describe(),
  }


def _installed(package: str) -> bool:
  try:
    importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return False
  return True


def note(workdir: pathlib.Path, **entry: Any) -> None:
  """Adds a line to provenance.jsonl: the start of a run, or a stage with its seconds. The lead alone does it."""
  if not processes.lead():
    return
  files.add(workdir / 'provenance.jsonl', entry)


def _look(clips: Sequence[Clip], config: dict[str, Any]) -> dict[str, str]:
  """A configuration without its seeds, and the clips that it was judged on."""
  kept = {field: value for field, value in _kept(config).items() if not field.startswith('sweep.')}
  for seed in ('seed', 'nets_seed'):
    kept.pop(seed)
  judged = sorted(f'{clip.corpus}/{clip.id}' for clip in clips if clip.role == 'evaluate')
  return {'clips': stages.digest(judged), 'judge': config['data']['judge'], 'config': stages.digest(kept)}


def note_look(cache: pathlib.Path, clips: Sequence[Clip], config: dict[str, Any]) -> None:
  """Records in the cache that this configuration has judged these clips' test or held speakers (seeds apart)."""
  look = _look(clips, config)
  if look not in looks(cache):
    files.add(cache / 'looks.jsonl', look)


def looks(cache: pathlib.Path) -> list[dict[str, str]]:
  """All looks recorded in a cache."""
  return files.entries(cache / 'looks.jsonl')


def look_count(cache: pathlib.Path, clips: Sequence[Clip], config: dict[str, Any], judge: str) -> int:
  """How many configurations have been judged on these clips' speakers as `judge` ('test' or 'held') in this cache."""
  here = _look(clips, config)['clips']
  seen = {look['config'] for look in looks(cache) if look['clips'] == here and look['judge'] == judge}
  return len(seen)  # two experiments at once may have noted the same look

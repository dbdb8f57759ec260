"""Where a result comes from: a work directory's config, each run's versions and devices, the looks at the test."""

import datetime
import importlib.metadata
import json
import pathlib
import platform
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from emo_jax import stages
from emo_jax.corpora.clip import Clip

# These change neither what is computed nor for whom, so they may differ between runs in one work directory.
FREE = ('cache', 'until', 'page', 'executor', 'parallel', 'log', 'save', 'data.root')
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
    whole = path.with_name('config.json.partial')
    whole.write_text(json.dumps(config, indent=1, sort_keys=True) + '\n')
    whole.rename(path)
    return
  here, there = _kept(config), _kept(json.loads(path.read_text()))
  differ = sorted(k for k in here.keys() | there.keys() if here.get(k) != there.get(k))
  if differ:
    pairs = ', '.join(f'{k} ({there.get(k)!r} there, {here.get(k)!r} now)' for k in differ[:8])
    raise ValueError(f'{workdir} belongs to another config; different: {pairs}. Use another --workdir.')


def facts() -> dict[str, Any]:
  """git commit, versions, command line and devices of this run."""
  from emo_jax.training import parallel

  def git(*arguments: str) -> str:
    here = pathlib.Path(__file__).parent
    done = subprocess.run(['git', '-C', str(here), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()

  return {
    'time': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
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
  """Adds a line to provenance.jsonl: the start of a run, or a stage with its seconds."""
  with open(workdir / 'provenance.jsonl', 'a', encoding='utf-8') as file:
    file.write(json.dumps(entry) + '\n')


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
    with open(cache / 'looks.jsonl', 'a', encoding='utf-8') as file:
      file.write(json.dumps(look) + '\n')


def looks(cache: pathlib.Path) -> list[dict[str, str]]:
  """All looks recorded in a cache."""
  path = cache / 'looks.jsonl'
  return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def look_count(cache: pathlib.Path, clips: Sequence[Clip], config: dict[str, Any], judge: str) -> int:
  """How many configurations have been judged on these clips' speakers as `judge` ('test' or 'held') in this cache."""
  here = _look(clips, config)['clips']
  seen = {look['config'] for look in looks(cache) if look['clips'] == here and look['judge'] == judge}
  return len(seen)  # two experiments at once may have noted the same look

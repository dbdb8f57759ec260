"""What all tests share: where the real clips lie, and real runs of launch.py in processes of their own."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

REPO = pathlib.Path(__file__).parents[1]
LONG = ('end_to_end', 'faults', 'pod', 'parity', 'training', 'models')  # folders
# Most of what tests do is to compile. With a limit to its size JAX locks the folder: nobody reads what is half written.
SHARED = {'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.1', 'JAX_COMPILATION_CACHE_MAX_SIZE': str(1 << 30)}

# Warnings are errors, but for the way in which ml_collections loads config files, and what killed runs leave in there.
MILD = [f'-Wignore:Error {doing} persistent compilation cache' for doing in ('reading', 'writing')]
CHROMIUM = ['--no-sandbox', '--headless=new', '--disable-gpu', '--disable-quic', '--no-first-run']
CHROMIUM += ['--disable-background-networking', '--disable-component-update', '--disable-sync']
STRICT = ['-Werror', '-Wignore:the load_module() method:DeprecationWarning', *MILD]


def pytest_configure(config: pytest.Config) -> None:
  """All processes of a session share what they compile: the workers of xdist, and what they start, inherit this."""
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    folder = tempfile.mkdtemp(prefix='emo_jax_compiled_')
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ |= {**SHARED, 'JAX_COMPILATION_CACHE_DIR': folder}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """What takes long comes first, so that the workers of xdist end together."""
  items.sort(key=lambda item: item.path.parent.name not in LONG)


@pytest.fixture(scope='session')
def data_root() -> pathlib.Path:
  """The folder of real clips: the environment variable EMO_JAX_DATA, else ../shared/data."""
  root = pathlib.Path(os.environ.get('EMO_JAX_DATA', REPO / '../shared/data'))
  if not root.is_dir():
    pytest.skip(f'no real clips: {root} is absent; set EMO_JAX_DATA')
  return root


@pytest.fixture(scope='session')
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[pathlib.Path], object]], pathlib.Path]:
  """(name, make) -> the folder of this name, which one worker of the session makes for all; nobody changes it."""
  from emo_jax import stages

  base = tmp_path_factory.getbasetemp()
  shared = base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base

  def folder(name: str, make: Callable[[pathlib.Path], object]) -> pathlib.Path:
    made = shared / f'{name}.made'
    with stages.only_writer(shared / f'{name}.lock'):
      if not made.exists():
        make(shared / name)
        made.touch()
    return shared / name

  return folder


@pytest.fixture(scope='session')
def clips(once) -> pathlib.Path:
  """The tiny demo corpus, made once."""
  from emo_jax.corpora import demo
  from tests.tiny import get_config

  return once('clips', lambda root: demo.read(root, **get_config().data.demo))


@pytest.fixture(scope='session')
def strict() -> list[str]:
  """Python's options of runs in processes of their own."""
  return STRICT


@pytest.fixture(scope='session')
def command() -> Callable[..., list[str]]:
  """(workdir, 'a.b=value', ...) -> the command line that runs the tiny config with these overrides."""

  def build(workdir: pathlib.Path, *overrides: str) -> list[str]:
    start = [sys.executable, *STRICT, str(REPO / 'launch.py'), f'--config={REPO}/tests/tiny.py']
    return [*start, f'--workdir={workdir}', *(f'--config.{override}' for override in overrides)]

  return build


@pytest.fixture(scope='session')
def environment() -> dict[str, str]:
  """That of runs in processes of their own."""
  return {**os.environ, 'JAX_PLATFORMS': 'cpu'}


@pytest.fixture(scope='session')
def launch(
  command: Callable[..., list[str]], environment: dict[str, str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
  """Runs launch.py to its end; the output is captured."""

  def run(workdir: pathlib.Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
      command(workdir, *overrides), capture_output=True, text=True, check=False, timeout=600, env=environment
    )

  return run


@pytest.fixture(scope='session')
def unbroken(tmp_path_factory, once, clips, launch) -> pathlib.Path:
  """The work directory of a tiny run that nothing happens to: what others must come to as well."""

  def run(workdir: pathlib.Path) -> None:
    done = launch(workdir, f'data.root={clips}')
    assert done.returncode == 0, done.stderr

  return shutil.copytree(once('unbroken', run), tmp_path_factory.mktemp('unbroken') / 'w')


@pytest.fixture(scope='session')
def model_folder(once, unbroken) -> pathlib.Path:
  """The model of fold 0 of the tiny run, whose test speaker is s01; nobody changes it."""
  from emo_jax import export

  return once('model', lambda folder: export.export(str(unbroken), str(folder), fold=0))


@pytest.fixture(scope='module')
def browser() -> Iterator[Any]:
  """A real, headless Chromium, by playwright."""
  chromium = shutil.which('chromium')
  if chromium is None:
    pytest.skip('no chromium on the path')
  playwright = pytest.importorskip('playwright.sync_api', reason='playwright is not installed (the extra test)')
  with playwright.sync_playwright() as play:
    opened = play.chromium.launch(executable_path=chromium, args=CHROMIUM)
    yield opened
    opened.close()

"""Real runs of launch.py in processes of their own."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest

REPO = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='session')
def clips(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """The tiny demo corpus, made once."""
  from emo_jax.corpora import demo
  from tests.tiny import get_config

  root = tmp_path_factory.mktemp('clips')
  demo.read(root, **get_config().data.demo)
  return root


@pytest.fixture(scope='session')
def command() -> Callable[..., list[str]]:
  """(workdir, 'a.b=value', ...) -> the command line that runs the tiny config with these overrides."""

  def build(workdir: pathlib.Path, *overrides: str) -> list[str]:
    # Warnings are errors, but for the way in which ml_collections loads config files.
    strict = ['-W', 'error', '-W', 'ignore:the load_module() method:DeprecationWarning']
    start = [sys.executable, *strict, str(REPO / 'launch.py'), f'--config={REPO}/tests/tiny.py']
    return [*start, f'--workdir={workdir}', *(f'--config.{override}' for override in overrides)]

  return build


@pytest.fixture(scope='session')
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
  """The runs of a session share what they compile."""
  compiled = str(tmp_path_factory.mktemp('compiled'))
  return {**os.environ, 'JAX_PLATFORMS': 'cpu', 'JAX_COMPILATION_CACHE_DIR': compiled}


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

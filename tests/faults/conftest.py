"""What the tests of faults share: launch.py with a fault, and a work directory where some stages are made."""

import pathlib
import shutil
import subprocess
from collections.abc import Callable

import pytest

SCRIPT = pathlib.Path(__file__).with_name('faulty_launch.py')


@pytest.fixture(scope='session')
def faulty(command, environment) -> Callable[..., subprocess.CompletedProcess[str]]:
  """(fault, workdir, 'a.b=value', ...): runs faulty_launch.py to its end; the output is captured."""

  def run(fault: str, workdir: pathlib.Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    whole = command(workdir, *overrides)
    place = next(place for place, part in enumerate(whole) if part.endswith('launch.py'))
    whole[place : place + 1] = [str(SCRIPT), fault]
    return subprocess.run(whole, capture_output=True, text=True, check=False, timeout=600, env=environment)

  return run


@pytest.fixture
def with_stages(unbroken, tmp_path) -> Callable[..., pathlib.Path]:
  """(name, stage, ...): a new work directory in which an unbroken run has made these stages."""

  def copy(name: str, *made: str) -> pathlib.Path:
    for stage in ('store', *made):
      shutil.copytree(unbroken / 'stages' / stage, tmp_path / name / 'stages' / stage)
    return tmp_path / name

  return copy

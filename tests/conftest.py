"""What all tests share: where the real clips lie."""

import os
import pathlib

import pytest


@pytest.fixture(scope='session')
def data_root() -> pathlib.Path:
  """The folder of real clips: the environment variable EMO_JAX_DATA, else ../shared/data."""
  root = pathlib.Path(os.environ.get('EMO_JAX_DATA', pathlib.Path(__file__).parents[1] / '../shared/data'))
  if not root.is_dir():
    pytest.skip(f'no real clips: {root} is absent; set EMO_JAX_DATA')
  return root

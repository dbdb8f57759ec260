"""Tests of the memory that is kept between steps."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from emo_jax.memory import keep_freed_memory
if sys.argv[1] == 'keep':
  keep_freed_memory()
def faults():
  np.ones(2**24)  # 128 MiB
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
faults()
before = faults()
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='glibc')
def test_freed_memory_is_used_again_without_faults() -> None:
  def faults(word: str) -> int:
    run = subprocess.run([sys.executable, '-c', PROGRAM, word], capture_output=True, text=True, check=True)
    return int(run.stdout)

  assert faults('keep') < faults('default') / 10

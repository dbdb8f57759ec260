"""A decoder process that does what its job's settings or the file's name tell it to; else it is the real one."""

import os
import pathlib
import re
import resource
import signal
import sys
import time
from typing import Any

from emo_jax.frontend import decoder, halves, store


def prepare(half: str, path: str, target: str, settings: dict[str, Any], beat: store.Beat) -> dict[str, Any]:
  """What settings['do'] names, or the file's name without its ending."""
  tries = pathlib.Path(f'{path}.tries')
  tries.write_text(f'{tries.read_text() if tries.exists() else ""}{os.getpid()}\n')
  match settings.get('do', pathlib.Path(path).stem):
    case 'who':
      return {'reason': str(os.getpid())}
    case 'echo':
      return {'reason': path}
    case 'crash':
      os.kill(os.getpid(), signal.SIGSEGV)
    case 'crash once':
      if tries.read_text().count('\n') == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    case 'exit':
      os._exit(3)
    case 'hang':
      time.sleep(1000)
    case 'hang for good':  # no other thread gets to run
      re.match('(a+)+$', 'a' * 60 + 'b')
    case 'slow':
      for _ in range(12):
        time.sleep(0.2)
        beat()
    case 'endless':  # nearly
      for _ in range(2000):
        time.sleep(0.01)
        beat()
    case 'talk':
      print('from Python', flush=True)
      os.write(1, b'{"reason": "from C"}\n')
      sys.stdout.write('unfinished')
    case 'hang in writing':
      return halves.prepare_half(half, path, target, settings, lambda: time.sleep(1000))
    case 'fill':
      resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
      return halves.prepare_half(half, path, target, settings['real'], beat)
    case 'raise':
      kind, *arguments = settings['error']
      raise {'OSError': OSError, 'ImportError': ImportError, 'MemoryError': MemoryError}[kind](*arguments)
    case _:
      return halves.prepare_half(half, path, target, settings, beat)
  return {'reason': ''}


decoder.IDLE_S = float(os.environ.get('BAD_DECODER_IDLE_S', '60'))
decoder.serve(prepare)

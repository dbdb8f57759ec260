"""How the processor's memory is handed out, for every step that trains or predicts on a CPU."""

import ctypes
import sys

# Names and numbers of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> None:
  """Has the C library keep the memory of freed arrays for the next ones; where it is not glibc, nothing changes.

  XLA allocates what a step computes in between as one block, a gigabyte for C3D, and frees it after the step. By
  default that memory goes back to the system, which clears it page by page when the next step first touches it: half of
  a convolution's time. To be called before the first large array.
  """
  if sys.platform == 'linux' and hasattr(libc := ctypes.CDLL(None), 'mallopt'):
    for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_ARENA_MAX, 1), (M_TOP_PAD, 256 * 2**20)):
      libc.mallopt(option, value)

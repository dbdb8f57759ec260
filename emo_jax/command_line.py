"""Flags of the programs: what is wrong with them is said in a sentence."""

import sys
from collections.abc import Callable

from absl import flags


def parser(program: str, *, status: int) -> Callable[[list[str]], list[str]]:
  """For absl's app.run: reads the flags, or ends with `status` and a sentence for a config that cannot be had so."""

  def parse(argv: list[str]) -> list[str]:
    try:
      return flags.FLAGS(argv)
    except Exception as error:  # a config file is code and may raise anything
      print(f'{program}: a flag cannot be used: {error}', file=sys.stderr)
      raise SystemExit(status) from error

  return parse

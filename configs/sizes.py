"""The two sizes in which every corpus's config comes: `configs/rml.py` and `configs/rml.py:slim`."""

import ml_collections

from configs import default, java_sed


def get_config(size: str) -> ml_collections.ConfigDict:
  """`full`: the paper's networks (configs/default.py), for a GPU. `slim`: those of configs/java_sed.py, for two cores.

  Both with nobody held: the paper's protocol, in which every value is fixed beforehand.

  Raises:
    ValueError: another size.
  """
  if size not in ('full', 'slim'):
    raise ValueError(f'{size!r} is no size of networks: use full or slim (configs/rml.py:slim)')
  config = default.get_config() if size == 'full' else java_sed.get_config()
  config.data.held = 0
  return config

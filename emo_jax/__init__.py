"""emo_jax: a hybrid deep model that recognises emotion from sound and face, after Zhang et al. (TCSVT 2018)."""

import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from emo_jax.inference import Model


def load(folder: str | pathlib.Path) -> 'Model':
  """A model that `python -m emo_jax.export` has written: `emo_jax.load(folder).predict(path)`.

  Raises:
    emo_jax.model.Unfit: it is no model folder, damaged, or of another version.
  """
  from emo_jax import inference  # not before it is asked for: several processes must meet before JAX is imported

  return inference.load(folder)

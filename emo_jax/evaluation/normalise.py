"""Pooled features by a speaker's own measure, and what that makes of the protocol (pipeline step: decide).

Standardising by speaker looks at all clips of a speaker together, at those to be judged too: no label is read, but a
clip's verdict then depends on the clips beside it. Such results are transductive, and never ranked with others.
"""

import numpy as np

PROTOCOLS = {'none': 'inductive', 'speaker': 'transductive'}  # of each word for config.normalise


def by_speaker(features: np.ndarray, speaker: np.ndarray) -> np.ndarray:
  """Standardises the clips of each speaker to mean 0 and (population) deviation 1, feature by feature.

  Args:
    features: [clips, F].
    speaker: [clips], whose clip each is: a name, or any other label of a group.

  Returns:
    float32 [clips, F]. A feature that does not vary for a speaker is 0; so is all of a speaker's only clip, about
    which an SVM then knows nothing.
  """
  result = np.zeros(features.shape, np.float32)
  for name in np.unique(speaker):
    own = speaker == name
    values = features[own].astype(np.float64)
    varies = np.ptp(values, axis=0) > 0
    deviation = np.where(varies, values.std(0), 1)
    result[own] = np.where(varies, (values - values.mean(0)) / deviation, 0)
  return result

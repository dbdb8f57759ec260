"""Pictures of a result: confusion matrices, and aligned faces to look the front end over (pipeline step: report)."""

import pathlib
from collections.abc import Sequence

import numpy as np

from emo_jax.corpora.clip import Clip
from emo_jax.frontend.segments import Segments
from emo_jax.frontend.store import Store


def confusion(path: pathlib.Path, table: np.ndarray, classes: Sequence[str], *, title: str) -> None:
  """A confusion matrix as PNG: counts int [C, C], rows the truth, shaded by the row's share."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(1.6 + 0.75 * len(classes), 1.4 + 0.6 * len(classes)), layout='constrained')
  axes = figure.add_subplot()
  share = table / np.maximum(table.sum(1, keepdims=True), 1)
  axes.imshow(share, cmap='Blues', vmin=0, vmax=1)
  for (row, column), count in np.ndenumerate(table):
    axes.text(column, row, str(count), ha='center', va='center', color='white' if share[row, column] > 0.5 else 'black')
  axes.set_xticks(range(len(classes)), classes, rotation=45, ha='right')
  axes.set_yticks(range(len(classes)), classes)
  axes.set_xlabel('verdict')
  axes.set_ylabel('truth')
  accuracy = np.trace(table) / max(table.sum(), 1)
  axes.set_title(f'{title}\n{accuracy:.3f} of {table.sum()} clips')
  figure.savefig(path, dpi=120, metadata={'Software': None})


def faces(path: pathlib.Path, store: Store, table: Segments, clips: Sequence[Clip], *, columns: int = 12) -> None:
  """A contact sheet of aligned faces as PNG, a row for each speaker (at most 24), the middle frame of some segments."""
  import imageio.v3 as iio

  speakers = np.array([clip.speaker for clip in clips])[table.clip]
  rows = []
  for speaker in sorted(set(speakers[table.has_face]))[:24]:
    own = np.flatnonzero(table.has_face & (speakers == speaker))
    chosen = own[np.linspace(0, len(own) - 1, columns).astype(int)]
    rows.append(np.concatenate(list(store.faces(table.take(chosen))[:, 8]), axis=1))
  if rows:
    iio.imwrite(path, np.concatenate(rows, axis=0))

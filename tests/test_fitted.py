"""What a finished experiment has fitted: whose clips a network's key names (the rest is tested with the audit)."""

import json
import pathlib
import types
from typing import Any

import numpy as np
import pytest

from emo_jax import fitted
from emo_jax.evaluation import svm

METHODS = ('audio', 'visual', 'concat', 'hybrid')


def finished(folder: pathlib.Path, key: dict[str, Any]) -> Any:
  """Two folds of four clips, the first's network with this key, the second's trained as it should be."""
  clips = [types.SimpleNamespace(id=name) for name in 'abcd']
  sides = {0: np.array(['train', 'held', 'test', '']), 1: np.array(['held', 'test', 'train', 'train'])}
  for number, saved in enumerate((key, {'clips': [['c', 'joy', 'x'], ['d', 'joy', 'x']]})):
    (folder / str(number)).mkdir()
    (folder / str(number) / 'key.json').write_text(json.dumps(saved))
  made = {'audio_net': [folder / '0', folder / '1']}
  return types.SimpleNamespace(clips=clips, folds=[0, 1], sides=sides.__getitem__, made=made)


@pytest.mark.parametrize(
  ('key', 'examples'),
  [
    ({'clips': ['a']}, ()),
    ({'clips': ['a'], 'held': ['b']}, ()),
    ({'clips': ['a', 'b']}, ('b (held) as train, fold 0',)),
    ({'clips': ['a', 'c']}, ('c (test) as train, fold 0',)),
    ({'clips': ['a', 'd']}, ('d (no side) as train, fold 0',)),
    ({'clips': ['a', 'z']}, ('z (no side) as train, fold 0',)),
    ({'clips': ['a'], 'held': ['a', 'b', 'c']}, ('a (train) as held, fold 0', 'c (test) as held, fold 0')),
  ],
)
def test_a_network_is_trained_on_training_clips_and_chosen_on_held_ones(
  tmp_path: pathlib.Path, key: dict[str, list[str]], examples: tuple[str, ...]
) -> None:
  x = finished(tmp_path, {side: [[name, 'joy', 'x'] for name in names] for side, names in key.items()})
  found = fitted.trained_on(x, 'audio')
  assert (found.verdict, found.examples) == ('LEAK' if examples else 'OK', examples)
  assert ('held clips alone' in found.said) == ('held' in key and not examples)


@pytest.mark.parametrize(
  ('rows', 'c', 'candidates', 'leaks'),
  [
    (40, 1.0, (), False),
    (41, 1.0, (), True),  # a single test clip beside them
    (40, 0.1, (), True),  # a penalty that nobody asked for
    (40, 0.1, (0.1, 1.0), False),
    (41, 0.1, (0.1, 1.0), True),
  ],
)
def test_an_svm_fitted_to_test_clips_is_found(
  tmp_path: pathlib.Path,
  monkeypatch: pytest.MonkeyPatch,
  rows: int,
  c: float,
  candidates: tuple[float, ...],
  leaks: bool,
) -> None:
  rng = np.random.default_rng(0)
  features, labels = rng.normal(size=(60, 6)).astype(np.float32), rng.integers(0, 3, 60)
  saved: Any = svm.fit(features[:rows], labels[:rows], c=c, classes=3)
  scaler: Any = svm.fit_scaler(features[:40])
  for method in METHODS:
    np.savez(tmp_path / f'{method}_svm.npz', **{**saved, **scaler})
  settings = types.SimpleNamespace(svm=types.SimpleNamespace(c=1.0, candidates=candidates))
  settings.methods, settings.fusion = METHODS, types.SimpleNamespace(kind='dbn')
  sides = np.array(['train'] * 40 + ['test'] * 20)
  clips = [types.SimpleNamespace(emotion='abc'[label]) for label in labels]
  made = {f'decide/{method}': [tmp_path] for method in METHODS}
  x: Any = types.SimpleNamespace(config=settings, clips=clips, classes=[*'abc'], folds=[0], made=made)
  x.sides = lambda fold: sides
  monkeypatch.setattr(fitted.decide, 'method_features', lambda *of: (features, np.arange(60)))
  found = {finding.check: finding.verdict for finding in fitted.findings(x)}
  verdict = 'LEAK' if leaks else 'OK'
  assert found == {f'{method} {what}': of for method in METHODS for what, of in (('scaler', 'OK'), ('svm', verdict))}

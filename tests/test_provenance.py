"""Provenance: one config a work directory, looks at the test counted, what a run writes about itself."""

import json
import pathlib
from typing import Any

import pytest

from emo_jax import provenance
from emo_jax.corpora.clip import Clip

CONFIG: dict[str, Any] = {
  'seed': 0,
  'nets_seed': None,
  'cache': None,
  'until': 'report',
  'data': {'corpus': 'demo', 'root': 'here', 'java_sed': {}, 'rule': 'loso', 'judge': 'test'},
  'fusion': {'units': (256, 128), 'rbm': {'lr': 0.1}},
  'executor': {'backend': 'loky', 'workers': -1},
  'parallel': {'folds': 1},
  'log': {'every': 10},
  'save': {'every': 200},
}


def changed(**values: Any) -> dict[str, Any]:
  """CONFIG with other values; 'fusion__rbm__lr' means fusion.rbm.lr."""
  config = json.loads(json.dumps(CONFIG))
  for name, value in values.items():
    *path, last = name.split('__')
    part = config
    for key in path:
      part = part[key]
    part[last] = value
  return config


def clips(*names: str, role: str = 'evaluate') -> list[Clip]:
  path = pathlib.Path('a.mp4')
  return [Clip(n, picture=path, sound=path, speaker=n, emotion='joy', corpus='made', role=role) for n in names]


def test_a_work_directory_is_claimed_once_and_reopened_by_the_same_config(tmp_path: pathlib.Path) -> None:
  provenance.claim(tmp_path, CONFIG)
  written = (tmp_path / 'config.json').read_text()
  assert json.loads(written)['fusion']['units'] == [256, 128]
  provenance.claim(tmp_path, CONFIG)  # tuples came back as lists
  assert (tmp_path / 'config.json').read_text() == written


@pytest.mark.parametrize(
  ('values', 'named'),
  [
    ({'seed': 1}, ['seed (0 there, 1 now)']),
    ({'nets_seed': 3}, ['nets_seed (None there, 3 now)']),
    ({'fusion__units': [256]}, ['fusion.units ([256, 128] there, [256] now)']),
    ({'fusion__rbm__lr': 0.2, 'data__rule': 'groups:4'}, ['data.rule', 'fusion.rbm.lr (0.1 there, 0.2 now)']),
    ({'data__java_sed': {'takes': True}}, ['data.java_sed.takes (None there, True now)']),
    ({'data__new': 5}, ['data.new']),
  ],
)
def test_another_config_is_refused_and_the_differing_keys_are_named(
  tmp_path: pathlib.Path, values: dict[str, Any], named: list[str]
) -> None:
  provenance.claim(tmp_path, CONFIG)
  written = (tmp_path / 'config.json').read_text()
  with pytest.raises(ValueError, match='belongs to another config') as caught:
    provenance.claim(tmp_path, changed(**values))
  assert all(name in str(caught.value) for name in named)
  assert str(caught.value).count(' now)') == len(named)
  assert (tmp_path / 'config.json').read_text() == written


def test_what_changes_no_result_may_differ(tmp_path: pathlib.Path) -> None:
  provenance.claim(tmp_path, CONFIG)
  free = {'cache': 'elsewhere', 'data__root': 'moved', 'until': 'fusion', 'executor__workers': 1, 'parallel__folds': 2}
  provenance.claim(tmp_path, changed(**free, log__every=1, save__every=1))


def test_a_look_is_counted_once_for_each_config_and_not_for_each_seed(tmp_path: pathlib.Path) -> None:
  judged = clips('a', 'b')
  count = lambda config=CONFIG, of=judged: provenance.look_count(tmp_path, of, config, 'test')
  assert count() == 0
  for config in (
    CONFIG,
    CONFIG,
    changed(seed=1),
    changed(nets_seed=7),
    changed(data__root='there'),
    changed(cache='c'),
  ):
    provenance.note_look(tmp_path, judged, config)
    assert count() == 1
  provenance.note_look(tmp_path, judged, changed(fusion__rbm__lr=0.2))
  provenance.note_look(tmp_path, judged, changed(fusion__units=[64]))
  assert count() == 3 and count(changed(fusion__rbm__lr=0.2)) == 3
  assert len(provenance.looks(tmp_path)) == 3
  provenance.note_look(tmp_path, judged, changed(data__judge='held'))
  assert count() == 3 and provenance.look_count(tmp_path, judged, CONFIG, 'held') == 1


def test_looks_at_other_clips_are_counted_apart(tmp_path: pathlib.Path) -> None:
  provenance.note_look(tmp_path, clips('a', 'b'), CONFIG)
  provenance.note_look(tmp_path, clips('a', 'c'), CONFIG)
  assert provenance.look_count(tmp_path, clips('a', 'b'), CONFIG, 'test') == 1
  assert provenance.look_count(tmp_path, clips('b', 'a'), CONFIG, 'test') == 1  # the order does not matter
  more = [*clips('a', 'b'), *clips('x', role='train_only')]  # nor do clips that are never judged
  assert provenance.look_count(tmp_path, more, CONFIG, 'test') == 1
  assert provenance.look_count(tmp_path, clips('d'), CONFIG, 'test') == 0


def test_notes_are_lines_of_json(tmp_path: pathlib.Path) -> None:
  provenance.note(tmp_path, event='start', seed=1)
  provenance.note(tmp_path, event='stage', stage='prepare', seconds=0.5)
  lines = [json.loads(line) for line in (tmp_path / 'provenance.jsonl').read_text().splitlines()]
  assert lines == [{'event': 'start', 'seed': 1}, {'event': 'stage', 'stage': 'prepare', 'seconds': 0.5}]


def test_facts_say_with_what_a_run_was_made() -> None:
  import jax
  import numpy as np

  facts = provenance.facts()
  assert json.loads(json.dumps(facts)) == facts
  assert facts['versions']['numpy'] == np.__version__ and facts['versions']['jax'] == jax.__version__
  assert facts['git'] is None or len(facts['git']) == 40
  assert facts['time'].endswith('+00:00')

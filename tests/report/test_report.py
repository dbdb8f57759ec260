"""Reports: the tables say what the figures are, and warn where they must."""

import csv
import pathlib
import types
from typing import Any

import numpy as np
import pytest

from emo_jax.corpora.clip import Clip
from emo_jax.report import report


def result(**changes: Any) -> dict[str, Any]:
  """A report of two speakers; every figure is another number."""
  methods = {}
  for number, name in enumerate(('audio', 'visual', 'concat', 'hybrid')):
    methods[name] = {
      'clips': 10 + number,
      'accuracy': 0.501 + number / 10,
      'uar': 0.402 + number / 10,
      'accuracy_common': 0.303 + number / 10,
      'per_fold': [{'test_speakers': ['s1', 's3'], 'c': 0.1 + number}, {'test_speakers': ['s2'], 'c': 10}],
      'per_speaker': {'s2': {'accuracy': 0.3 + number / 100}, 's1': {'accuracy': 0.2 + number / 100}},
    }
  base = {
    'corpus': 'made',
    'protocol': 'inductive',
    'leaks_allowed': False,
    'judged': 'test',
    'classes': ['anger', 'fear', 'joy', 'surprise'],
    'clips': 13,
    'speakers': 2,
    'rejected': 0,
    'half_clips': {},
    'seed': 5,
    'nets_seed': 6,
    'svm_candidates': [],
    'configurations_judged_on_test': 9,
    'configurations_judged_on_held': 8,
    'methods': methods,
  }
  return base | changes


def cells(text: str) -> list[list[str]]:
  """The rows of all markdown tables, rulers left out."""
  rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines() if line.startswith('|')]
  return [row for row in rows if set(row) != {'---'}]


def test_the_console_table_has_a_line_for_each_method() -> None:
  head, names, *lines = report.console_table(result()).splitlines()
  assert '13 clips of 2 unseen speakers, 4 emotions, chance 0.250, inductive' in head
  assert names.split() == ['method', 'accuracy', 'uar']
  assert [line.split()[:3] for line in lines] == [
    ['audio', '0.501', '0.402'],
    ['visual', '0.601', '0.502'],
    ['concat', '0.701', '0.602'],
    ['hybrid', '0.801', '0.702'],
  ]


def test_held_speakers_are_not_called_unseen() -> None:
  text = report.console_table(result(judged='held'))
  assert '2 held speakers' in text and 'unseen' not in text


def test_leaks_are_shouted() -> None:
  for text in (report.console_table(result()), report.markdown(result(), {})):
    assert 'NOT speaker-independent' not in text
  leaky = result(leaks_allowed=True)
  assert 'NOT speaker-independent' in report.console_table(leaky)
  text = report.markdown(leaky, {})
  assert 'NOT speaker-independent' in text and 'never overlap' not in text


def test_markdown_holds_every_figure_in_its_cell() -> None:
  rows = cells(report.markdown(result(), {'prepare': 1.25, 'audio_net': 100.0}))
  table = {row[0]: row for row in rows}
  for number, name in enumerate(('audio', 'visual', 'concat', 'hybrid')):
    want = [str(10 + number), f'0.{5 + number}01', f'0.{4 + number}02', f'0.{3 + number}03']
    assert table[name][2:] == ['inductive', *want]
  assert table['speaker'][1:] == ['protocol', 'audio', 'visual', 'concat', 'hybrid']
  assert table['s1'][1:] == ['inductive', '0.200', '0.210', '0.220', '0.230']
  assert table['s2'][1:] == ['inductive', '0.300', '0.310', '0.320', '0.330']
  assert table['prepare'] == ['prepare', '1.2'] and table['audio_net'] == ['audio_net', '100.0']
  assert rows.index(table['s1']) < rows.index(table['s2'])


def test_markdown_says_how_it_came_about() -> None:
  text = report.markdown(result(), {})
  assert text.startswith('# made: 13 clips, 2 speakers, inductive\n')
  for words in (
    'inductive',
    'Judged: test speakers',
    'Seed 5',
    'seed 6',
    '9 on test speakers, 8 on held',
    'never overlap',
  ):
    assert words in text
  for name in ('audio', 'visual', 'concat', 'hybrid'):
    assert f'(confusion_{name}.png)' in text


def test_transductive_results_say_so_in_every_table_and_may_not_be_ranked() -> None:
  transductive = result(protocol='transductive', svm_candidates=[0.1, 10])
  head, *_, last = report.console_table(transductive).splitlines()
  assert head.endswith(', transductive')
  assert "each speaker's clips" in last and 'must not be ranked together' in last
  text = report.markdown(transductive, {})
  assert text.splitlines()[0].endswith(', transductive')
  assert 'Protocol: transductive (each speaker' in text and 'must not be ranked together' in text
  rows = {row[0]: row for row in cells(text)}
  for name in ('audio', 'visual', 'concat', 'hybrid', 's1', 's2', 's1, s3'):
    assert 'transductive' in rows[name] and 'inductive' not in rows[name], name
  assert 'must not be ranked together' in report.markdown(result(), {})


def test_markdown_lists_the_penalties_of_each_fold_where_they_were_chosen() -> None:
  assert "each fold's SVMs" not in report.markdown(result(), {})
  text = report.markdown(result(svm_candidates=[0.1, 10]), {})
  assert "C of each fold's SVMs, chosen on its held clips from [0.1, 10]:" in text
  rows = cells(text)
  at = rows.index(['test speakers', 'protocol', 'audio', 'visual', 'concat', 'hybrid'])
  assert rows[at + 1 : at + 3] == [
    ['s1, s3', 'inductive', '0.1', '1.1', '2.1', '3.1'],
    ['s2', 'inductive', '10', '10', '10', '10'],
  ]


def test_markdown_lists_what_could_not_be_used_and_only_then() -> None:
  plain = report.markdown(result(), {})
  assert 'rejected.csv' not in plain and 'Half clips' not in plain
  text = report.markdown(result(rejected=3, half_clips={'a.mp4': 'a.mp4 has no sound'}), {})
  assert '3 clips could not be used at all: rejected.csv' in text
  assert '- a.mp4: a.mp4 has no sound' in text


def test_a_clip_without_any_half_is_rejected_and_half_a_clip_is_not(tmp_path: pathlib.Path) -> None:
  film, voice = pathlib.Path('f.mp4'), pathlib.Path('v.wav')
  clips = [Clip(n, picture=film, sound=voice, speaker='s', emotion='joy', corpus='made') for n in ('a', 'b', 'c, d')]
  records = [
    {'audio': 'x', 'faces': None, 'reason': 'no face'},
    {'audio': 'x', 'faces': 'y', 'reason': ''},
    {'audio': None, 'faces': None, 'reason': 'f.mp4: "broken", all of it'},
  ]
  has = {'clip': np.array([0, 1]), 'has_audio': np.array([True, True]), 'has_face': np.array([False, True])}
  x: Any = types.SimpleNamespace(workdir=tmp_path, clips=clips, records=records, segments=types.SimpleNamespace(**has))
  assert report.missing(x)[1] == {0: 'no face'}
  report.write_rejected(x)
  with open(tmp_path / 'rejected.csv', newline='', encoding='utf-8') as file:
    rows = list(csv.reader(file))
  assert rows == [['id', 'file', 'reason'], ['c, d', 'f.mp4 v.wav', 'f.mp4: "broken", all of it']]


@pytest.mark.parametrize('half', [True, False])
def test_the_split_is_recorded_with_a_digest_of_its_own(half: bool) -> None:
  from emo_jax.evaluation.folds import Fold

  folds = [Fold(train=('c',), held=('b',), test=('a',)), Fold(train=('a',), held=('c',), test=('b',))]
  x: Any = types.SimpleNamespace(
    config=types.SimpleNamespace(data=types.SimpleNamespace(rule='loso')), folds=folds[: 1 if half else 2]
  )
  record = report.split_record(x)
  assert record['rule'] == 'loso' and len(record['folds']) == (1 if half else 2)
  assert {side: list(names) for side, names in record['folds'][0].items()} == {
    'train': ['c'],
    'held': ['b'],
    'test': ['a'],
  }
  x.folds = [Fold(train=('c',), held=(), test=('a',))]
  assert report.split_record(x)['digest'] != record['digest'] and len(record['digest']) == 16

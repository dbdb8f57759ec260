"""Reports: the tables say what the figures are, and warn where they must."""

import csv
import pathlib
import types
from typing import Any

import numpy as np

from emo_jax.corpora.clip import Clip
from emo_jax.report import report


def result(**changes: Any) -> dict[str, Any]:
  """A report of two speakers; every figure is another number."""
  methods = {}
  for number, name in enumerate(('audio', 'visual', 'concat', 'hybrid')):
    methods[name] = {
      'meaning': f'what {name} is',
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
  head = report.console_table(leaky).splitlines()[0]
  assert 'NOT speaker-independent' in head and 'unseen' not in head
  text = report.markdown(leaky, {})
  rows = {row[0]: row for row in cells(text)}
  assert all('inductive, NOT speaker-independent' in rows[name] for name in ('audio', 'hybrid', 's1'))
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


def experiment(workdir: pathlib.Path, records: list[dict[str, Any]], windows: list[tuple[int, bool, bool]]) -> Any:
  """A prepared experiment: of each window its clip, and whether it has sound and face. Sounds have 100 columns."""
  film, voice = pathlib.Path('f "1".mp4'), pathlib.Path('v.wav')
  clips = [
    Clip(f'c, {n}', picture=film, sound=voice, speaker='s', emotion='joy', corpus='made') for n in range(len(records))
  ]
  clip, has_audio, has_face = (np.array(column) for column in zip(*windows, strict=True))
  config: Any = types.SimpleNamespace(
    data=types.SimpleNamespace(root='/archive'),
    frontend=types.SimpleNamespace(segments=types.SimpleNamespace(length=64)),
  )
  columns = lambda number, half: {'columns': np.asarray(int(records[number][half]))}
  return types.SimpleNamespace(
    workdir=workdir,
    config=config,
    clips=clips,
    left_out=[],
    warnings=[],
    records=[{'reason': '', 'warnings': [], **record} for record in records],
    segments=types.SimpleNamespace(clip=clip, has_audio=has_audio, has_face=has_face),
    store=types.SimpleNamespace(facts=columns),
  )


def listed(path: pathlib.Path) -> list[list[str]]:
  with open(path, newline='', encoding='utf-8') as file:
    return list(csv.reader(file))


FILES = 'f "1".mp4 | v.wav'
SHORT = 'the sound is shorter than a window (config.frontend.short)'
FEW = 'no window has enough frames with a face'


def test_a_clip_without_any_half_is_rejected_and_half_a_clip_is_not(tmp_path: pathlib.Path) -> None:
  records: list[dict[str, Any]] = [
    {'audio': '100', 'faces': None, 'reason': 'no face'},
    {'audio': '100', 'faces': 'y'},
    {'audio': None, 'faces': None, 'reason': 'f.mp4: "broken",\nall of it'},
    {'audio': '100', 'faces': 'y'},
    {'audio': None, 'faces': 'y', 'reason': 'no sound'},
    {'audio': '30', 'faces': 'y'},
  ]
  x = experiment(tmp_path, records, [(0, True, False), (1, True, True), (3, True, False), (4, False, False)])
  x.left_out = [('demo/odd.avi', 'a demo, no clip')]
  assert report.missing(x)[1] == {0: 'no face', 3: FEW}
  report.write_rejected(x)
  assert listed(tmp_path / 'rejected.csv') == [
    ['id', 'file', 'reason'],
    ['c, 2', FILES, 'f.mp4: "broken",\nall of it'],
    ['c, 4', FILES, f'no sound; {FEW}'],
    ['c, 5', FILES, SHORT],
    ['', 'demo/odd.avi', 'a demo, no clip'],
  ]


def test_warnings_are_of_used_clips_and_of_the_archive(tmp_path: pathlib.Path) -> None:
  records: list[dict[str, Any]] = [
    {'audio': '100', 'faces': 'y', 'warnings': ['it, breaks off', 'it is silent']},
    {'audio': None, 'faces': 'y', 'reason': 'no sound', 'warnings': ['seen at times']},
    {'audio': None, 'faces': None, 'reason': 'broken', 'warnings': ['of no use']},
    {'audio': '64', 'faces': 'y'},
    {'audio': '63', 'faces': 'y'},
  ]
  x = experiment(tmp_path, records, [(0, True, True), (1, False, True), (3, True, True), (4, True, True)])
  x.warnings = ['699 clips, where the corpus says 720']
  report.write_warnings(x)
  assert listed(tmp_path / 'warnings.csv') == [
    ['id', 'file', 'warning'],
    ['', '/archive', '699 clips, where the corpus says 720'],
    ['c, 0', FILES, 'it, breaks off'],
    ['c, 0', FILES, 'it is silent'],
    ['c, 1', FILES, 'no sound'],
    ['c, 1', FILES, 'seen at times'],
    ['c, 4', FILES, 'the sound is shorter than a window: its end is repeated'],
  ]


def test_names_that_are_no_text_are_written_as_escapes(tmp_path: pathlib.Path) -> None:
  x = experiment(tmp_path, [{'audio': None, 'faces': None, 'reason': '\udcff\nü: broken'}], [(9, True, True)])
  x.left_out = [('\udcfe', 'odd')]
  report.write_rejected(x)
  assert listed(tmp_path / 'rejected.csv')[1:] == [
    ['c, 0', FILES, '\\udcff\nü: broken'],
    ['', '\\udcfe', 'odd'],
  ]
  x.warnings = ['\udcfd']
  report.write_warnings(x)
  assert listed(tmp_path / 'warnings.csv')[1:] == [['', '/archive', '\\udcfd']]

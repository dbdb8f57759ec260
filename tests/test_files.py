"""Files that a killed run leaves: whole or not there, and lists whose last line may be cut off."""

import json
import pathlib

import pytest

from emo_jax import files


def test_a_text_is_there_whole_or_as_it_was(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'text'
  with files.whole(path) as file:
    file.write('first')
    assert not path.exists()
  with pytest.raises(RuntimeError), files.whole(path) as file:
    file.write('half')
    raise RuntimeError
  assert path.read_text() == 'first'
  with files.whole(path) as file:
    file.write('second \udcff\r\n')
  assert path.read_bytes() == b'second \\udcff\r\n'
  assert [each.name for each in tmp_path.iterdir()] == ['text']


@pytest.mark.parametrize('cut', ['{"a": 3, "b"', '{"a": "\xe9"}'.encode()[:8], b'\0\0\0', '{'])
def test_a_line_that_was_cut_off_costs_no_other_line(tmp_path: pathlib.Path, cut: str | bytes) -> None:
  path, entries = tmp_path / 'lines.jsonl', [{'a': 1}, {'a': 2, 'b': 'two\u2028lines'}]
  assert files.entries(path) == []
  for entry in entries:
    files.add(path, entry)
  with open(path, 'ab') as file:
    file.write(cut if isinstance(cut, bytes) else cut.encode())
  assert files.entries(path) == entries
  files.add(path, {'a': 4})
  with files.add_to(path) as file:
    file.write(json.dumps({'a': 5}) + '\n')
  assert files.entries(path) == [*entries, {'a': 4}, {'a': 5}]

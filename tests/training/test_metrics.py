"""Tests of what is written down while training."""

import json
import pathlib

from emo_jax.training.metrics import Metrics, progress


def test_each_step_is_a_json_line_and_a_later_run_appends(tmp_path: pathlib.Path) -> None:
  for step in (0, 1):
    metrics = Metrics(tmp_path)
    metrics.write('audio_net/fold_0', step, {'loss': 1.5 - step, 'accuracy': 0.25})
    metrics.flush()
    assert len((tmp_path / 'metrics.jsonl').read_text().splitlines()) == step + 1  # there before it is closed
    metrics.close()
  assert [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()] == [
    {'train': 'audio_net/fold_0', 'step': 0, 'loss': 1.5, 'accuracy': 0.25},
    {'train': 'audio_net/fold_0', 'step': 1, 'loss': 0.5, 'accuracy': 0.25},
  ]


def test_tensorboard_events_hold_the_names(tmp_path: pathlib.Path) -> None:
  metrics = Metrics(tmp_path)
  metrics.write('fusion/fold_3/rbm0', 0, {'reconstruction_error': 0.5})
  metrics.close()
  written = b''.join(path.read_bytes() for path in (tmp_path / 'events').iterdir())
  assert b'fusion/fold_3/rbm0/reconstruction_error' in written


def test_a_stage_keeps_its_own_lines_once_they_are_flushed(tmp_path: pathlib.Path) -> None:
  metrics = Metrics(tmp_path)
  for name in ('first', 'second'):
    folder = tmp_path / name
    folder.mkdir()
    own = metrics.beside(folder)
    for step in range(2):
      own.write(f'audio_net/{name}', step, {'loss': 0.5})
      assert len((folder / 'metrics.jsonl').read_text().splitlines() if step else []) == step
      own.flush()
  metrics.close()
  whole = (tmp_path / 'metrics.jsonl').read_text()
  assert len(whole.splitlines()) == 4
  assert whole == ''.join((tmp_path / name / 'metrics.jsonl').read_text() for name in ('first', 'second'))


def test_progress_counts_to_its_total() -> None:
  with progress('audio_net', 7, 'step') as bar:
    bar.update(3)
    bar.update(4)
    assert (bar.n, bar.total, bar.unit) == (7, 7, 'step')

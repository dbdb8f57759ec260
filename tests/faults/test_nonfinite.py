"""Numbers that are not finite, in real runs: the run stops where they came, or leaves the update out; nothing else is
the worse for it.
"""

import json
import pathlib
import zlib
from collections.abc import Callable

import numpy as np

from emo_jax import sweep
from tests import tiny


def lines(path: pathlib.Path) -> list[dict]:
  """What a list of JSON lines holds; NaN and Infinity, which Python would read, are no JSON."""
  return [json.loads(line, parse_constant=int) for line in path.read_text().splitlines()]


def with_nan(stages: pathlib.Path, stem: str) -> Callable[[], None]:
  """Puts NaN into a prepared sound, with the checksum of what it is then; returns what puts it back."""
  paths = [stages / 'store' / f'{stem}{suffix}' for suffix in ('.npy', '.npz')]
  before = [path.read_bytes() for path in paths]
  sound = np.load(paths[0])
  sound[10, 20] = np.nan
  np.save(paths[0], sound)
  with np.load(paths[1]) as file:
    facts = dict(file)
  content = paths[0].read_bytes()
  np.savez(paths[1], **{**facts, 'bytes': len(content), 'crc32': zlib.crc32(content)})

  def put_back() -> None:
    for path, content in zip(paths, before, strict=True):
      path.write_bytes(content)

  return put_back


def test_a_run_that_met_nan_ends_as_if_it_had_not(unbroken, clips, launch, faulty, with_stages) -> None:
  workdir = with_stages('stopped', 'prepare')
  stages, until = workdir / 'stages', (f'data.root={clips}', 'until=audio_net', 'log.every=4')

  (index,) = (stages / 'prepare').glob('*/index.json')
  mend = with_nan(stages, json.loads(index.read_text())[1]['audio'])
  # Leaks are allowed, for they are looked for by the sounds themselves, which this one has none of.
  stopped = launch(other := workdir.with_name('other'), *until, f'cache={stages}', 'data.allow_leaks=True')
  assert stopped.returncode == 1 and 'Traceback' not in stopped.stderr, stopped.stderr
  (clip,) = {row['clip'] for row in json.loads((other / 'bad_batch.json').read_text())['rows']}
  said = stopped.stderr.splitlines()[-1]
  assert 'mean or deviation of its input became nan' in said
  assert f'Not finite is the very input of {clip}: mend' in said
  mend()

  stopped = faulty('nan', workdir, *until)
  assert stopped.returncode == 1 and 'Traceback' not in stopped.stderr, stopped.stderr
  told = json.loads((workdir / 'bad_batch.json').read_text())
  assert (told['train'], told['step'], told['what'], told['value']) == ('audio_net/fold_1', 2, 'loss', 'nan')
  assert [row['input_finite'] for row in told['rows']] == [True] * 5 + [False]
  said = stopped.stderr.splitlines()[-1]
  assert said.startswith('launch.py: audio_net/fold_1: loss became nan at step 2, of ')
  assert str(workdir / 'bad_batch.json') in said and f'the very input of {told["rows"][5]["clip"]}: mend' in said
  of_fold = [line['step'] for line in lines(workdir / 'metrics.jsonl') if line['train'] == 'audio_net/fold_1']
  assert of_fold == [0, 1]

  done = launch(workdir, f'data.root={clips}')
  assert done.returncode == 0, done.stderr
  assert (workdir / 'predictions.csv').read_bytes() == (unbroken / 'predictions.csv').read_bytes()


def test_an_update_with_nan_is_left_out_on_request(clips, faulty, with_stages) -> None:
  workdir = with_stages('skipped', 'prepare')
  done = faulty('nan', workdir, f'data.root={clips}', 'until=audio_net', 'nonfinite=skip')
  assert done.returncode == 0, done.stderr
  assert 'audio_net/fold_1: 1 of 4 updates were not finite and left out (steps 2)' in done.stderr
  metrics = lines(workdir / 'metrics.jsonl')
  assert [(line['train'], line['step']) for line in metrics if line['skipped']] == [('audio_net/fold_1', 2)]
  notes = [line for line in lines(workdir / 'provenance.jsonl') if line['event'] == 'skipped']
  assert notes == [{'event': 'skipped', 'train': 'audio_net/fold_1', 'updates': 4, 'steps': [2]}]
  assert not (workdir / 'bad_batch.json').exists()


def test_a_cell_whose_numbers_explode_is_noted_and_ends_in_a_sentence(unbroken, clips, tmp_path) -> None:
  config = tiny.get_config()
  config.data.root, config.cache, config.until = str(clips), str(unbroken / 'stages'), 'audio_net'
  config.audio.optim.lr = 1e38
  _, reason = sweep.run_cell(config, str(tmp_path / 'cell'))
  assert reason.startswith('audio_net/fold_0: parameters became inf at step 0, of ')
  assert 'The input is finite. Use a lower learning rate' in reason
  assert 'Traceback' not in (tmp_path / 'cell' / 'log.txt').read_text()

"""One experiment in several processes: the numbers of a single one, and nothing written twice."""

import csv
import json
import pathlib
import signal
import subprocess
import time

import pytest

from emo_jax import stages


def finish(pod: list['subprocess.Popen[str]'], logs: pathlib.Path) -> list[str]:
  """Waits for a good end of all, and gives what each has printed."""
  statuses = [process.wait(timeout=600) for process in pod]
  printed = [(logs / f'{number}.txt').read_text() for number in range(len(pod))]
  assert statuses == [0] * len(pod), '\n'.join(printed)
  return printed


def verdicts(workdir: pathlib.Path) -> list[dict[str, str]]:
  with open(workdir / 'predictions.csv', newline='') as file:
    return list(csv.DictReader(file))


def same(one: pathlib.Path, other: pathlib.Path, *, atol: float) -> None:
  """The same clips with the same labels, and scores that are as near as this."""
  for row, also in zip(verdicts(one), verdicts(other), strict=True):
    assert row.keys() == also.keys()
    for column, value in row.items():
      if ':' in column and value:
        assert float(also[column]) == pytest.approx(float(value), abs=atol), column
      else:
        assert also[column] == value, column


def losses(workdir: pathlib.Path, stage: str) -> list[float]:
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  return [line['loss'] for line in lines if line['train'] == f'{stage}/fold_0']


def test_two_processes_with_two_devices_give_what_one_device_gives(paired, unbroken):
  printed = [(paired.parent / 'logs' / f'{number}.txt').read_text() for number in range(2)]
  same(unbroken, paired, atol=0.05)
  for stage in ('audio_net', 'visual_net'):
    assert losses(paired, stage) == pytest.approx(losses(unbroken, stage), abs=1e-4)
  made = stages.executions(paired / 'stages')
  assert len(made) == len({(line['stage'], line['digest']) for line in made})
  assert {line['digest'] for line in made} <= {line['digest'] for line in stages.executions(unbroken / 'stages')}
  started = json.loads((paired / 'provenance.jsonl').read_text().splitlines()[0])
  assert started['devices']['processes'] == 2 and started['devices']['devices'] == 4
  assert 'unseen speakers' in printed[0] and 'unseen speakers' not in printed[1]


def test_teams_that_share_the_folds_give_the_same_bytes(pod, clips, unbroken, tmp_path):
  """Each fold is trained on one device, as without them."""
  wishes = (f'data.root={clips}', 'parallel.folds=2')
  finish(pod(tmp_path / 'w', *wishes, devices=1, logs=tmp_path / 'logs'), tmp_path / 'logs')
  assert (tmp_path / 'w' / 'predictions.csv').read_bytes() == (unbroken / 'predictions.csv').read_bytes()
  assert (tmp_path / 'w' / 'metrics.1.jsonl').exists()


@pytest.mark.kill
def test_a_checkpoint_goes_on_in_another_topology(pod, command, clips, unbroken, environment, tmp_path):
  run = subprocess.Popen(command(tmp_path / 'w', f'data.root={clips}'), stderr=subprocess.DEVNULL, env=environment)
  while run.poll() is None and not list(
    (tmp_path / 'w').glob('stages/visual_net/*.partial/scratch/checkpoints/[0-9]*')
  ):
    time.sleep(0.001)
  run.send_signal(signal.SIGKILL)
  assert run.wait() == -signal.SIGKILL
  finish(pod(tmp_path / 'w', f'data.root={clips}', logs=tmp_path / 'logs'), tmp_path / 'logs')
  same(unbroken, tmp_path / 'w', atol=0.05)


@pytest.mark.parametrize(
  ('flags', 'said'),
  [
    (['--distributed'], '--distributed: no TPU pod, Slurm, Kubernetes or Open MPI job is found here'),
    (['--coordinator=127.0.0.1:1234'], '--num_processes, --process_id missing'),
    (['--process_id=0', '--num_processes=2'], '--coordinator missing'),
    (['--coordinator=host', '--num_processes=2', '--process_id=0'], "--coordinator='host': use HOST:PORT"),
    (['--coordinator=a:1', '--num_processes=2', '--process_id=2'], '--process_id=2 with --num_processes=2'),
  ],
)
def test_flags_that_do_not_fit_are_refused_in_a_sentence(flags, said, command, environment, tmp_path):
  done = subprocess.run([*command(tmp_path / 'w'), *flags], capture_output=True, text=True, env=environment, timeout=60)
  assert done.returncode == 1 and done.stderr.startswith('launch.py: ') and said in done.stderr
  assert 'Traceback' not in done.stderr and not (tmp_path / 'w').exists()


def test_processes_that_cannot_be_dealt_into_teams_are_refused(pod, clips, tmp_path):
  wishes = (f'data.root={clips}', 'parallel.folds=2')
  started = pod(tmp_path / 'w', *wishes, processes=3, devices=1, logs=tmp_path / 'logs')
  assert [process.wait(timeout=120) for process in started] == [1, 1, 1]
  for number in range(3):
    assert 'config.parallel.folds=2 with 3 processes' in (tmp_path / 'logs' / f'{number}.txt').read_text()

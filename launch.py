"""Runs an experiment, or an ablation: python launch.py --config=configs/X.py --workdir=W [--config.a.b=value ...].

On many hosts, or in several processes: the same command in each, with --distributed in a TPU pod, Slurm or Kubernetes,
else with --coordinator, --num_processes and --process_id. WORKSPACE.md has whole commands.
"""

import pathlib
import sys
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from emo_jax import command_line, memory, processes, stopping

CONFIG = config_flags.DEFINE_config_file('config', None, 'The experiment.', lock_config=True)
WORKDIR = flags.DEFINE_string('workdir', None, 'Where results go, and stages unless config.cache is set.')
DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Tell what would be made, and how long it may take; write nothing.')
DISTRIBUTED = flags.DEFINE_bool('distributed', False, 'One of several processes; the cluster says which, and where.')
COORDINATOR = flags.DEFINE_string('coordinator', '', 'One of several processes: host:port of process 0.')
NUM_PROCESSES = flags.DEFINE_integer('num_processes', 0, 'With --coordinator: how many there are.', lower_bound=0)
PROCESS_ID = flags.DEFINE_integer('process_id', -1, 'With --coordinator: which one this is, from 0.')
PROFILE = flags.DEFINE_bool('profile', False, 'Traces of ten steps of each kind of training, in <workdir>/profile.')
flags.mark_flags_as_required(['config', 'workdir'])


def main(argv: list[str]) -> None:
  """Flags to experiment, or to the experiments of an ablation."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}; config fields are set by --config.a.b=value')
  if PROFILE.value and CONFIG.value.sweep.variants:
    raise app.UsageError('--profile is for one experiment, not for an ablation')
  memory.keep_freed_memory()
  sys.unraisablehook = unraised
  logging.set_verbosity(logging.FATAL)  # Orbax tells of every save, and what fails twice
  of_run = {'count': NUM_PROCESSES.value, 'number': PROCESS_ID.value}
  with processes.ending(), stopping.saying():
    try:
      processes.start(autodetect=DISTRIBUTED.value, coordinator=COORDINATOR.value, **of_run)
    except ValueError as error:
      raise SystemExit(f'launch.py: {error}') from error
    run()


def unraised(what: Any) -> None:
  """Once a write of Orbax's has failed, which is raised, its other threads have much to say."""
  if not any(said in str(what.exc_value) for said in ('Event loop is closed', 'was never awaited')):
    sys.__unraisablehook__(what)


def run() -> None:
  """The experiment, or the experiments of an ablation; JAX is imported here, after the processes have met."""
  from emo_jax import context, sweep

  config, workdir = CONFIG.value, WORKDIR.value or ''
  try:
    with context.explained(pathlib.Path(workdir)):
      if config.sweep.variants or DRY_RUN.value:
        if status := sweep.run(config, workdir, dry_run=DRY_RUN.value):
          raise SystemExit(status)
      else:
        sweep.run_alone(config, workdir, profile=PROFILE.value)
  except context.Unusable as error:
    raise SystemExit(f'launch.py: {error}') from error


if __name__ == '__main__':
  stopping.watch()
  app.run(main, flags_parser=command_line.parser('launch.py', status=2))

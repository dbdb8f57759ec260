"""Runs an experiment, or an ablation: python launch.py --config=configs/X.py --workdir=W [--config.a.b=value ...]."""

from absl import app, flags, logging
from ml_collections import config_flags

from emo_jax import command_line, memory

CONFIG = config_flags.DEFINE_config_file('config', None, 'The experiment.', lock_config=True)
WORKDIR = flags.DEFINE_string('workdir', None, 'Where results go, and stages unless config.cache is set.')
DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Tell what would be made, and how long it may take; write nothing.')
flags.mark_flags_as_required(['config', 'workdir'])


def main(argv: list[str]) -> None:
  """Flags to experiment, or to the experiments of an ablation."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}; config fields are set by --config.a.b=value')
  memory.keep_freed_memory()
  logging.set_verbosity(logging.WARNING)  # Orbax tells of every save
  from emo_jax import experiment, sweep

  config, workdir = CONFIG.value, WORKDIR.value or ''
  try:
    if config.sweep.variants or DRY_RUN.value:
      if status := sweep.run(config, workdir, dry_run=DRY_RUN.value):
        raise SystemExit(status)
    else:
      sweep.run_alone(config, workdir)
  except experiment.Unusable as error:
    raise SystemExit(f'launch.py: {error}') from error


if __name__ == '__main__':
  app.run(main, flags_parser=command_line.parser('launch.py', status=2))

"""Looks for leaks in a split, this project's or anybody's, and in what a finished experiment has fitted.

  python -m emo_jax.audit --config=configs/X.py [--config.a.b=value ...] [--workdir=W]
  python -m emo_jax.audit --workdir=W
  python -m emo_jax.audit --train=a.csv --test=b.csv [--held=c.csv] [--name=REGEX] [--root=DIR]

The first audits the split that this experiment would use; with a work directory, the split that was recorded there, and
every scaler, statistic and SVM that was saved. The last audits lists: tables with a manifest's columns (path, speaker,
emotion or label, sentence) between commas, semicolons or tabs; files of that ending in .jsonl, an object a line (path,
or wav, or key); or tables with no header and names in the first column. What they do not say --name takes from the
path, by a regular expression with named groups: speaker, emotion, sentence. Media lie where the list says, or below
--root.

Exit status: 0 without leaks (warnings do not count), 1 with a leak, 2 for input that cannot be audited, 3 for a fault
of the audit's own, with its traceback.
"""

import hashlib
import io
import pathlib
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import joblib
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from emo_jax import command_line, finished, fitted
from emo_jax.context import Unusable
from emo_jax.corpora import clip as clip_list
from emo_jax.corpora import lists
from emo_jax.corpora.clip import Clip
from emo_jax.evaluation import folds, leaks, splits
from emo_jax.evaluation.leaks import Finding, counted
from emo_jax.frontend import decoder
from emo_jax.steps import prepare
from emo_jax.training.metrics import progress

EMPTY = hashlib.sha256().hexdigest()
SOUND = {'low_hz': 20.0, 'high_hz': 8000.0}  # config.frontend.sound's defaults
LIMIT_S = 60.0  # without a sign of life, after which a clip's decoder is stopped

CONFIG = config_flags.DEFINE_config_file('config', None, 'The experiment whose split is audited.', lock_config=True)
WORKDIR = flags.DEFINE_string('workdir', None, 'A finished experiment: its recorded split, and what it has fitted.')
LISTS = {side: flags.DEFINE_string(side, None, f"Somebody's list of {side} clips.") for side in splits.SIDES}
NAME = flags.DEFINE_string('name', None, 'Regular expression on paths; its groups speaker, emotion, sentence.')
ROOT = flags.DEFINE_string('root', None, 'Where the media of the lists lie; the folder of each list unless set.')


def read_media(clips: Sequence[Clip]) -> tuple[list[set[str]], list[np.ndarray | None]]:
  """Of each clip the hashes of its files and the fingerprint of its sound, of what can be read."""
  threads = joblib.Parallel(n_jobs=-1, prefer='threads', return_as='generator')
  hashes = clip_list.content_hashes(clips)
  real = {path: {name} for path, name in hashes.items() if ':' not in name and name != EMPTY}
  sounds = sorted({clip.sound for clip in clips if clip.sound in real})  # None is not
  prints: dict[pathlib.Path | None, np.ndarray | None] = {}
  with progress('listen', len(sounds), 'file') as bar:
    for path, moves in zip(sounds, threads(joblib.delayed(_listen)(str(path)) for path in sounds), strict=True):
      prints[path] = moves
      bar.update()
  contents = [set().union(*(real.get(path, set()) for path in clip.files)) for clip in clips]
  return contents, [prints.get(clip.sound) for clip in clips]


def _listen(path: str) -> np.ndarray | None:
  with tempfile.TemporaryDirectory() as folder:
    decoder.prepare_half('audio', path, f'{folder}/sounds/of', SOUND, limit=LIMIT_S)
    there = pathlib.Path(folder, 'sounds', 'of.npy').exists()
    return prepare.sound_print(pathlib.Path(folder), 'sounds/of' if there else None)


def audit_split(clips: Sequence[Clip], sides: np.ndarray) -> list[Finding]:
  """All that can be said of a split and its media.

  Args:
    sides: 'train', 'held', 'test' or '', [folds, clips].
  """
  return [
    leaks.speakers(clips, sides),
    *leaks.recordings(clips, sides, *read_media(clips)),
    leaks.sentences(clips, sides),
    leaks.balance(clips, sides),
  ]


def audit_lists(paths: dict[str, str], *, name: str | None, root: str | None) -> tuple[str, list[Finding]]:
  """Audits lists of clips, by side."""
  clips = [clip for side, path in paths.items() for clip in lists.read(path, side, name=name, root=root)]
  sides = np.array([[clip.split for clip in clips]])
  found = audit_split(clips, sides)
  if root is not None:
    _refuse_unseen(found, f'--root={root}', clips)
  title = f'{", ".join(f"{side} {path}" for side, path in paths.items())}: {counted(len(clips), "clip")}'
  return title, [leaks.names(clips, sides), *found]


def _refuse_unseen(findings: Sequence[Finding], place: str, clips: Sequence[Clip]) -> None:
  """Refuses a place where media should lie and none does."""
  if 'same bytes' in _unchecked(findings):
    raise Unusable(f'{place}: no file of the {counted(len(clips), "clip")} can be read, the first {clips[0].files[0]}')


def _unchecked(findings: Sequence[Finding]) -> list[str]:
  """The comparisons of recordings that could not be made."""
  return [finding.check for finding in findings if finding.check in leaks.LEFT_OUT and finding.verdict == 'SKIPPED']


def audit_experiment(config: Any, workdir: str | None) -> tuple[str, list[Finding]]:
  """Audits the split of an experiment, and with a work directory what was fitted there."""
  try:
    x = finished.open_experiment(config, workdir)
  except Unusable as error:
    if isinstance(error.__cause__, folds.Leak):
      return 'a split that cannot be dealt', [Finding('speakers', 'LEAK', str(error))]
    raise
  sides = np.array([x.sides(fold) for fold in x.folds])
  found = audit_split(x.clips, sides)
  if config is not None:
    _refuse_unseen(found, f'config.data.root={config.data.root}', x.clips)
  found += _protocol(x.config)
  if workdir:
    finished.reopen(x)
    found += fitted.findings(x)
  speakers = len({clip.speaker for clip in x.clips})
  counts = ((len(x.clips), 'clip'), (speakers, 'speaker'), (len(x.folds), 'fold'))
  title = f'{x.split["corpus"]}, rule {x.split["rule"]}: {", ".join(counted(*of) for of in counts)}'
  return title, found


def _protocol(config: Any) -> Iterator[Finding]:
  if config.normalise == 'speaker':
    told = "each speaker's clips are standardised together, the judged ones too: results are transductive"
    yield Finding('protocol', 'WARNED', told)
  if config.data.allow_leaks:
    yield Finding('protocol', 'WARNED', 'leaks are allowed: every result is marked as not speaker-independent')


def told(title: str, findings: Sequence[Finding]) -> str:
  """The report, for people."""
  lines = [f'Audit of {title}', '']
  for finding in findings:
    lines.append(f'{finding.verdict:8}{finding.check}: {finding.said}')
    lines += [f'          {example}' for example in finding.examples]
  found = sum(finding.verdict == 'LEAK' for finding in findings)
  if found:
    verdict = f'{counted(found, "check")} found a LEAK: results on this split are not speaker-independent.'
  elif unchecked := _unchecked(findings):
    reason = ' (no media found)' if 'same bytes' in unchecked else ''
    verdict = f'No leak found; not checked: {", ".join(unchecked)}{reason}'
  else:
    verdict = 'No leak.'
  return '\n'.join([*lines, '', verdict])


def main(argv: list[str]) -> int:
  """Flags to report and exit status: a fault of the audit's own is no leak."""
  try:
    return _main(argv)
  except Exception:
    traceback.print_exc()
    return 3


def _main(argv: list[str]) -> int:
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='backslashreplace')  # names may hold anything
  logging.set_verbosity(logging.WARNING)  # Orbax tells of every load
  given = {side: flag.value for side, flag in LISTS.items() if flag.value}
  try:
    if len(argv) > 1:
      raise Unusable(f'unknown arguments {argv[1:]}')
    if bool(given) == bool(CONFIG.value or WORKDIR.value) or (given and not given.keys() >= {'train', 'test'}):
      raise Unusable('say what to audit: --config, --workdir or both; or --train and --test')
    if ROOT.value is not None and not pathlib.Path(ROOT.value).is_dir():
      raise Unusable(f'--root={ROOT.value}: no such folder')
    if given:
      title, findings = audit_lists(given, name=NAME.value, root=ROOT.value)
    else:
      title, findings = audit_experiment(CONFIG.value, WORKDIR.value)
  except (Unusable, decoder.MachineFailure, OSError) as error:  # a config file that cannot be read among them
    print(f'audit: {error}', file=sys.stderr)
    return 2
  print(told(title, findings))
  return int(any(finding.verdict == 'LEAK' for finding in findings))


if __name__ == '__main__':
  app.run(main, flags_parser=command_line.parser('audit', status=2))

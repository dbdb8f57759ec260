"""The result of an experiment: predictions.csv, report.json, report.md (pipeline step: report)."""

import csv
import functools
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from emo_jax import contenders, files, provenance
from emo_jax.context import Experiment
from emo_jax.corpora.clip import Clip
from emo_jax.evaluation import metrics, normalise
from emo_jax.report import pictures

PROTOCOL = {
  'inductive': 'a clip is judged by itself alone',
  'transductive': "each speaker's clips, the judged ones among them, are standardised together, without their labels",
}
SHORT = 'the sound is shorter than a window: its end is repeated'
APART = 'Inductive and transductive results must not be ranked together.'


def standing(protocol: str, *, leaks_allowed: bool) -> str:
  """What stands beside every figure: the protocol, and that it is no speaker-independent one."""
  return f'{protocol}, NOT speaker-independent' if leaks_allowed else protocol


def missing(x: Experiment) -> tuple[dict[int, str], dict[int, str]]:
  """Why clips cannot be used: index -> reason, of those without any segment, and of those with one half only."""
  halves = {'sound': x.segments.has_audio, 'face': x.segments.has_face}
  usable = {half: set(x.segments.clip[has].tolist()) for half, has in halves.items()}
  rejected: dict[int, str] = {}
  half_clips: dict[int, str] = {}
  for number, record in enumerate(x.records):
    lacking = [half for half in halves if number not in usable[half]]
    unused = ''  # of a half that is in the store
    if record['audio'] and 'sound' in lacking:
      unused = 'the sound is shorter than a window (config.frontend.short)'
    elif record['faces'] and 'face' in lacking:
      unused = 'no window has enough frames with a face'
    if lacking:
      of_kind = rejected if len(lacking) == len(halves) else half_clips
      of_kind[number] = '; '.join(part for part in (record['reason'], unused) if part)
  return rejected, half_clips


def _write_list(path: pathlib.Path, header: list[str], rows: Iterable[Sequence[str]]) -> None:
  """A CSV file about media files, whose names may hold anything: bytes that are no text are written as escapes."""
  with open(path, 'w', newline='', encoding='utf-8', errors='backslashreplace') as file:
    csv.writer(file).writerows([header, *rows])


def _named(clip: Clip) -> tuple[str, str]:
  """A clip's id and its media files."""
  return clip.id, ' | '.join(str(path) for path in clip.files)


def write_rejected(x: Experiment) -> None:
  """rejected.csv: clips of which neither half can be used, and files that are no clips, with the reason."""
  rejected, _ = missing(x)
  rows = [(*_named(x.clips[number]), reason) for number, reason in rejected.items()]
  rows += [('', file, reason) for file, reason in x.left_out]
  _write_list(x.workdir / 'rejected.csv', ['id', 'file', 'reason'], rows)


def oddities(x: Experiment) -> dict[int, list[str]]:
  """What is odd about clips that are used, in sentences: index -> one and more."""
  rejected, half_clips = missing(x)
  odd = {}
  for number, record in enumerate(x.records):
    warnings = [half_clips[number]] if number in half_clips else []
    warnings += record['warnings']
    if record['audio'] and x.store.facts(number, 'audio')['columns'] < x.config.frontend.segments.length:
      warnings.append(SHORT)
    if warnings and number not in rejected:
      odd[number] = warnings
  return odd


def write_warnings(x: Experiment) -> None:
  """warnings.csv: what is odd about clips that are used, a row for each sentence, and about the archive."""
  rows = [('', x.config.data.root, warning) for warning in x.warnings]
  rows += [(*_named(x.clips[number]), sentence) for number, odd in oddities(x).items() for sentence in odd]
  _write_list(x.workdir / 'warnings.csv', ['id', 'file', 'warning'], rows)


def load_scores(x: Experiment, side: str) -> list[dict[str, dict[int, np.ndarray]]]:
  """Of each fold and method: index of a clip on this side, 'test' or 'held', -> scores [C]."""
  folds = []
  for number in range(len(x.folds)):
    of_fold = {}
    for method in x.config.methods:
      path = x.made[f'decide/{method}'][number] / f'{method}_{side}.npz'
      with np.load(path, allow_pickle=False) as file:
        of_fold[method] = dict(zip(file['clip'].tolist(), file['scores'], strict=True))
    folds.append(of_fold)
  return folds


def load_penalty(x: Experiment, number: int, method: str) -> dict[str, float]:
  """'c' of a contender's SVM in a fold, as it was set or chosen; nothing for those without one."""
  path = x.made[f'decide/{method}'][number] / f'{method}_svm.npz'
  if not path.exists():
    return {}
  with np.load(path, allow_pickle=False) as file:
    return {'c': float(file['c'])}


def judge_method(x: Experiment, scores: list[dict[str, dict[int, np.ndarray]]], method: str) -> dict[str, Any]:
  """accuracy, uar, confusion over all judged clips, the same per fold (with its SVM's C) and per speaker."""
  size, truth = len(x.classes), x.truth()
  tables, per_speaker, per_fold = [], {}, []
  for number, (fold, of_fold) in enumerate(zip(x.folds, scores, strict=True)):
    clips = np.array(sorted(of_fold[method]), int)
    verdicts = np.array([np.argmax(of_fold[method][clip]) for clip in clips], int)
    tables.append(metrics.confusion(truth[clips], verdicts, classes=size))
    judged = fold.test if x.config.data.judge == 'test' else fold.held
    summary = metrics.summary(tables[-1])
    penalty = load_penalty(x, number, method)
    per_fold.append({f'{x.config.data.judge}_speakers': list(judged), **summary, **penalty})
    for speaker in judged:
      own = np.array([x.clips[clip].speaker == speaker for clip in clips], bool)
      own_table = metrics.confusion(truth[clips[own]], verdicts[own], classes=size)
      per_speaker[speaker] = metrics.summary(own_table)
  whole = np.sum(tables, axis=0)
  common = [(clip, of[method][clip]) for of in scores for clip in set.intersection(*map(set, of.values()))]
  right = [np.argmax(values) == truth[clip] for clip, values in common]
  of_common = {'accuracy_common': float(np.mean(right)) if right else 0.0}
  kind = x.config.fusion.kind
  return {
    'level': contenders.level(method, kind),
    'meaning': contenders.meaning(method, kind),
    **metrics.summary(whole),
    **of_common,
    'confusion': whole.tolist(),
    'per_fold': per_fold,
    'per_speaker': per_speaker,
  }


def write_predictions(x: Experiment, scores: list[dict[str, dict[int, np.ndarray]]], path: pathlib.Path) -> None:
  """A CSV with a row for each clip of each fold; empty cells where a method lacked the half it needs."""
  protocol = standing(normalise.PROTOCOLS[x.config.normalise], leaks_allowed=x.config.data.allow_leaks)
  methods = x.config.methods
  with files.whole(path) as file:
    table = csv.writer(file)
    columns = [c for m in methods for c in (m, *(f'{m}:{emotion}' for emotion in x.classes))]
    table.writerow(['fold', 'clip', 'speaker', 'truth', 'protocol', *columns])
    for number, of_fold in enumerate(scores):
      for clip in sorted(set().union(*of_fold.values())):
        row: list[Any] = [number, x.clips[clip].id, x.clips[clip].speaker, x.clips[clip].emotion, protocol]
        for method in methods:
          if clip in of_fold[method]:
            values = of_fold[method][clip]
            row += [x.classes[int(np.argmax(values))], *(f'{value:.6f}' for value in values)]
          else:
            row += [''] * (1 + len(x.classes))
        table.writerow(row)


def write(x: Experiment) -> None:
  """Writes all of it, and prints the table."""
  scores = load_scores(x, x.config.data.judge)
  write_predictions(x, scores, x.workdir / 'predictions.csv')
  if x.config.data.judge == 'test' and all(fold.held for fold in x.folds):
    write_predictions(x, load_scores(x, 'held'), x.workdir / 'held.csv')
  judged = {clip for of_fold in scores for of_method in of_fold.values() for clip in of_method}
  rejected, half_clips = missing(x)
  looks = functools.partial(provenance.look_count, x.cache, x.clips, x.config.to_dict())
  result = {
    'corpus': x.config.data.corpus,
    'protocol': normalise.PROTOCOLS[x.config.normalise],
    'leaks_allowed': bool(x.config.data.allow_leaks),
    'judged': x.config.data.judge,
    'classes': x.classes,
    'clips': len(judged),
    'speakers': len({x.clips[clip].speaker for clip in judged}),
    'rejected': len(rejected),
    'half_clips': {x.clips[number].id: reason for number, reason in half_clips.items() if number in judged},
    'seed': x.config.seed,
    'nets_seed': x.nets_seed,
    'svm_candidates': list(x.config.svm.candidates),
    'split_digest': x.split['digest'],
    'configurations_judged_on_test': looks('test'),
    'configurations_judged_on_held': looks('held'),
    'methods': {method: judge_method(x, scores, method) for method in x.config.methods},
  }
  text, path = json.dumps(result, indent=1) + '\n', x.workdir / 'report.json'
  if not path.exists() or path.read_text() != text:
    (x.workdir / 'report' / 'index.html').unlink(missing_ok=True)  # the page of another result
    with files.whole(path) as file:
      file.write(text)
  stands = standing(result['protocol'], leaks_allowed=result['leaks_allowed'])
  for method, of_method in result['methods'].items():
    path, title = x.workdir / f'confusion_{method}.png', f'{method}, {stands}'
    pictures.confusion(path, np.array(of_method['confusion']), x.classes, title=title)
  pictures.faces(x.workdir / 'faces.png', x.store, x.segments, x.clips)
  text = markdown(result, _stage_seconds(x))
  (x.workdir / 'report.md').write_text(text, encoding='utf-8', errors='backslashreplace')
  print(console_table(result))


def console_table(result: dict[str, Any]) -> str:
  """The table of the methods, for people."""
  who = 'held' if result['judged'] == 'held' else 'test' if result['leaks_allowed'] else 'unseen'
  stands = standing(result['protocol'], leaks_allowed=result['leaks_allowed'])
  width = max(map(len, ('method', *result['methods'])))
  lines = [
    f'{result["clips"]} clips of {result["speakers"]} {who} speakers, {len(result["classes"])} emotions, '
    f'chance {1 / len(result["classes"]):.3f}, {stands}',
    f'{"method":{width}} {"accuracy":>8} {"uar":>7}',
  ]
  lines += [f'{m:{width}} {r["accuracy"]:8.3f} {r["uar"]:7.3f}   {r["meaning"]}' for m, r in result['methods'].items()]
  if result['protocol'] != 'inductive':
    lines.append(f'{result["protocol"].capitalize()}: {PROTOCOL[result["protocol"]]}. {APART}')
  if result['leaks_allowed']:
    lines.append('Leaks were allowed: these figures are NOT speaker-independent.')
  return '\n'.join(lines)


def _stage_seconds(x: Experiment) -> dict[str, float]:
  """Seconds that each stage took, over all runs in this work directory."""
  seconds: dict[str, float] = {}
  for entry in files.entries(x.workdir / 'provenance.jsonl'):
    if entry['event'] == 'stage':
      seconds[entry['stage']] = seconds.get(entry['stage'], 0.0) + entry['seconds']
  return seconds


def table(head: list[str], rows: Iterable[Sequence[Any]]) -> list[str]:
  """A markdown table, line by line."""
  lines = ['| ' + ' | '.join(head) + ' |', '|' + ' --- |' * len(head)]
  return lines + ['| ' + ' | '.join(map(str, row)) + ' |' for row in rows]


def _result_tables(result: dict[str, Any]) -> list[str]:
  """The methods; the speakers; the SVMs' C where it was chosen. Each says its protocol, for it may be copied out."""
  methods = result['methods']
  protocol = standing(result['protocol'], leaks_allowed=result['leaks_allowed'])
  lines = table(
    ['method', 'what it is', 'protocol', 'clips', 'accuracy', 'UAR', 'accuracy on the clips that all could judge'],
    [
      [m, r['meaning'], protocol, r['clips'], f'{r["accuracy"]:.3f}', f'{r["uar"]:.3f}', f'{r["accuracy_common"]:.3f}']
      for m, r in methods.items()
    ],
  )
  speakers = sorted(next(iter(methods.values()))['per_speaker'])
  lines += ['', 'Accuracy of each speaker:', '']
  lines += table(
    ['speaker', 'protocol', *methods],
    [[s, protocol, *(f'{r["per_speaker"][s]["accuracy"]:.3f}' for r in methods.values())] for s in speakers],
  )
  if result['svm_candidates']:
    machines = {m: r['per_fold'] for m, r in methods.items() if all('c' in fold for fold in r['per_fold'])}
    folds = zip(*machines.values(), strict=True)
    lines += ['', f"C of each fold's SVMs, chosen on its held clips from {result['svm_candidates']}:", '']
    lines += table(
      ['test speakers', 'protocol', *machines],
      [[', '.join(fold[0]['test_speakers']), protocol, *(f'{f["c"]:g}' for f in fold)] for fold in folds],
    )
  return lines


def markdown(result: dict[str, Any], seconds: dict[str, float]) -> str:
  """report.md: what was judged, the methods, the speakers, the halves that were missing, where the time went."""
  methods, protocol = result['methods'], result['protocol']
  stands = standing(protocol, leaks_allowed=result['leaks_allowed'])
  lines = [f'# {result["corpus"]}: {result["clips"]} clips, {result["speakers"]} speakers, {stands}', '']
  lines += [
    'Speakers in training and test never overlap.'
    if not result['leaks_allowed']
    else '**NOT speaker-independent: leaks were allowed.**'
  ]
  lines += [
    f'Protocol: {protocol} ({PROTOCOL[protocol]}). {APART} Judged: {result["judged"]} speakers. Seed {result["seed"]}, '
    f"networks' seed {result['nets_seed']}. Configurations judged on these clips so far, seeds apart, as this cache "
    f'knows: {result["configurations_judged_on_test"]} on test speakers, {result["configurations_judged_on_held"]} on '
    'held.',
    '',
    *_result_tables(result),
  ]
  lines += ['', *(f'![{m}](confusion_{m}.png)' for m in methods), '', 'Aligned faces, a row for each speaker:', '']
  lines += ['![faces](faces.png)', '']
  if result['rejected']:
    lines += [f'{result["rejected"]} clips could not be used at all: rejected.csv.', '']
  if result['half_clips']:
    lines += ['Half clips, used where one half is enough:', '']
    lines += [f'- {name}: {reason}' for name, reason in result['half_clips'].items()] + ['']
  lines += ['Seconds spent in each stage before this one, all runs of this work directory together:', '']
  lines += table(['stage', 'seconds'], [[name, f'{spent:.1f}'] for name, spent in seconds.items()])
  return '\n'.join(lines) + '\n'

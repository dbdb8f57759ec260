"""All contenders of an ablation side by side, with how sure it is (pipeline step: report).

Only the contrasts that were named before looking are tested; all else is description. Runs are averaged first, and then
speakers are the sample.
"""

import csv
import itertools
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from emo_jax.evaluation import calibration, metrics, significance
from emo_jax.report import cells as reading
from emo_jax.report import pairs, tables
from emo_jax.report.cells import Cell, Clips, Results, Row, Run
from emo_jax.report.report import APART

Rival = str | Sequence[str]
Dict = dict[str, Any]
WRONG = 12  # clips that are listed
# Of the paper, in percent; method.md A7.
_PUBLISHED = {
  ('DBN fusion', 'verified in a survey'): (80.36, 85.97, 54.57),
  ('audio AlexNet', 'unverified'): (66.17, 78.08, 42.26),
  ('visual C3D', 'unverified'): (68.09, 54.35, 50.11),
}
_CORPORA = ('rml', 'enterface05', 'baum1s')


def compare(cells: Sequence[Cell], contrasts: Sequence[tuple[str, Rival]], *, failed: Sequence[Cell] = ()) -> Dict:
  """What report/comparison.json holds.

  Args:
    cells: that are done, one and more.
    contrasts: pairs of rows' names. A rival that is a tuple is, in each fold, the one of these that is right on most
      of the held clips that all of these could judge, over all runs; of equal ones the first.
    failed: cells that are not done.

  Raises:
    ValueError: a cell was not judged on the same clips and folds as the others, or its files are not whole.
  """
  names = reading.row_names([*cells, *failed])
  results = reading.read(cells, names)
  facts, speakers = results.facts, sorted(set(results.test.speaker.tolist()))
  said = [*_of_speakers(len(speakers), len(contrasts)), *_of_failures(failed)]
  protocols = {}
  for protocol in sorted(results.rows):
    protocols[protocol], notes = _protocol(protocol, results, contrasts, speakers)
    said += notes
  if len(protocols) > 1:
    said.append(APART)
  if facts['leaks_allowed']:
    said.append('Leaks were allowed: these figures are NOT speaker-independent.')
  return {
    'corpus': facts['corpus'],
    'classes': facts['classes'],
    'speakers': speakers,
    'chance': 1 / len(facts['classes']),
    'clips': len(results.test.clip),
    'judged': facts['judged'],
    'leaks_allowed': facts['leaks_allowed'],
    'looks': results.looks,
    'smallest_p': significance.smallest_p(len(speakers)),
    'said': said,
    'protocols': protocols,
    'published': _published(facts['corpus']),
  }


def _published(corpus: str) -> list[Dict]:
  """The paper's figures, this corpus's first."""
  figures = [
    {'corpus': name, 'method': method, 'accuracy': round(figure / 100, 4), 'sure': sure}
    for (method, sure), of_method in _PUBLISHED.items()
    for name, figure in zip(_CORPORA, of_method, strict=True)
  ]
  return sorted(figures, key=lambda figure: figure['corpus'] != corpus)


# What is said


def _of_speakers(speakers: int, contrasts: int) -> list[str]:
  """What so many speakers can and cannot show."""
  level, least = significance.LEVEL, significance.smallest_p(speakers)
  needed, first = (significance.fewest_speakers(of) for of in (level, level / max(contrasts, 1)))
  said = [f'With {speakers} speakers the smallest two-sided p of the sign-flip test over speakers is {least:.2g}.']
  if speakers < needed:
    said.append(
      f'Fewer than {needed} speakers can show no difference, however large (p < {level}): these figures are of the '
      'speakers seen, no more.'
    )
  else:
    said.append(f'A difference that fewer than {needed} speakers share, the others having none, has p > {level}.')
  if contrasts > 1:
    but = f', more than there are: none of {contrasts} contrasts can be shown' if needed <= speakers < first else ''
    said.append(f'By Holm, the first of {contrasts} contrasts has to be shared by {first} speakers{but}.')
  return [
    *said,
    'Seeds are averaged before speakers are compared: more seeds make a figure steadier, but only more speakers can '
    'show a smaller difference. Nothing is said of speakers unlike these.',
    'Intervals are percentile bootstraps over speakers, and too short where speakers are few: in simulations, what is '
    'called 95 % held the truth in about 79 % of cases with 4 speakers, 86 % with 8, 92 % with 24. Those over clips '
    "take a speaker's clips for independent, which they are not.",
    'Only the named contrasts are tests, corrected by Holm within a protocol (those left out do not count); all other '
    'comparisons describe.',
  ]


def _of_failures(failed: Iterable[Cell]) -> list[str]:
  names = sorted(cell.name for cell in failed)
  but = 'What has fewer runs for it weighs those it has.'
  return [f'Not run to the end, and in no figure: {", ".join(names)}. {but}'] if names else []


def _of_detectable(protocol: str, contrast: Dict, gains: np.ndarray) -> list[str]:
  """How large a difference would have been found, at the spread that was seen."""
  if len(gains) < significance.fewest_speakers(significance.LEVEL) or contrast['dz'] is None:
    return []
  least = significance.detectable_effect(len(gains)) * float(np.std(gains, ddof=1))
  return [
    f'{protocol}, {contrast["name"]}: by how its gains spread over speakers, a difference of about {100 * least:.2g} '
    'points would be found, before Holm, in four of five such experiments (roughly: by the power of a paired t-test).'
  ]


# Rows


def _deviation(values: np.ndarray, runs: Sequence[Run]) -> float | None:
  """Over fusion's seeds (n - 1), the mean over those seeds of the networks that have more than one; None without."""
  nets = np.array([nets_seed for nets_seed, _ in runs])
  spread = [np.std(values[nets == seed], ddof=1) for seed in np.unique(nets) if np.sum(nets == seed) > 1]
  return float(np.mean(spread)) if spread else None


def _row(row: Row, results: Results, speakers: Sequence[str]) -> Dict:
  """A row of the table of contenders."""
  clips, classes = results.test, len(results.facts['classes'])
  own = row.test.verdict[0] >= 0
  truth, speaker, verdict = clips.truth[own], clips.speaker[own], row.test.verdict[:, own]

  def summaries(chosen: np.ndarray) -> tuple[np.ndarray, list[Dict]]:
    tables = [metrics.confusion(truth[chosen], of_run[chosen], classes=classes) for of_run in verdict]
    return np.sum(tables, axis=0), [metrics.summary(table) for table in tables]

  def mean(of_runs: list[Dict], name: str) -> float | None:
    return float(np.mean([run[name] for run in of_runs])) if of_runs[0]['clips'] else None

  confusion, runs = summaries(np.ones(len(truth), bool))
  of_speaker = {name: summaries(speaker == name)[1] for name in speakers}
  right = (verdict == truth).mean(0)
  held = row.held.verdict[0] >= 0
  accuracy, uar = (np.array([run[name] for run in runs]) for name in ('accuracy', 'uar'))
  over_speakers = significance.bootstrap_interval(pairs.sums(right, speaker), pairs.sums(np.ones(len(right)), speaker))
  return {
    'name': row.name,
    'variant': row.variant,
    'method': row.method,
    'level': row.level,
    'meaning': row.meaning,
    'runs': [list(run) for run in row.runs],
    'clips': len(truth),
    'accuracy': float(accuracy.mean()),
    'accuracy_runs': accuracy.tolist(),
    'deviation': _deviation(accuracy, row.runs),
    'interval': pairs.ends(over_speakers),
    'clip_interval': pairs.ends(significance.clip_interval(float(right.sum()), len(truth))),
    'uar': float(uar.mean()),
    'uar_runs': uar.tolist(),
    'uar_deviation': _deviation(uar, row.runs),
    'per_speaker': {
      name: {'clips': of[0]['clips'], 'accuracy': mean(of, 'accuracy'), 'uar': mean(of, 'uar')}
      for name, of in of_speaker.items()
    },
    'confusion': confusion.tolist(),
    'held_accuracy': float((row.held.verdict == results.held.truth)[:, held].mean()) if held.any() else None,
    'calibration': _calibration(row, results),
  }


def _temperatures(row: Row, results: Results) -> np.ndarray | None:
  """[R, K] of each run and judged clip, as fitted to its fold's held clips; None if a fold has none."""
  temperature = np.ones(row.test.verdict.shape)
  for fold in np.unique(results.test.fold[row.test.verdict[0] >= 0]):
    held = (results.held.fold == fold) & (row.held.verdict[0] >= 0)
    if not held.any():
      return None
    fitted = [calibration.fit_temperature(scores[held], results.held.truth[held]) for scores in row.held.scores]
    temperature[:, results.test.fold == fold] = np.array(fitted)[:, None]
  return temperature


def _calibration(row: Row, results: Results) -> Dict | None:
  """Reliability over the clips of all runs, before and after temperature scaling; None without held clips.

  A fold's temperature is the geometric mean over runs.
  """
  from scipy import stats

  own = row.test.verdict[0] >= 0
  temperature = _temperatures(row, results)
  if temperature is None or not own.any():
    return None
  scores = np.concatenate(row.test.scores[:, own])
  truth = np.tile(results.test.truth[own], len(row.runs))
  fold = results.test.fold[own]
  scaled = temperature[:, own].reshape(-1, 1)
  return {
    'temperature': [float(stats.gmean(temperature[:, own][:, fold == number][:, 0])) for number in np.unique(fold)],
    'before': calibration.reliability(calibration.probabilities(scores), truth),
    'after': calibration.reliability(calibration.probabilities(scores, scaled), truth),
  }


# Contrasts


def _contrasts(
  protocol: str, rows: Sequence[Row], results: Results, wanted: Sequence[tuple[str, Rival]]
) -> tuple[list[Dict], list[str]]:
  """The named contrasts that can be made, tested; what is to be said of these and of the others."""
  by_name, found, said = {row.name: row for row in rows}, [], []
  for row, rival in wanted:
    rivals = [rival] if isinstance(rival, str) else list(rival)
    name = f'{row} - {" or ".join(rivals)}'
    missing = [of for of in (row, *rivals) if of not in by_name]
    made = (
      f'{", ".join(missing)} was not run'
      if missing
      else pairs.contrast(by_name[row], [by_name[of] for of in rivals], results)
    )
    if isinstance(made, str):
      said.append(f'{protocol}, {name}: left out, for {made}.')
      continue
    told, gains = made
    found.append({'name': name, 'row': row, 'rival': rival if isinstance(rival, str) else rivals, **told})
    said += _of_detectable(protocol, found[-1], gains)
  corrected = significance.holm([contrast['p'] for contrast in found])
  return [{**contrast, 'p_holm': p} for contrast, p in zip(found, corrected, strict=True)], said


def _described(rows: Sequence[Row], against: Iterable[Row], clips: Clips) -> list[Dict]:
  """Every row beside each of some rows, on the clips that both could judge."""
  described = []
  for rival, row in itertools.product(against, rows):
    first, second = pairs.rights([row, rival], clips)
    could = (row.test.verdict[0] >= 0) & (rival.test.verdict[0] >= 0)
    if row is rival or not len(first) or not could.any():
      continue
    first, second = first[:, could], second[:, could]
    found, *_ = pairs.difference(first, second, clips.speaker[could])
    gain = first.mean(0) - second.mean(0)
    over_clips = pairs.ends(significance.bootstrap_interval(gain, np.ones(len(gain))))
    p = significance.mcnemar(first[0], second[0])
    described.append({'row': row.name, 'rival': rival.name, **found, 'clip_interval': over_clips, 'mcnemar_p': p})
  return described


def _wrong(row: Row, results: Results) -> list[Dict]:
  """The clips that a row is most sure about, and wrong, by its mean probabilities over runs."""
  clips, classes = results.test, results.facts['classes']
  own = np.flatnonzero(row.test.verdict[0] >= 0)
  temperature = _temperatures(row, results)
  scale = np.ones(row.test.verdict.shape) if temperature is None else temperature
  runs = zip(row.test.scores[:, own], scale[:, own, None], strict=True)
  mean = np.mean([calibration.probabilities(scores, of_run) for scores, of_run in runs], axis=0)
  wrong = mean.argmax(1) != clips.truth[own]
  surest = sorted(np.flatnonzero(wrong), key=lambda place: -mean[place].max())[:WRONG]
  return [
    {
      'row': row.name,
      'clip': clips.clip[own[place]],
      'speaker': str(clips.speaker[own[place]]),
      'truth': classes[clips.truth[own[place]]],
      'verdict': classes[mean[place].argmax()],
      'probability': float(mean[place].max()),
      'fold': int(clips.fold[own[place]]),
    }
    for place in surest
  ]


def _protocol(
  protocol: str, results: Results, wanted: Sequence[tuple[str, Rival]], speakers: Sequence[str]
) -> tuple[Dict, list[str]]:
  """All of one protocol, and what is to be said of it."""
  rows = results.rows[protocol]
  contrasts, said = _contrasts(protocol, rows, results, wanted)
  by_name = {row.name: row for row in rows}
  named = [by_name[name] for name in dict.fromkeys(row for row, _ in wanted) if name in by_name]
  return {
    'rows': [_row(row, results, speakers) for row in rows],
    'contrasts': contrasts,
    'described': _described(rows, named, results.test),
    'wrong': _wrong(named[0], results) if named else [],
  }, said


def write(folder: pathlib.Path, comparison: Dict) -> None:
  """comparison.json, contenders.csv, speakers.csv, contrasts.csv, described.csv, calibration.csv, report.md."""
  folder.mkdir(parents=True, exist_ok=True)
  text = json.dumps(comparison, indent=1, allow_nan=False) + '\n'
  (folder / 'comparison.json').write_text(text, encoding='utf-8')
  for name, rows in tables.of(comparison).items():
    with open(folder / f'{name}.csv', 'w', newline='', encoding='utf-8', errors='backslashreplace') as file:
      csv.writer(file).writerows([list(rows[0]), *(row.values() for row in rows)] if rows else [])
  (folder / 'report.md').write_text(tables.markdown(comparison), encoding='utf-8', errors='backslashreplace')

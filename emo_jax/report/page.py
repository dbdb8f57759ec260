"""The page of an ablation, index.html: one file that needs nothing else (pipeline step: report)."""

import json
import math
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeGuard

import jinja2
import numpy as np

from emo_jax import files
from emo_jax.contenders import LEVELS
from emo_jax.report import figures

ALPHA = 0.05  # a contrast counts as shown if its p by Holm is below
MEANING = {  # of the features that the embedding shows
  'audio': 'sound: the 2-D CNN',
  'visual': 'face: the 3-D CNN',
  'concat': 'both joined',
  'hybrid': 'both fused',
}
MEASURE = {'loss': 'loss', 'accuracy': 'accuracy', 'reconstruction_error': 'reconstruction error'}  # of the main panels
AFTER_EPOCHS = ('/epochs', '/monitor', '/likelihood')
ABSENT = '–'


def _is_number(value: float | None) -> TypeGuard[float]:
  return value is not None and math.isfinite(value)


def percent(value: float | None) -> str:
  """0.5734 to 57.3."""
  return f'{100 * value:.1f}' if _is_number(value) else ABSENT


def points(value: float | None) -> str:
  """A difference of shares in percentage points, signed: -0.0104 to −1.0."""
  return f'{100 * value:+z.1f}'.replace('-', '−') if _is_number(value) else ABSENT


def number(value: float | None, digits: int = 3) -> str:
  """With a true minus sign."""
  return f'{value:z.{digits}f}'.replace('-', '−') if _is_number(value) else ABSENT


def probability(value: float | None) -> str:
  """A p to two significant digits: 0.53, 0.0078, < 0.0001."""
  if not _is_number(value):
    return ABSENT
  if value < 1e-4:
    return '< 0.0001'
  return f'{value:.{max(2, 1 - math.floor(math.log10(value)))}f}'


def duration(seconds: float | None) -> str:
  """2711.4 to 45 min 11 s."""
  if seconds is None:
    return ABSENT
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours} h {minutes} min'
  return f'{minutes} min {rest} s' if minutes else f'{rest} s'


def words(value: Any) -> str:
  """What JSON may hold as a line: {'a': 1} to a 1; [1, 2] to 1, 2."""
  if isinstance(value, Mapping):
    return ', '.join(f'{key} {words(of)}' for key, of in value.items())
  if isinstance(value, (list, tuple)):
    return ', '.join(map(words, value))
  return ABSENT if value is None else str(value)


def rival(contrast: Mapping[str, Any]) -> str:
  """Whom a contrast's row is compared with, in words."""
  name = contrast['rival']
  return name if isinstance(name, str) else f'the better of {" and ".join(name)} as chosen on held speakers'


def chosen(contrast: Mapping[str, Any]) -> str:
  """In how many folds which rival was chosen: audio in 3 folds, visual in 1; nothing where there was no choice."""
  counts = Counter(contrast.get('chosen') or ())
  return ', '.join(f'{name} in {folds} fold{"s" * (folds > 1)}' for name, folds in counts.most_common())


def verdict(contrast: Mapping[str, Any]) -> str:
  """better or worse, where the test over speakers shows it; else nothing."""
  if not _is_number(contrast['p_holm']) or contrast['p_holm'] >= ALPHA or not contrast['difference']:
    return ''
  return 'better' if contrast['difference'] > 0 else 'worse'


def _listed(names: Sequence[str]) -> str:
  """a, b and c."""
  return ' and '.join(part for part in (', '.join(names[:-1]), names[-1]) if part)


def headline(contrasts: Sequence[Mapping[str, Any]]) -> list[str]:
  """The answer: of each row that is contrasted, a sentence on what is shown about it."""
  if not contrasts:
    return ['No contrast was tested, so no difference is claimed.']
  sentences = []
  for row in dict.fromkeys(contrast['row'] for contrast in contrasts):
    own = [contrast for contrast in contrasts if contrast['row'] == row]
    short = lambda c: c['rival'] if isinstance(c['rival'], str) else f'the better of {" and ".join(c["rival"])}'
    by = {kind: [short(c) for c in own if verdict(c) == kind] for kind in ('better', 'worse', '')}
    rivals = 'its rival' if len(own) == 1 else f'any of its {len(own)} rivals'
    if len(by['']) == len(own):
      sentences.append(f'No difference between {row} and {rivals} can be shown.')
      continue
    parts = [f'{kind} than {_listed(by[kind])}' for kind in ('better', 'worse') if by[kind]]
    rest = f'; against {_listed(by[""])} no difference can be shown' if by[''] else ''
    sentences.append(f'{row} is {", but ".join(parts)}{rest}.')
  return sentences


def sentence(contrast: Mapping[str, Any]) -> str:
  """A contrast in plain words: by how much, how surely, and whether that is shown."""
  difference, speakers = contrast['difference'], sum(contrast[name] for name in ('better', 'equal', 'worse'))
  low, high = contrast['interval']
  where = 'above' if difference > 0 else 'below'
  amount = f'{percent(abs(difference))} points {where}' if percent(abs(difference)) != '0.0' else 'level with'
  shown = {'better': 'it is better', 'worse': 'it is worse', '': 'no difference can be shown'}[verdict(contrast)]
  return (
    f'{contrast["row"]} is {amount} {rival(contrast)} (95 % {points(low)} to {points(high)}, '
    f'p = {probability(contrast["p"])}, by Holm {probability(contrast["p_holm"])}, {speakers} speakers): {shown}.'
  )


def scale(rows: Iterable[Mapping[str, Any]], chance: float) -> tuple[float, float]:
  """The ends of the axis that holds every interval and chance: twentieths."""
  values = [chance] + [end for row in rows for end in (*row['interval'], row['accuracy']) if _is_number(end)]
  low = math.floor(20 * min(values) + 1e-9)
  return low / 20, max(math.ceil(20 * max(values) - 1e-9), low + 1) / 20


def _levels(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
  levels: dict[str, list[Mapping[str, Any]]] = {level: [] for level in LEVELS}
  for row in rows:
    levels.setdefault(row['level'], []).append(row)
  return {level: of_level for level, of_level in levels.items() if of_level}


def _named(contrasts: Iterable[Mapping[str, Any]]) -> list[str]:
  """The rows that a protocol's contrasts speak of."""
  names: dict[str, None] = {}
  for contrast in contrasts:
    of = contrast['rival']
    names |= dict.fromkeys([contrast['row'], *([of] if isinstance(of, str) else of)])
  return list(names)


def view(name: str, comparison: Mapping[str, Any]) -> dict[str, Any]:
  """What the template shows of a protocol: its tables, grouped and scaled, and its reliability diagrams."""
  protocol = comparison['protocols'][name]
  named = _named(protocol['contrasts'])
  by_name = {row['name']: row for row in protocol['rows']}
  ends = [abs(end) for c in protocol['contrasts'] for end in (*c['interval'], c['difference']) if _is_number(end)]
  reliability = {
    row: figures.reliability(f'{name}-reliability-{place}', row, calibration['before'], calibration['after'])
    for place, row in enumerate(named)
    if row in by_name and (calibration := by_name[row]['calibration'])
  }
  return {
    **protocol,
    'name': name,
    'levels': _levels(protocol['rows']),
    'scale': scale(protocol['rows'], comparison['chance']),
    'widest': math.ceil(100 * max(ends, default=0) or 1) / 100,
    'headline': headline(protocol['contrasts']),
    'first': [by_name[row] for row in named if row in by_name],
    'others': [row for row in protocol['rows'] if row['name'] not in named],
    'reliability': reliability,
  }


def learning_panels(curves: Mapping[str, Any]) -> dict[str, dict[str, list[dict[str, Any]]]]:
  """Of each training its panels, a measure of training clips and of held clips in each: the `main` ones, and `more`.

  What was measured after epochs joins the training that it is of.
  """
  folds: dict[str, dict[str, dict[str, Any]]] = {}
  for train, by_fold in curves.items():
    parent = train.rpartition('/')[0] if train.endswith(AFTER_EPOCHS) else train
    for fold, measures in by_fold.items():
      folds.setdefault(parent, {}).setdefault(fold, {}).update(measures)
  panels: dict[str, dict[str, list[dict[str, Any]]]] = {}
  for train, of_folds in folds.items():
    names = dict.fromkeys(re.sub('^(held|train)_', '', measure) for fold in of_folds.values() for measure in fold)
    of_train: dict[str, list[dict[str, Any]]] = {'main': [], 'more': []}
    for place, name in enumerate(names):
      learnt = [curve for fold in of_folds.values() if (curve := fold.get(name) or fold.get(f'train_{name}'))]
      held = [curve for fold in of_folds.values() if (curve := fold.get(f'held_{name}'))]
      if learnt or held:
        drawn = figures.learning(f'learning-{len(panels)}-{place}', train, name, learnt, held)
        panel = {'measure': MEASURE.get(name, name.replace('_', ' ')), 'plot': drawn}
        of_train['main' if name in MEASURE else 'more'].append(panel)
    if any(of_train.values()):
      panels[train] = of_train
  return panels


def embedding_panels(embedding: Mapping[str, Any]) -> dict[str, Any]:
  """Of each kind of features its two scatter plots and what it knows; the legends; an answer in words."""
  marked = 'test' if 'test' in embedding['side'] else 'held'
  hollow = np.array(embedding['side']) == marked
  shown: dict[str, Any] = {'kinds': {}, 'legends': {}, 'marked': marked, 'answer': forgets(embedding, marked)}
  for kind, meaning in MEANING.items():
    if of_kind := embedding.get(kind):
      plots = {}
      for what in ('emotion', 'speaker'):
        names, group = np.unique(np.array(embedding[what]), return_inverse=True)
        shown['legends'][what] = figures.swatches(names.tolist())
        label = f'{meaning}, t-SNE of {len(hollow)} clips coloured by {what}'
        plots[what] = figures.scatter(f'{kind}-{what}', of_kind['points'], group, hollow, label=label)
      shown['kinds'][kind] = {'meaning': meaning, 'plots': plots, **of_kind}
  return shown


def forgets(embedding: Mapping[str, Any], marked: str) -> str:
  """Whether the speaker is easier to find in the joined or in the fused features; nothing where one is missing."""
  kinds = [embedding.get(kind) for kind in ('concat', 'hybrid')]
  found = [of['neighbours']['speaker'] for of in kinds if of]
  if len(found) < 2 or not all(map(_is_number, found)):
    return ''
  joined, fused = found
  how = 'less than' if fused < joined else 'more than' if fused > joined else 'just as'
  return (
    f'In this fold the fused features give the speaker away {how} the joined ones: the nearest neighbours name the '
    f'speaker of {percent(fused)} % of {marked} clips after fusion, of {percent(joined)} % before '
    f'({percent(embedding["hybrid"]["chance"]["speaker"])} % by chance). It is one fold: a few points are a few clips.'
  )


def saliency_pictures(saliency: Mapping[str, Any]) -> dict[str, Any]:
  """The examples; of each half, rows of (data URI, words): as given, under the heat for the verdict, for the truth."""
  draw: dict[str, Callable[..., list[str]]] = {'audio': figures.sound_saliency, 'visual': figures.face_saliency}
  names = {'audio': ('sound', 'log-mel image'), 'visual': ('face', 'faces')}
  examples = []
  for one in saliency['examples']:
    truth_heat = one.get('truth_heat') or {}
    halves = []
    for half in (half for half in draw if one.get(half)):
      name, what = names[half]
      heats = [one[half]['heat'], *([truth_heat[half]] if half in truth_heat else [])]
      alts = [f'{what} of {one["clip"]}', *(f'the same: what speaks for {one[of]}' for of in ('verdict', 'truth'))]
      pictures = draw[half](one[half]['image'], heats)
      halves.append({'name': name, 'rows': list(zip(pictures, alts, strict=False))})
    examples.append({**one, 'truth_heat': bool(truth_heat), 'pictures': halves})
  return {'rule': saliency['rule'], 'examples': examples}


def environment() -> jinja2.Environment:
  """Escapes all that is put in: ids and paths of clips may hold anything."""
  made = jinja2.Environment(
    loader=jinja2.PackageLoader('emo_jax', 'report'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  by_name = (percent, points, number, duration, words, rival, chosen, verdict, sentence)
  made.filters |= {of.__name__: of for of in by_name} | {'p': probability}
  made.filters |= {'pretty': lambda value: json.dumps(value, indent=1, default=str, ensure_ascii=False)}
  return made


def write(
  folder: pathlib.Path,
  comparison: Mapping[str, Any] | None,
  *,
  run: Mapping[str, Any] | None = None,
  curves: Mapping[str, Any] | None = None,
  embedding: Mapping[str, Any] | None = None,
  saliency: Mapping[str, Any] | None = None,
) -> pathlib.Path:
  """Writes index.html; what is None is left out.

  Args:
    comparison: what report/comparison.py makes of the cells.
    run: command, config, git, versions, devices, started, seconds, stages (name -> made, reused), cells, failed.
    curves: what report/curves.py reads of a cell.
    embedding: what report/embedding.py makes of a cell.
    saliency: the rule by which clips were picked, and of each its verdict, picture and heat map of either half.
  """
  text = (
    environment()
    .get_template('page.html.j2')
    .render(
      c=comparison,
      protocols=[view(name, comparison) for name in comparison['protocols']] if comparison else [],
      run=run,
      curves=learning_panels(curves) if curves else None,
      embedding=embedding_panels(embedding) if embedding else None,
      saliency=saliency_pictures(saliency) if saliency and saliency['examples'] else None,
    )
  )
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / 'index.html'
  with files.whole(path) as file:
    file.write(text.lstrip())
  return path

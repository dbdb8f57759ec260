"""An ablation's tables: rows for CSVs, and report.md for people (pipeline step: report)."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from emo_jax.report.report import APART, PROTOCOL, standing, table

Dict = dict[str, Any]


def _flat(values: Dict) -> Dict:
  """Intervals as two columns, lists and what is nested in words or left out."""
  flat: Dict = {}
  for name, value in values.items():
    if name.endswith('interval'):
      flat |= {f'{name}_low': value[0], f'{name}_high': value[1]}
    elif name in ('rival', 'chosen') and isinstance(value, list):
      flat[name] = ' '.join(value)
    elif name == 'runs':
      flat[name] = len(value)
    elif not isinstance(value, (list, dict)):
      flat[name] = value
  flat.pop('calibration', None)
  return flat


def of(comparison: Dict) -> dict[str, list[Dict]]:
  """The CSVs' rows; in each the protocol comes first, for it may be copied out."""
  found: dict[str, list[Dict]] = {
    name: [] for name in ('contenders', 'speakers', 'contrasts', 'described', 'calibration')
  }
  for protocol, all_of in comparison['protocols'].items():
    stands = {'protocol': standing(protocol, leaks_allowed=comparison['leaks_allowed'])}
    found['contenders'] += [stands | _flat(row) for row in all_of['rows']]
    found['contrasts'] += [stands | _flat(contrast) for contrast in all_of['contrasts']]
    found['described'] += [stands | _flat(pair) for pair in all_of['described']]
    for row in all_of['rows']:
      named = {**stands, 'row': row['name']}
      found['speakers'] += [named | {'speaker': name} | values for name, values in row['per_speaker'].items()]
      for when in ('before', 'after') if row['calibration'] else ():
        whole = row['calibration'][when]
        told = named | {'scaling': when, 'ece': whole['ece'], 'nll': whole['nll']}
        found['calibration'] += [told | of_bin for of_bin in whole['bins']]
  return found


def _markdown_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
  line = lambda cells: [' '.join(str(cell).replace('|', '\\|').split()) for cell in cells]
  return ['', *table(line(head), map(line, rows)), '']


def _share(value: float | None, sign: str = '') -> str:
  return '' if value is None else f'{value:{sign}.3f}'


def _span(interval: Sequence[float | None], sign: str = '') -> str:
  return '' if interval[0] is None else ' to '.join(_share(end, sign) for end in interval)


def _contenders(of: Dict) -> list[str]:
  """The rows' tables: the figures, the speakers', the calibration."""
  rows, speakers = of['rows'], list(of['rows'][0]['per_speaker'])
  head = ['contender', 'level', 'what it is', 'runs', 'clips', 'accuracy', 'over speakers, 95 %', 'over clips, 95 %']
  lines = _markdown_table(
    [*head, 'deviation over seeds', 'UAR'],
    [
      [row['name'], row['level'], row['meaning'], len(row['runs']), row['clips'], _share(row['accuracy'])]
      + [_span(row['interval']), _span(row['clip_interval']), _share(row['deviation']), _share(row['uar'])]
      for row in rows
    ],
  )
  lines += ['Accuracy of each speaker:']
  lines += _markdown_table(
    ['contender', *speakers],
    [[row['name'], *(_share(row['per_speaker'][s]['accuracy']) for s in speakers)] for row in rows],
  )
  scaled = [(row['name'], row['calibration']) for row in rows if row['calibration']]
  if scaled:
    lines += ['Calibration before and after temperature scaling, fitted to held clips:']
    lines += _markdown_table(
      ['contender', 'temperature', 'ECE before', 'ECE after', 'NLL before', 'NLL after'],
      [
        [
          name,
          f'{np.exp(np.mean(np.log(of["temperature"]))):.2f}',
          *(_share(of[w][m]) for m in ('ece', 'nll') for w in ('before', 'after')),
        ]
        for name, of in scaled
      ],
    )
  return lines


def _pairs(of: Dict) -> list[str]:
  """The contrasts' tables: those that are tested, those that are described; what is most surely wrong."""
  compared = lambda c: [_share(c['difference'], '+'), _span(c['interval'], '+')]
  speakers = lambda c: f'{c["better"]} / {c["equal"]} / {c["worse"]}'
  lines = [
    'Contrasts named before looking; p by exact sign-flip over speakers (random flips beyond 16). Where a contrast '
    "names several rivals, each fold's is the one that is best on its held clips:"
  ]
  lines += _markdown_table(
    ['contrast', 'difference', 'over speakers, 95 %', 'p', 'p by Holm', 'd_z', 'speakers better / equal / worse'],
    [
      [c['name'], *compared(c), f'{c["p"]:.2g}', f'{c["p_holm"]:.2g}', _share(c['dz'], '+'), speakers(c)]
      for c in of['contrasts']
    ],
  )
  lines += ['All others beside the row of these contrasts, described, not tested:']
  lines += _markdown_table(
    ['contender', 'beside', 'difference', 'over speakers, 95 %', 'over clips, 95 %', "McNemar's p, over clips"]
    + ['speakers better / equal / worse'],
    [
      [d['row'], d['rival'], *compared(d), _span(d['clip_interval'], '+'), f'{d["mcnemar_p"]:.2g}', speakers(d)]
      for d in of['described']
    ],
  )
  if of['wrong']:
    lines += ['Most surely wrong:']
    lines += _markdown_table(
      list(of['wrong'][0]), [[*w.values()][:4] + [_share(w['probability']), w['fold']] for w in of['wrong']]
    )
  return lines


def markdown(comparison: Dict) -> str:
  """report.md: tables for people, one protocol after the other."""
  looks = comparison['looks']
  lines = [
    f'# {comparison["corpus"]}: {comparison["clips"]} clips, {len(comparison["speakers"])} {comparison["judged"]} '
    f'speakers, {len(comparison["classes"])} emotions, chance {comparison["chance"]:.3f}',
    '',
    f'Configurations judged on these clips so far, seeds apart, as this cache knows: {looks["test"]} on test speakers, '
    f'{looks["held"]} on held. {APART}',
    '',
    *(f'- {sentence}' for sentence in comparison['said']),
  ]
  for protocol, of in comparison['protocols'].items():
    stands = standing(protocol, leaks_allowed=comparison['leaks_allowed'])
    lines += ['', f'## {stands}', '', f'{protocol.capitalize()}: {PROTOCOL[protocol]}. {APART}']
    lines += [*_contenders(of), *_pairs(of)]
  lines += [
    '## Published',
    '',
    "The paper's figures, of its own folds, by networks that were trained on ImageNet and Sports-1M before:",
  ]
  figures = [[p['corpus'], p['method'], f'{p["accuracy"]:.4f}', p['sure']] for p in comparison['published']]
  return '\n'.join([*lines, *_markdown_table(['corpus', 'method', 'accuracy', 'how sure'], figures)]).rstrip() + '\n'

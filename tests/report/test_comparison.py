"""Contenders side by side, against slow counts over cells whose every verdict is known."""

import csv
import functools
import itertools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from emo_jax.evaluation import significance
from emo_jax.report import comparison
from emo_jax.report.cells import Cell, row_names
from emo_jax.report.report import APART

CLASSES = ['anger', 'fear', 'joy']
SPEAKERS = [f's{number}' for number in range(8)]
TAKES = 6
# Speakers two by two are a fold's; those of the next fold are held.
FOLD = {speaker: number // 2 for number, speaker in enumerate(SPEAKERS)}
CLIPS = {f'{speaker}_{take}': (speaker, take % 3) for speaker in SPEAKERS for take in range(TAKES)}
TEST = [(FOLD[speaker], clip) for clip, (speaker, _) in CLIPS.items()]
HELD = [((FOLD[speaker] - 1) % 4, clip) for clip, (speaker, _) in CLIPS.items()]
HALF = {'s0_1', 's5_2', 's5_5'}  # clips without a face, of s5 all of one class
Verdict = Callable[[int, str, int], int | None]  # fold, clip, seed -> class


def right_in(share: float, name: str) -> Verdict:
  """Right in about a share of clips, by chance, the same whenever it is asked."""

  def verdict(fold: int, clip: str, seed: int) -> int:
    truth = CLIPS[clip][1]
    draw = np.random.default_rng([*name.encode(), fold, seed, *clip.encode()]).random()
    return truth if draw < share else (truth + (1 if draw < (1 + share) / 2 else 2)) % 3

  return verdict


def with_face(verdict: Verdict) -> Verdict:
  return lambda fold, clip, seed: None if clip in HALF else verdict(fold, clip, seed)


VERDICTS: dict[str, Verdict] = {
  'audio': right_in(0.5, 'audio'),
  'visual': with_face(right_in(0.55, 'visual')),
  'concat': with_face(right_in(0.6, 'concat')),
  'mean': with_face(right_in(0.65, 'mean')),
  'hybrid': with_face(right_in(0.6, 'hybrid')),
}


def scores_of(verdict: int, clip: str) -> list[float]:
  """The verdict's is the highest, by what differs from clip to clip."""
  surety = 0.5 + int.from_bytes(clip.encode(), 'big') % 97 / 20
  return [surety if number == verdict else 0.1 * number for number in range(3)]


def write_table(path: pathlib.Path, cell: Cell, clips: list[tuple[int, str]], verdicts: Mapping[str, Verdict]) -> None:
  """A cell's CSV, as report.write_predictions writes it: without clips that nobody can judge."""
  with open(path, 'w', newline='', encoding='utf-8') as file:
    table = csv.writer(file)
    columns = [column for m in cell.methods for column in (m, *(f'{m}:{name}' for name in CLASSES))]
    table.writerow(['fold', 'clip', 'speaker', 'truth', 'protocol', *columns])
    for fold, clip in clips:
      speaker, truth = CLIPS[clip]
      judged = {method: verdicts[method](fold, clip, cell.seed + 10 * cell.nets_seed) for method in cell.methods}
      cells = [
        [''] * 4 if verdict is None else [CLASSES[verdict], *(f'{s:.6f}' for s in scores_of(verdict, clip))]
        for verdict in judged.values()
      ]
      if any(verdict is not None for verdict in judged.values()):
        table.writerow([fold, clip, speaker, CLASSES[truth], cell.protocol, *itertools.chain(*cells)])


def write_cell(
  folder: pathlib.Path,
  variant: str,
  methods: tuple[str, ...],
  *,
  seed: int = 0,
  nets_seed: int = 0,
  protocol: str = 'inductive',
  verdicts: Mapping[str, Verdict] = VERDICTS,
  held: bool = True,
  **facts: Any,
) -> Cell:
  """A finished cell."""
  path = folder / variant / f'{protocol}_nets{nets_seed}_seed{seed}'
  path.mkdir(parents=True)
  cell = Cell(variant, protocol, nets_seed, seed, path, methods)
  report = {
    'corpus': 'made',
    'protocol': protocol,
    'leaks_allowed': False,
    'judged': 'test',
    'classes': CLASSES,
    'split_digest': 'abc',
    'configurations_judged_on_test': 4 + seed,
    'configurations_judged_on_held': 9 - seed,
    'methods': {m: {'level': f'level of {m}', 'meaning': f'{variant}, {m}'} for m in methods},
  }
  (path / 'report.json').write_text(json.dumps(report | facts))
  write_table(path / 'predictions.csv', cell, TEST, verdicts)
  if held:
    write_table(path / 'held.csv', cell, HELD, verdicts)
  return cell


CONTRASTS = (('dbn', ('audio', 'visual')), ('dbn', 'concat'), ('dbn', 'mean'))


def write_cells(folder: pathlib.Path) -> list[Cell]:
  """An ablation in two protocols; the transductive one has one seed, and no mean."""
  make = functools.partial(write_cell, folder)
  cells = [make('single', ('audio', 'visual')), make('concat', ('concat',)), make('rules', ('mean',))]
  cells += [make('dbn', ('hybrid',), seed=seed) for seed in (2, 0, 1)]
  transductive = functools.partial(make, protocol='transductive')
  return [*cells, transductive('single', ('audio', 'visual')), transductive('dbn', ('hybrid',))]


@pytest.fixture(scope='module')
def compared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
  contrasts = (*CONTRASTS[:2], ('dbn', 'rules'))
  return comparison.compare(write_cells(tmp_path_factory.mktemp('cells')), contrasts)


def rights(method: str, seed: int) -> dict[str, bool]:
  """Of the clips that a method judges, as test clips."""
  judged = {clip: VERDICTS[method](fold, clip, seed) for fold, clip in TEST}
  return {clip: verdict == CLIPS[clip][1] for clip, verdict in judged.items() if verdict is not None}


def named(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
  return next(row for row in rows if row['name'] == name)


def test_rows_are_named_by_what_tells_them_apart() -> None:
  here = pathlib.Path()
  cell = lambda variant, *methods: Cell(variant, 'inductive', 0, 0, here, methods)
  names = row_names(
    [cell('single', 'audio', 'hybrid'), cell('dbn', 'hybrid'), cell('mean', 'max'), cell('r', 'mean', 'min')]
  )
  assert list(names.values()) == ['audio', 'single: hybrid', 'dbn', 'mean', 'r: mean', 'min']


def test_a_row_has_the_mean_over_its_runs(compared: dict[str, Any]) -> None:
  rows = compared['protocols']['inductive']['rows']
  assert [row['name'] for row in rows] == ['audio', 'visual', 'concat', 'rules', 'dbn']
  row = named(rows, 'dbn')
  accuracies = [np.mean(list(rights('hybrid', seed).values())) for seed in (0, 1, 2)]
  assert row['runs'] == [[0, 0], [0, 1], [0, 2]]
  assert row['accuracy_runs'] == pytest.approx(accuracies) and len(set(accuracies)) > 1
  assert row['accuracy'] == pytest.approx(np.mean(accuracies))
  assert row['deviation'] == pytest.approx(np.std(accuracies, ddof=1))
  assert row['clips'] == len(CLIPS) - len(HALF)
  assert (row['variant'], row['method'], row['level']) == ('dbn', 'hybrid', 'level of hybrid')
  assert row['meaning'] == 'dbn, hybrid'
  audio = named(rows, 'audio')
  assert audio['clips'] == len(CLIPS) and audio['deviation'] is None and audio['runs'] == [[0, 0]]
  assert np.sum(row['confusion']) == 3 * row['clips'] and np.sum(audio['confusion']) == len(CLIPS)
  assert np.trace(row['confusion']) == sum(sum(rights('hybrid', seed).values()) for seed in (0, 1, 2))


def test_uar_speakers_and_intervals_of_a_row(compared: dict[str, Any]) -> None:
  row = named(compared['protocols']['inductive']['rows'], 'dbn')
  runs = [rights('hybrid', seed) for seed in (0, 1, 2)]
  recall = lambda run, of: np.mean([right for clip, right in run.items() if CLIPS[clip][1] == of])
  uars = [np.mean([recall(run, of) for of in range(3)]) for run in runs]
  assert row['uar_runs'] == pytest.approx(uars) and row['uar'] == pytest.approx(np.mean(uars))
  assert row['uar_deviation'] == pytest.approx(np.std(uars, ddof=1))
  right, clips = [], []
  for speaker in SPEAKERS:
    own = [[run[clip] for clip in run if CLIPS[clip][0] == speaker] for run in runs]
    right.append(np.sum(own) / 3)
    clips.append(len(own[0]))
    of_speaker = row['per_speaker'][speaker]
    assert of_speaker['clips'] == clips[-1]
    assert of_speaker['accuracy'] == pytest.approx(right[-1] / clips[-1])
  assert row['per_speaker']['s5']['clips'] == TAKES - 2
  truths = [CLIPS[clip][1] for clip in runs[0] if CLIPS[clip][0] == 's5']
  of_class = lambda run, of: np.mean([run[c] for c in run if CLIPS[c] == ('s5', of)])
  wanted = np.mean([[of_class(run, of) for of in sorted(set(truths))] for run in runs])
  assert row['per_speaker']['s5']['uar'] == pytest.approx(wanted)
  assert row['interval'] == list(significance.bootstrap_interval(np.array(right), np.array(clips)) or ())
  assert row['clip_interval'] == list(significance.clip_interval(sum(right), sum(clips)) or ())
  held = [VERDICTS['hybrid'](fold, clip, seed) for fold, clip in HELD for seed in range(3)]
  truth = [CLIPS[clip][1] for _, clip in HELD for _ in range(3)]
  judged = [verdict == wanted for verdict, wanted in zip(held, truth, strict=True) if verdict is not None]
  assert row['held_accuracy'] == pytest.approx(np.mean(judged))


def sizes() -> list[int]:
  """Clips of each speaker with both halves."""
  return [sum(CLIPS[clip][0] == speaker for clip in CLIPS if clip not in HALF) for speaker in SPEAKERS]


def gains(first: Callable[[str, int], bool], second: Callable[[str, int], bool]) -> list[int]:
  """Of each speaker, over the clips with both halves and 3 seeds."""
  whole = [clip for clip in CLIPS if clip not in HALF]
  own = lambda speaker: [clip for clip in whole if CLIPS[clip][0] == speaker]
  return [
    sum(int(first(clip, seed)) - int(second(clip, seed)) for clip in own(speaker) for seed in range(3))
    for speaker in SPEAKERS
  ]


def check_contrast(contrast: dict[str, Any], wanted: list[int]) -> None:
  clips = len(CLIPS) - len(HALF)
  assert contrast['difference'] == pytest.approx(sum(wanted) / 3 / clips)
  assert contrast['p'] == significance.sign_flip(np.array(wanted))
  rates = np.array(wanted) / sizes()
  assert contrast['dz'] == pytest.approx(np.mean(rates) / np.std(rates, ddof=1))
  assert contrast['better'] == sum(gain > 0 for gain in wanted)
  assert contrast['equal'] == sum(gain == 0 for gain in wanted)
  assert contrast['worse'] == sum(gain < 0 for gain in wanted)
  weights = np.array([3 * sum(CLIPS[c][0] == speaker and c not in HALF for c in CLIPS) for speaker in SPEAKERS])
  assert contrast['interval'] == list(significance.bootstrap_interval(np.array(wanted), weights) or ())


def test_a_contrast_repeats_the_run_of_an_unseeded_rival(compared: dict[str, Any]) -> None:
  contrast = compared['protocols']['inductive']['contrasts'][1]
  assert (contrast['name'], contrast['row'], contrast['rival']) == ('dbn - concat', 'dbn', 'concat')
  check_contrast(contrast, gains(lambda c, seed: rights('hybrid', seed)[c], lambda c, _: rights('concat', 0)[c]))


def test_a_rival_is_chosen_in_each_fold_on_clips_that_all_could_judge(compared: dict[str, Any]) -> None:
  chosen = []
  for number in range(4):
    held = [(fold, clip) for fold, clip in HELD if fold == number and clip not in HALF]
    right = {m: sum(VERDICTS[m](fold, clip, 0) == CLIPS[clip][1] for fold, clip in held) for m in ('audio', 'visual')}
    chosen.append('visual' if right['visual'] > right['audio'] else 'audio')
  assert set(chosen) == {'audio', 'visual'}  # else this test shows little
  contrast = compared['protocols']['inductive']['contrasts'][0]
  assert contrast['name'] == 'dbn - audio or visual' and contrast['rival'] == ['audio', 'visual']
  assert contrast['chosen'] == chosen
  best = lambda clip: rights(chosen[FOLD[CLIPS[clip][0]]], 0)[clip]
  check_contrast(contrast, gains(lambda c, seed: rights('hybrid', seed)[c], lambda c, _: best(c)))


def test_contrasts_are_corrected_by_holm_within_a_protocol(compared: dict[str, Any]) -> None:
  inductive, transductive = (compared['protocols'][name]['contrasts'] for name in ('inductive', 'transductive'))
  assert len(inductive) == 3 and len(transductive) == 1
  assert [c['p_holm'] for c in inductive] == pytest.approx(significance.holm([c['p'] for c in inductive]))
  assert transductive[0]['p_holm'] == transductive[0]['p']


def test_contrasts_that_cannot_be_made_are_left_out_and_said(compared: dict[str, Any]) -> None:
  said = ' '.join(compared['said'])
  assert 'transductive, dbn - concat: left out, for concat was not run.' in said
  assert 'transductive, dbn - rules: left out, for rules was not run.' in said
  assert 'inductive, dbn - rules: left out' not in said


def test_ties_on_held_clips_go_to_the_first_named(tmp_path: pathlib.Path) -> None:
  same = VERDICTS | {'visual': VERDICTS['audio']}
  cells = [write_cell(tmp_path, 'all', ('audio', 'visual', 'hybrid'), verdicts=same)]
  for rivals in (('audio', 'visual'), ('visual', 'audio')):
    contrast = comparison.compare(cells, [('hybrid', rivals)])['protocols']['inductive']['contrasts'][0]
    assert contrast['chosen'] == [rivals[0]] * 4


def test_a_half_clip_that_only_one_could_judge_decides_nothing(tmp_path: pathlib.Path) -> None:
  """Held in fold 3 are s0, one of whose clips has no face, and s1."""
  right = {'audio': {'s0_1', 's1_0', 's1_1', 's1_2', 's1_3', 's1_4'}, 'visual': {f's1_{take}' for take in range(TAKES)}}
  knows = lambda method: lambda fold, clip, seed: (CLIPS[clip][1] + int(clip not in right[method])) % 3
  verdicts = VERDICTS | {'audio': knows('audio'), 'visual': with_face(knows('visual'))}
  cell = write_cell(tmp_path, 'all', ('audio', 'visual', 'hybrid'), verdicts=verdicts)
  contrasts = comparison.compare([cell], [('hybrid', ('audio', 'visual'))])['protocols']['inductive']['contrasts']
  assert contrasts[0]['chosen'] == ['audio', 'audio', 'audio', 'visual']


def test_without_held_clips_no_rival_can_be_chosen_and_nothing_is_calibrated(tmp_path: pathlib.Path) -> None:
  found = comparison.compare(
    [write_cell(tmp_path, 'all', ('audio', 'visual', 'hybrid'), held=False)], [('hybrid', ('audio', 'visual'))]
  )
  inductive = found['protocols']['inductive']
  assert inductive['contrasts'] == [] and 'no held clips to choose the rival on' in ' '.join(found['said'])
  assert all(row['calibration'] is None and row['held_accuracy'] is None for row in inductive['rows'])
  assert len(inductive['described']) == 2 and len(inductive['wrong']) > 0


def test_where_held_speakers_are_judged_nothing_is_chosen_on_them(tmp_path: pathlib.Path) -> None:
  cells = [write_cell(tmp_path, 'all', ('audio', 'visual', 'hybrid'), judged='held')]
  found = comparison.compare(cells, [('hybrid', ('audio', 'visual'))])
  assert found['judged'] == 'held' and found['protocols']['inductive']['contrasts'] == []
  assert found['protocols']['inductive']['rows'][0]['calibration'] is None


def test_an_effect_that_all_eight_speakers_share_has_the_smallest_p(tmp_path: pathlib.Path) -> None:
  truth = lambda fold, clip, seed: CLIPS[clip][1]
  verdicts = VERDICTS | {
    'hybrid': truth,
    'concat': lambda fold, clip, seed: (CLIPS[clip][1] + int(clip.endswith('0'))) % 3,
  }
  found = comparison.compare(
    [write_cell(tmp_path, 'all', ('concat', 'hybrid'), verdicts=verdicts)], [('hybrid', 'concat')]
  )
  contrast = found['protocols']['inductive']['contrasts'][0]
  assert contrast['p'] == contrast['p_holm'] == 2 / 256 == found['smallest_p']
  assert contrast['difference'] == pytest.approx(1 / 6) and contrast['interval'] == pytest.approx([1 / 6, 1 / 6])
  assert contrast['dz'] is None and (contrast['better'], contrast['equal'], contrast['worse']) == (8, 0, 0)
  described = found['protocols']['inductive']['described']
  assert [(d['row'], d['rival']) for d in described] == [('concat', 'hybrid')]
  assert described[0]['mcnemar_p'] == pytest.approx(2 / 2**8) and described[0]['worse'] == 8


def test_all_rows_are_described_beside_the_contrasts_row(compared: dict[str, Any]) -> None:
  described = compared['protocols']['inductive']['described']
  assert [(d['row'], d['rival']) for d in described] == [(row, 'dbn') for row in ('audio', 'visual', 'concat', 'rules')]
  wanted = gains(lambda c, _: rights('audio', 0)[c], lambda c, seed: rights('hybrid', seed)[c])
  clips = len(CLIPS) - len(HALF)
  assert described[0]['difference'] == pytest.approx(sum(wanted) / 3 / clips)
  assert described[0]['better'] == sum(gain > 0 for gain in wanted)
  assert described[0]['worse'] == sum(gain < 0 for gain in wanted)
  whole = [clip for clip in CLIPS if clip not in HALF]
  first, second = (np.array([rights(m, 0)[c] for c in whole]) for m in ('audio', 'hybrid'))
  assert described[0]['mcnemar_p'] == significance.mcnemar(first, second)
  mean = np.mean([[rights('hybrid', seed)[c] for c in whole] for seed in range(3)], axis=0)
  wide = significance.bootstrap_interval(first - mean, np.ones(clips))
  assert described[0]['clip_interval'] == pytest.approx(wide, abs=0.02)  # the order of clips is another
  assert not any('p' in d or 'p_holm' in d for d in described)


def softmax(scores: list[float]) -> np.ndarray:
  return np.exp(scores) / np.sum(np.exp(scores))


def test_the_most_surely_wrong_are_of_the_mean_over_runs(compared: dict[str, Any], tmp_path: pathlib.Path) -> None:
  cells = [write_cell(tmp_path, 'dbn', ('hybrid',), seed=seed, held=False) for seed in range(2)]
  wrong = comparison.compare(cells, [('dbn', 'none')])['protocols']['inductive']['wrong']
  wanted = []
  for fold, clip in TEST:
    if clip not in HALF:
      verdicts = [VERDICTS['hybrid'](fold, clip, seed) for seed in range(2)]
      mean = np.mean([softmax(scores_of(verdict or 0, clip)) for verdict in verdicts], axis=0)
      if mean.argmax() != CLIPS[clip][1]:
        wanted.append((clip, CLASSES[mean.argmax()], float(mean.max()), fold))
  wanted = sorted(wanted, key=lambda one: -one[2])[:12]
  assert [w['probability'] for w in wrong] == pytest.approx([one[2] for one in wanted], abs=1e-6)
  assert {(w['clip'], w['verdict'], w['fold']) for w in wrong[:10]} <= {(c, v, f) for c, v, _, f in wanted}
  assert all(w['truth'] == CLASSES[CLIPS[w['clip']][1]] and w['speaker'] == CLIPS[w['clip']][0] for w in wrong)
  assert len(compared['protocols']['inductive']['wrong']) == 12


def test_what_is_surely_wrong_is_as_sure_as_after_calibration(tmp_path: pathlib.Path) -> None:
  found = comparison.compare([write_cell(tmp_path, 'audio', ('audio',))], [('audio', 'none')])['protocols']['inductive']
  temperature = found['rows'][0]['calibration']['temperature']
  assert len(found['wrong']) == 12
  for w in found['wrong']:
    scores = np.array(scores_of(CLASSES.index(w['verdict']), w['clip']))
    assert w['probability'] == pytest.approx(softmax(scores / temperature[w['fold']]).max(), abs=1e-5)


def test_temperatures_are_of_each_folds_held_clips(compared: dict[str, Any]) -> None:
  """Found again on a grid, fold by fold; after scaling the held clips' log-loss is least."""
  calibration = named(compared['protocols']['inductive']['rows'], 'audio')['calibration']
  for number, temperature in enumerate(calibration['temperature']):
    held = [(clip, VERDICTS['audio'](fold, clip, 0)) for fold, clip in HELD if fold == number]
    scores = np.array([np.round(scores_of(verdict or 0, clip), 6) for clip, verdict in held])
    truth = [CLIPS[clip][1] for clip, _ in held]
    loss = lambda t, s=scores, y=truth: -np.mean(np.log([softmax(row / t)[k] for row, k in zip(s, y, strict=True)]))
    grid = np.geomspace(0.5, 100, 800)
    assert temperature == pytest.approx(grid[np.argmin([loss(t) for t in grid])], rel=0.01)
  assert calibration['after']['ece'] < calibration['before']['ece']
  assert sum(b['clips'] for b in calibration['before']['bins']) == len(CLIPS)
  of_runs = named(compared['protocols']['inductive']['rows'], 'dbn')['calibration']
  assert sum(b['clips'] for b in of_runs['after']['bins']) == 3 * (len(CLIPS) - len(HALF))


def test_a_folds_temperature_is_the_geometric_mean_over_runs(compared: dict[str, Any], tmp_path: pathlib.Path) -> None:
  rows = [
    comparison.compare([write_cell(tmp_path, 'dbn', ('hybrid',), seed=seed)], [])['protocols']['inductive']['rows'][0]
    for seed in range(3)
  ]
  alone = np.array([row['calibration']['temperature'] for row in rows])
  together = named(compared['protocols']['inductive']['rows'], 'dbn')['calibration']['temperature']
  assert together == pytest.approx(np.prod(alone, axis=0) ** (1 / 3)) and np.ptp(alone) > 0


def test_network_seeds_pair_with_themselves_and_deviations_are_of_fusion_seeds(tmp_path: pathlib.Path) -> None:
  make = functools.partial(write_cell, tmp_path)
  cells = [make('dbn', ('hybrid',), nets_seed=n, seed=s) for n in (0, 1) for s in (0, 1)]
  cells += [make('concat', ('concat',), nets_seed=n) for n in (0, 1)]
  inductive = comparison.compare(cells, [('dbn', 'concat')])['protocols']['inductive']
  row = named(inductive['rows'], 'dbn')
  of = lambda n, s: np.mean(list(rights('hybrid', s + 10 * n).values()))
  within = [np.std([of(n, 0), of(n, 1)], ddof=1) for n in (0, 1)]
  assert row['deviation'] == pytest.approx(np.mean(within))
  whole = [clip for clip in CLIPS if clip not in HALF]
  paired = [
    rights('hybrid', s + 10 * n)[clip] - int(rights('concat', 10 * n)[clip])
    for clip in whole
    for n in (0, 1)
    for s in (0, 1)
  ]
  assert inductive['contrasts'][0]['difference'] == pytest.approx(np.mean(paired))
  by_speaker = [
    sum(paired[4 * i + j] for i, c in enumerate(whole) if CLIPS[c][0] == s for j in range(4)) for s in SPEAKERS
  ]
  assert inductive['contrasts'][0]['p'] == significance.sign_flip(np.array(by_speaker))


def test_networks_that_only_one_of_two_has_are_not_paired(tmp_path: pathlib.Path) -> None:
  cells = [write_cell(tmp_path, 'dbn', ('hybrid',), nets_seed=n) for n in (0, 1)] + [
    write_cell(tmp_path, 'c', ('concat',))
  ]
  contrast = comparison.compare(cells, [('dbn', 'c')])['protocols']['inductive']['contrasts'][0]
  whole = [clip for clip in CLIPS if clip not in HALF]
  gain = [rights('hybrid', 0)[clip] - int(rights('concat', 0)[clip]) for clip in whole]
  assert contrast['difference'] == pytest.approx(np.mean(gain))


def test_an_unseeded_method_beside_a_seeded_one_has_one_run(tmp_path: pathlib.Path) -> None:
  cells = [write_cell(tmp_path, 'both', ('concat', 'hybrid'), seed=seed) for seed in range(3)]
  rows = comparison.compare(cells, [])['protocols']['inductive']['rows']
  assert [row['runs'] for row in rows] == [[[0, 0]], [[0, 0], [0, 1], [0, 2]]]
  assert rows[0]['deviation'] is None


def test_runs_that_failed_are_not_paired_and_said(tmp_path: pathlib.Path) -> None:
  make = functools.partial(write_cell, tmp_path)
  cells = [make('dbn', ('hybrid',), seed=seed) for seed in (0, 2)] + [make('fc', ('hybrid',), seed=s) for s in (1, 2)]
  failed = [
    Cell('dbn', 'inductive', 0, 1, tmp_path / 'none', ('hybrid',)),
    Cell('x', 'inductive', 0, 0, tmp_path, ('hybrid',)),
  ]
  found = comparison.compare(cells, [('dbn', 'fc'), ('dbn', 'x')], failed=failed)
  assert [c['name'] for c in found['protocols']['inductive']['contrasts']] == ['dbn - fc']
  assert 'dbn/inductive_nets0_seed1, x/inductive_nets0_seed0' in ' '.join(found['said'])
  assert found['protocols']['inductive']['contrasts'][0]['equal'] == 8  # seed 2 of both is the same here
  assert [row['name'] for row in found['protocols']['inductive']['rows']] == ['dbn', 'fc']
  apart = comparison.compare([cells[0], cells[2]], [('dbn', 'fc')])
  assert apart['protocols']['inductive']['contrasts'] == [] and 'they share no run' in ' '.join(apart['said'])
  assert apart['protocols']['inductive']['described'] == []


@pytest.mark.parametrize(
  ('facts', 'match'),
  [
    ({'classes': ['fear', 'anger', 'joy']}, 'classes'),
    ({'split_digest': 'other'}, 'split_digest'),
    ({'judged': 'held'}, 'judged'),
    ({'corpus': 'other'}, 'corpus'),
    ({'protocol': 'transductive'}, 'protocol'),
  ],
)
def test_a_cell_that_was_judged_on_something_else_is_named(
  tmp_path: pathlib.Path, facts: dict[str, Any], match: str
) -> None:
  cells = [write_cell(tmp_path, 'audio', ('audio',))]
  other = write_cell(tmp_path, 'visual', ('visual',))
  report = json.loads((other.folder / 'report.json').read_text())
  (other.folder / 'report.json').write_text(json.dumps(report | facts))
  with pytest.raises(ValueError, match=rf'cell visual/inductive_nets0_seed0: its {match} is'):
    comparison.compare([*cells, other], [])


@pytest.mark.parametrize(
  ('file', 'old', 'new', 'match'),
  [
    ('predictions.csv', 's1,anger', 's1,fear', 'another speaker or truth'),
    ('held.csv', 's1,', 's7,', 'another speaker or truth'),
    ('predictions.csv', ',anger,inductive', ',awe,inductive', 'KeyError.*awe'),
    ('predictions.csv', 'visual:anger', 'visual:awe', 'KeyError.*visual:anger'),
    ('predictions.csv', ',0.200000', ',nan', 'scores that are no numbers'),
    ('predictions.csv', ',0.200000', ',much', 'ValueError'),
  ],
)
def test_files_that_disagree_or_are_not_whole_are_named(
  tmp_path: pathlib.Path, file: str, old: str, new: str, match: str
) -> None:
  cells = [write_cell(tmp_path, 'audio', ('audio',)), write_cell(tmp_path, 'visual', ('visual',))]
  path = cells[1].folder / file
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new, 1))
  with pytest.raises(ValueError, match=rf'cell visual/inductive_nets0_seed0: .*{match}'):
    comparison.compare(cells, [])


def test_runs_of_a_row_that_judged_other_clips_are_named(tmp_path: pathlib.Path) -> None:
  cells = [write_cell(tmp_path, 'dbn', ('hybrid',))]
  cells += [write_cell(tmp_path, 'dbn', ('hybrid',), seed=1, verdicts={'hybrid': right_in(0.5, 'x')})]
  with pytest.raises(ValueError, match=r'cell dbn/inductive_nets0_seed1: hybrid has judged other clips'):
    comparison.compare(cells, [])


def test_a_clip_in_another_fold_is_another_clip(tmp_path: pathlib.Path) -> None:
  """A speaker may be held in one fold and judged in another: fold and clip name a line."""
  found = comparison.compare([write_cell(tmp_path, 'audio', ('audio',))], [('audio', 'none')])
  assert found['clips'] == len(CLIPS)
  assert {(w['fold'], w['clip']) for w in found['protocols']['inductive']['wrong']} <= set(TEST)


def test_minus_infinity_for_a_class_that_was_not_learnt(tmp_path: pathlib.Path) -> None:
  cell = write_cell(tmp_path, 'audio', ('audio',))
  for name in ('predictions.csv', 'held.csv'):
    path = cell.folder / name
    path.write_text(path.read_text().replace(',0.000000', ',-inf'))
  found = comparison.compare([cell], [('audio', 'none')])
  row = found['protocols']['inductive']['rows'][0]
  assert np.isfinite(row['calibration']['after']['nll']) and np.isfinite(row['calibration']['temperature']).all()
  comparison.write(tmp_path / 'report', found)


def test_what_the_number_of_speakers_can_show_is_said(compared: dict[str, Any], tmp_path: pathlib.Path) -> None:
  said = ' '.join(compared['said'])
  assert 'With 8 speakers the smallest two-sided p of the sign-flip test over speakers is 0.0078.' in said
  assert 'fewer than 6 speakers share' in said and 'first of 3 contrasts has to be shared by 7 speakers.' in said
  assert APART in compared['said'] and 'NOT speaker-independent' not in said
  few = [clip for clip in TEST if clip[0] == 0]
  cell = write_cell(tmp_path, 'all', ('concat', 'hybrid'), leaks_allowed=True)
  for name, clips in (('predictions.csv', few), ('held.csv', HELD)):
    write_table(cell.folder / name, cell, clips, VERDICTS)
  found = comparison.compare([cell], [('hybrid', 'concat')])
  said = ' '.join(found['said'])
  assert 'Fewer than 6 speakers can show no difference' in said and 'NOT speaker-independent' in said
  assert 'would be found' not in said and APART not in said and found['smallest_p'] == 0.5
  assert found['protocols']['inductive']['contrasts'][0]['p'] >= 0.5


def test_the_difference_that_would_be_found_follows_the_spread(compared: dict[str, Any]) -> None:
  wanted = gains(lambda c, seed: rights('hybrid', seed)[c], lambda c, _: rights('concat', 0)[c])
  least = 100 * significance.detectable_effect(8) * np.std(np.array(wanted) / 3 / sizes(), ddof=1)
  sentence = next(said for said in compared['said'] if said.startswith('inductive, dbn - concat:'))
  assert f'about {least:.2g} points' in sentence


def test_the_rest_of_the_dict(compared: dict[str, Any]) -> None:
  assert compared['corpus'] == 'made' and compared['classes'] == CLASSES and compared['speakers'] == SPEAKERS
  assert compared['chance'] == pytest.approx(1 / 3) and compared['clips'] == len(CLIPS)
  assert compared['looks'] == {'test': 6, 'held': 9} and compared['leaks_allowed'] is False
  assert list(compared['protocols']) == ['inductive', 'transductive']
  json.dumps(compared, allow_nan=False)


def test_published_figures_say_how_sure_they_are(tmp_path: pathlib.Path) -> None:
  figures = comparison.compare([write_cell(tmp_path, 'audio', ('audio',), corpus='baum1s')], [])['published']
  assert [figure['corpus'] for figure in figures[:3]] == ['baum1s'] * 3
  assert figures[0] == {'corpus': 'baum1s', 'method': 'DBN fusion', 'accuracy': 0.5457, 'sure': 'verified in a survey'}
  sure = {(f['corpus'], f['accuracy']) for f in figures if f['sure'] != 'unverified'}
  assert sure == {('rml', 0.8036), ('enterface05', 0.8597), ('baum1s', 0.5457)} and len(figures) == 9


def listed(path: pathlib.Path) -> list[dict[str, str]]:
  with open(path, newline='', encoding='utf-8') as file:
    return list(csv.DictReader(file))


def test_csvs_hold_the_figures(compared: dict[str, Any], tmp_path: pathlib.Path) -> None:
  comparison.write(tmp_path / 'report', compared)
  folder = tmp_path / 'report'
  assert json.loads((folder / 'comparison.json').read_text()) == compared
  contenders = listed(folder / 'contenders.csv')
  assert [(row['protocol'], row['name']) for row in contenders[4:]] == [
    ('inductive', 'dbn'),
    ('transductive', 'audio'),
    ('transductive', 'visual'),
    ('transductive', 'dbn'),
  ]
  row = named(compared['protocols']['inductive']['rows'], 'dbn')
  assert float(contenders[4]['accuracy']) == row['accuracy'] and contenders[4]['runs'] == '3'
  assert [float(contenders[4][f'interval_{end}']) for end in ('low', 'high')] == row['interval']
  assert contenders[0]['deviation'] == '' and list(contenders[0]) == list(contenders[4])
  assert not {'confusion', 'calibration', 'per_speaker'} & set(contenders[0])
  contrasts = listed(folder / 'contrasts.csv')
  assert len(contrasts) == 4 and contrasts[0]['rival'] == 'audio visual'
  assert float(contrasts[1]['p_holm']) == compared['protocols']['inductive']['contrasts'][1]['p_holm']
  assert len(listed(folder / 'described.csv')) == 4 + 2
  speakers = listed(folder / 'speakers.csv')
  assert len(speakers) == 8 * 8 and speakers[1]['speaker'] == 's1' and speakers[1]['row'] == 'audio'
  assert len(listed(folder / 'calibration.csv')) == 8 * 2 * 10


def test_the_report_keeps_the_protocols_apart(compared: dict[str, Any]) -> None:
  text = comparison.tables.markdown(compared)
  inductive, transductive = text.index('## inductive'), text.index('## transductive')
  assert inductive < transductive and APART in text[:inductive]
  assert APART in text[inductive:transductive] and APART in text[transductive:]
  assert 'a clip is judged by itself alone' in text[inductive:transductive]
  assert '| rules |' in text[inductive:transductive] and '| rules |' not in text[transductive:]
  assert all(f'- {sentence}' in text for sentence in compared['said'])
  assert '*' not in text and 'unverified' in text and '0.8036' in text
  other = json.loads(json.dumps(compared))
  named(other['protocols']['inductive']['rows'], 'dbn').update(accuracy=0.1234, interval=[0.1, 0.2], uar=0.5678)
  line = next(line for line in comparison.tables.markdown(other).splitlines() if line.startswith('| dbn |'))
  assert '| 0.123 | 0.100 to 0.200 |' in line and line.endswith('| 0.568 |')


def test_an_empty_ablation_of_one_row_is_written(tmp_path: pathlib.Path) -> None:
  """No contrasts, nobody held, a speaker without a clip to judge, and a bar in a name."""
  bare = {'hybrid': lambda fold, clip, seed: None if clip.startswith('s0') else 0, 'audio': VERDICTS['audio']}
  found = comparison.compare([write_cell(tmp_path, 'all', ('audio', 'hybrid'), verdicts=bare, held=False)], [])
  row = named(found['protocols']['inductive']['rows'], 'hybrid')
  assert row['per_speaker']['s0'] == {'clips': 0, 'accuracy': None, 'uar': None}
  found['protocols']['inductive']['rows'][0]['meaning'] = 'a | b'
  comparison.write(tmp_path / 'report', found)
  assert (tmp_path / 'report' / 'contrasts.csv').read_text() == ''
  assert '| a \\| b |' in (tmp_path / 'report' / 'report.md').read_text()


def test_a_row_that_judged_nothing_has_no_intervals(tmp_path: pathlib.Path) -> None:
  blind: dict[str, Verdict] = {'audio': VERDICTS['audio'], 'visual': lambda fold, clip, seed: None}
  found = comparison.compare([write_cell(tmp_path, 'all', ('audio', 'visual'), verdicts=blind)], [('audio', 'visual')])
  row = named(found['protocols']['inductive']['rows'], 'visual')
  assert row['clips'] == 0 and row['interval'] == row['clip_interval'] == [None, None] and row['calibration'] is None
  assert found['protocols']['inductive']['contrasts'] == [] and 'share no run or no clip' in ' '.join(found['said'])
  comparison.write(tmp_path / 'report', found)

"""Sweeps: which cells there are, what is refused before anything runs, what is counted."""

import json
import pathlib
import types
from typing import Any

import pytest
from ml_collections import config_dict

from emo_jax import experiment, grid, summary, sweep
from emo_jax.context import Unusable
from emo_jax.evaluation.folds import Fold
from tests import tiny, tiny_sweep


def swept(**changes: Any) -> Any:
  """The tiny sweep, locked as launch.py has it."""
  config = tiny_sweep.get_config()
  config.sweep.update({'normalise': ('none',), 'seeds': (3, 4), **changes})
  return config.lock()


def of_variants(**variants: Any) -> Any:
  """A sweep of these alone."""
  config = tiny_sweep.get_config()
  with config.unlocked():
    config.sweep.variants = config_dict.ConfigDict(variants)
  config.sweep.contrasts = ()
  return config.lock()


def test_each_variant_meets_each_protocol_network_and_seed_that_acts_on_it() -> None:
  wanted = sweep.cells(swept(normalise=('none', 'speaker'), nets_seeds=(0, 7)))
  assert len({cell.name for cell in wanted}) == len(wanted)
  found = {cell[:4] for cell in wanted}
  runs = [(protocol, nets) for protocol in ('inductive', 'transductive') for nets in (0, 7)]
  unseeded = {('nets', *run, 3) for run in runs}
  assert found == unseeded | {(variant, *run, s) for run in runs for s in (3, 4) for variant in ('dbn', 'broken')}
  for variant, protocol, nets_seed, seed, config in wanted:
    assert (config.nets_seed, config.seed) == (nets_seed, seed)
    assert config.normalise == {'inductive': 'none', 'transductive': 'speaker'}[protocol]
    assert config.methods == tiny_sweep.get_config().sweep.variants[variant].methods
    assert config.fusion.rbm.lr == (1e30 if variant == 'broken' else 0.1)
    assert config.is_locked and not config.sweep.variants
  assert wanted[0].name == 'broken/inductive_nets0_seed3'


def test_what_is_set_for_the_sweep_holds_in_each_cell_where_no_variant_says_otherwise() -> None:
  config = swept()
  config.svm.c = 0.25
  config.fusion.rbm.lr = 0.5
  assert {cell.config.svm.c for cell in sweep.cells(config)} == {0.25}
  rates = {cell.variant: cell.config.fusion.rbm.lr for cell in sweep.cells(config)}
  assert rates == {'broken': 1e30, 'dbn': 0.5, 'nets': 0.5}


def test_cells_share_nothing_that_can_be_changed() -> None:
  config = swept()
  first, *others = sweep.cells(config)
  first.config.nets_seed = 99
  first.config.audio.optim.lr = 99.0
  assert config.nets_seed is None and {cell.config.nets_seed for cell in others} == {0}
  assert not any(cell.config.audio.optim.lr == 99.0 for cell in others)


def test_seeds_make_no_difference_to_what_counts_as_another_configuration() -> None:
  """A cell is what the same experiment would be by itself, whatever else is in the sweep."""
  small, large = (swept(seeds=seeds, nets_seeds=nets) for seeds, nets in (((3,), (0,)), ((3, 4, 5), (0, 1))))
  by_name = {cell.name: cell.config.to_dict() for cell in sweep.cells(large)}
  for cell in sweep.cells(small):
    assert cell.config.to_dict() == by_name[cell.name]


@pytest.mark.parametrize(
  ('variants', 'message'),
  [
    ({'odd': {'fusion': {'rbm': {'rate': 1}}}}, r'variants\.odd\.fusion\.rbm\.rate: the config has no such field'),
    ({'odd': {'svmc': 1}}, r'variants\.odd\.svmc: the config has no such field'),
    ({'odd': {'pool': 3}}, r'variants\.odd\.pool=3'),
    ({'odd': {'svm': 3}}, r'variants\.odd\.svm=3'),
    ({'odd': {'seed': 3}}, r'variants\.odd\.seed: the sweep sets this field'),
    ({'odd': {'executor': {'workers': 3}}}, r'variants\.odd\.executor\.workers: the sweep sets'),
    ({'odd/one': {'pool': 'max'}}, "'odd/one' names a folder"),
  ],
)
def test_a_variant_that_cannot_be_is_named_with_its_field(variants: Any, message: str) -> None:
  with pytest.raises(Unusable, match=message):
    sweep.cells(of_variants(good={'pool': 'max'}, **variants))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'seeds': ()}, r'sweep\.seeds=\(\): at least one'),
    ({'nets_seeds': (1, 1)}, r'sweep\.nets_seeds=\(1, 1\): .* each once'),
    ({'normalise': ('clip',)}, r"\['clip'\] unknown; use none or speaker"),
  ],
)
def test_seeds_and_protocols_that_cannot_be_are_refused(changes: Any, message: str) -> None:
  with pytest.raises(Unusable, match=message):
    sweep.cells(swept(**changes))


@pytest.mark.parametrize(('field', 'value'), [('seed', 9), ('nets_seed', 7), ('normalise', 'speaker')])
def test_what_the_sweep_sets_for_each_cell_is_not_to_be_set_beside_it(field: str, value: Any) -> None:
  config = swept(normalise=('none',), seeds=(1, 2))
  assert sweep.cells(config)  # a seed of 0 is nobody's wish
  config[field] = value
  with pytest.raises(Unusable, match=f'config.{field}={value!r}: the sweep sets it .* set config.sweep'):
    sweep.cells(config)


@pytest.mark.parametrize(
  ('contrasts', 'message'),
  [
    ((('dbn', 'sum'),), r"nobody is called \['sum'\]; use audio, broken, concat, dbn, mean, visual"),
    ((('nets', 'dbn'),), r"nobody is called \['nets'\]"),  # it judges four
    ((('dbn', ('audio', 'video')),), r"\['video'\]"),
    ((('dbn',),), 'a name and its rival'),
    (('dbn', 'concat'), 'a name and its rival'),
  ],
)
def test_contrasts_of_nobody_are_refused_before_anything_runs(contrasts: Any, message: str) -> None:
  with pytest.raises(Unusable, match=message):
    grid.check_contrasts(contrasts, sweep.cells(swept()), [])


def test_the_best_of_several_rivals_needs_held_speakers() -> None:
  wanted = sweep.cells(swept())
  for held, refused in ((('b',), False), ((), True)):
    x: Any = types.SimpleNamespace(folds=[Fold(train=('c',), held=held, test=('a',))])
    grid.check_contrasts((('dbn', 'concat'),), wanted, [x])
    if refused:
      with pytest.raises(Unusable, match='is chosen on held clips'):
        grid.check_contrasts((('dbn', ('audio', 'visual')),), wanted, [x])
    else:
      grid.check_contrasts((('dbn', ('audio', 'visual')),), wanted, [x])


def test_a_cell_of_each_pair_of_networks_comes_first() -> None:
  methods = {'methods': ('concat',)}
  wide = {'audio': {'width': 0.5}}
  config = of_variants(a=methods, b=methods, c={**methods, **wide}, d={**methods, **wide})
  config.sweep.nets_seeds = (0, 1)
  config.sweep.normalise = ('none',)
  names = [cell.name.removesuffix('_seed0') for cell in grid.in_order(sweep.cells(config))]
  assert names[:4] == ['a/inductive_nets0', 'c/inductive_nets0', 'a/inductive_nets1', 'c/inductive_nets1']
  assert names[4:] == ['b/inductive_nets0', 'd/inductive_nets0', 'b/inductive_nets1', 'd/inductive_nets1']


def test_a_cell_that_fails_says_why_and_leaves_the_rest_in_its_log(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
  config = tiny.get_config()

  def fails(error: Exception) -> Any:
    def set_up(*_: Any) -> Any:
      print('so far so good')
      raise error

    monkeypatch.setattr(experiment, 'set_up', set_up)
    return sweep.run_cell(config, str(tmp_path / 'cell'))[1]

  assert fails(Unusable('no clips at all')) == 'no clips at all'
  assert fails(FloatingPointError('it is NaN')) == 'FloatingPointError: it is NaN'
  log = (tmp_path / 'cell' / 'log.txt').read_text()
  assert log.count('so far so good') == 2 and log.count('Traceback') == 1
  assert capsys.readouterr().out == '' and not (tmp_path / 'cell' / sweep.DONE).exists()
  with pytest.raises(KeyboardInterrupt):
    fails(KeyboardInterrupt())  # type: ignore[arg-type]


def test_a_cell_is_done_once_its_report_is_written_from_what_would_be_used_today(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  config = tiny.get_config()
  used = {'fusion': ['fusion/a', 'fusion/b'], 'decide/audio': ['decide/audio/c']}
  for name in ('fusion/a', 'fusion/b', 'decide/audio/c', 'decide/audio/d'):
    (tmp_path / name).mkdir(parents=True)
  monkeypatch.setattr(experiment, 'set_up', lambda config, workdir: pathlib.Path(workdir))
  monkeypatch.setattr(experiment, 'run', lambda x: (x / 'stages.json').write_text(json.dumps(used)))
  monkeypatch.setattr(experiment, 'plan', lambda x: None)
  x: Any = types.SimpleNamespace(cache=tmp_path, made={})

  def done(*decided: str) -> bool:
    x.made = {'fusion': [tmp_path / 'fusion/a', tmp_path / 'fusion/b'], 'decide/audio': [tmp_path / d for d in decided]}
    return sweep._done(tmp_path, x)

  config.until = 'features'
  assert sweep.run_cell(config, str(tmp_path))[1] == ''
  assert not done('decide/audio/c')
  config.until = 'report'
  sweep.run_cell(config, str(tmp_path))
  assert done('decide/audio/c')
  assert not done('decide/audio/d')  # other clips, code or config than it was run with
  (tmp_path / 'decide/audio/c').rmdir()
  assert not done('decide/audio/c')


def test_medians_are_of_each_stage(tmp_path: pathlib.Path) -> None:
  assert sweep.median_seconds(tmp_path) == {}
  taken = [('fusion', 1.0), ('fusion', 9.0), ('fusion', 2.0), ('decide/audio', 4.0), ('decide/audio', 6.0)]
  lines = [json.dumps({'stage': s, 'digest': 'd', 'seconds': t, 'time': 0.0}) for s, t in taken]
  (tmp_path / 'executions.jsonl').write_text('\n'.join(lines))
  assert sweep.median_seconds(tmp_path) == {'fusion': 2.0, 'decide/audio': 5.0}


def test_a_folder_counts_as_made_where_this_sweep_made_it_and_reused_each_further_time(tmp_path: pathlib.Path) -> None:
  used = {
    'a': {'fusion': ['fusion/f0', 'fusion/f1'], 'decide/audio': ['decide/audio/x'], 'features': ['features/old']},
    'b': {'fusion': ['fusion/f0', 'fusion/f2'], 'decide/audio': ['decide/audio/y'], 'features': ['features/old']},
  }
  for name, folders in used.items():
    (tmp_path / 'cells' / name).mkdir(parents=True)
    (tmp_path / 'cells' / name / 'stages.json').write_text(json.dumps(folders))
  made = [('features', 'old', 50.0)] + [
    (s, d, 150.0) for s in ('fusion', 'decide/audio') for d in ('f0', 'f1', 'x', 'z')
  ]
  lines = [json.dumps({'stage': s, 'digest': d, 'seconds': 1.0, 'time': t}) for s, d, t in made]
  (tmp_path / 'executions.jsonl').write_text('\n'.join(lines))
  counts = summary.stage_counts(tmp_path, [tmp_path / 'cells' / name for name in used], '1970-01-01T00:01:40+00:00')
  assert counts == {
    'fusion': {'made': 2, 'reused': 2},
    'decide': {'made': 1, 'reused': 1},
    'features': {'made': 0, 'reused': 2},
  }

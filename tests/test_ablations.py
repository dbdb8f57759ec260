"""The ablations that ship: each can be run on every corpus, and asks what it says."""

import importlib
import pathlib
from typing import Any

import pytest

from configs.ablations import bases
from emo_jax import contenders, experiment, grid, sweep
from emo_jax.corpora import demo
from tests import tiny

REPO = pathlib.Path(__file__).parents[1]
ABLATIONS = sorted(path.stem for path in (REPO / 'configs' / 'ablations').glob('*.py') if path.stem != 'bases')
HELD: Any = type('Held', (), {'folds': ()})


def ablation(name: str, *base: str) -> Any:
  return importlib.import_module(f'configs.ablations.{name}').get_config(*base).lock()


def test_all_of_them_are_here() -> None:
  assert ABLATIONS == ['depth', 'finetune', 'frontend', 'fusion', 'modality', 'pooling']


@pytest.mark.parametrize('base', ['java_sed', 'rml', 'rml:slim', 'demo'])
@pytest.mark.parametrize('name', ABLATIONS)
def test_variants_fit_the_config_and_contrasts_name_their_rows(name: str, base: str) -> None:
  config = ablation(name, base)
  wanted = sweep.cells(config)
  grid.check_contrasts(config.sweep.contrasts, wanted, [HELD])
  assert config.sweep.contrasts and config.data.held == 1
  assert config.data.corpus == base.split(':')[0]
  assert {method for cell in wanted for method in cell.config.methods} <= contenders.CONTENDERS.keys()


@pytest.mark.parametrize('name', ABLATIONS)
def test_they_start_from_java_sed_unless_told_otherwise(name: str) -> None:
  assert ablation(name) == ablation(name, 'java_sed')


@pytest.mark.parametrize('name', ABLATIONS)
def test_their_values_can_be_run(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
  """On tiny clips and networks, with the variants of the ablation."""
  root = tmp_path_factory.getbasetemp() / 'clips'
  demo.read(root, **tiny.get_config().data.demo)
  config = tiny.get_config()
  config.data.update({'held': 1, 'root': str(root)})
  config.sweep.update(ablation(name).sweep)
  for variant in {cell.variant: cell for cell in sweep.cells(config.lock())}.values():
    experiment.look_over(variant.config, str(tmp_path_factory.getbasetemp() / 'w'))


def test_fusion_judges_everybody() -> None:
  judged = [method for variant in ablation('fusion').sweep.variants.values() for method in variant.methods]
  kinds = {v.fusion.kind for v in ablation('fusion').sweep.variants.values() if v.methods == ('hybrid',)}
  assert set(judged) == contenders.CONTENDERS.keys() and kinds == contenders.FUSED.keys()
  assert len(set(judged) - {'hybrid'}) == len(judged) - len(kinds)  # each once


def test_depth_halves_from_layer_to_layer_as_the_papers() -> None:
  of_paper = ablation('depth', 'rml').sweep.variants
  assert of_paper.layers_1.fusion.units == (4096,)
  assert of_paper.layers_5.fusion.units == (4096, 2048, 1024, 512, 256)
  assert ablation('depth').sweep.variants.layers_2.fusion.units == (1024, 512)


def test_a_base_that_there_is_not_is_refused_by_name() -> None:
  for base in ('default', 'nobodys', '../tests/tiny'):
    with pytest.raises(ValueError, match=r'is no config to start from: use author_code, baum1s, .*, rml, savee'):
      bases.get_config(base, {})
  with pytest.raises(ValueError, match='full or slim'):
    bases.get_config('rml:huge', {})

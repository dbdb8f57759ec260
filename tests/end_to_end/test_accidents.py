"""Bad clips among good ones: the run ends, halves are used where they can be, and nothing is lost without a word."""

import csv
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from emo_jax.frontend import media
from tests.end_to_end import accidents
from tests.end_to_end.accidents import Accident, Take, film

MUTE = os.fsdecode(b'mute\xff.mp4')  # a name that is not UTF-8, to the end of a run


def _take(clips: pathlib.Path, *, times: int = 1) -> Take:
  """A clip of the demo corpus, repeated."""
  path = str(min(clips.glob('s03/*.mp4')))
  images = np.stack([frame for _, frame in media.frames(path)])
  wave = np.concatenate(list(media.sound(path)))[: len(images) * accidents.RATE // accidents.FPS]
  return Take(np.tile(images, (times, 1, 1, 1)), np.tile(wave, times))


def _listed(path: pathlib.Path, column: str) -> dict[str, list[str]]:
  """Of a CSV file: what it says of each id."""
  said: dict[str, list[str]] = {}
  with open(path, newline='', encoding='utf-8') as file:
    for row in csv.DictReader(file):
      said.setdefault(row['id'], []).append(row[column])
  return said


def _escaped(name: str) -> str:
  return name.encode('utf-8', 'backslashreplace').decode()


class Fed:
  """A run of launch.py on a manifest of accidents, up to the store."""

  def __init__(self, folder: pathlib.Path, table: list[Accident], take: Take, launch: Callable[..., Any]):
    rows = [['path', 'speaker', 'emotion', 'split', 'sound']]
    for number, accident in enumerate(table):
      accident.make(folder / accident.name, take)
      side, emotion = ('train', 'test')[number % 2], ('anger', 'joy')[number // 2 % 2]
      rows.append([accident.name, side, emotion, side, accident.sound])
    with open(folder / 'clips.csv', 'w', newline='', encoding='utf-8', errors='surrogateescape') as file:
      csv.writer(file).writerows(rows)
    root = f'data.root={folder / "clips.csv"}'
    self.done = launch(
      folder / 'w', 'data.corpus=manifest', 'data.rule=fixed', root, 'until=prepare', 'executor.workers=2'
    )
    assert self.done.returncode == 0, self.done.stderr
    self.rejected = _listed(folder / 'w' / 'rejected.csv', 'reason')
    self.warnings = _listed(folder / 'w' / 'warnings.csv', 'warning')
    (index,) = (folder / 'w' / 'stages' / 'prepare').glob('*/index.json')
    self.records = dict(zip((a.name for a in table), json.loads(index.read_text()), strict=True))
    self.folder, self.store = folder, folder / 'w' / 'stages' / 'store'

  def check(self, accident: Accident) -> None:
    """What came out is what was to come out, and nothing else."""
    name, record = _escaped(accident.name), self.records[accident.name]
    rejected, warnings = self.rejected.get(name, []), self.warnings.get(name, [])
    halves = [half for half in ('audio', 'faces') if record[half]]
    if accident.out == 'rejected':
      assert len(rejected) == 1 and not warnings and accident.says in rejected[0], rejected
      assert not halves
    else:
      assert not rejected and halves
      assert any(accident.says in warning for warning in warnings) == (accident.out == 'warned'), warnings
      assert accident.out == 'warned' or (not warnings and len(halves) == 2)

  def row(self, accident: Accident) -> str:
    """A line of the table: what was fed, what came out."""
    name = _escaped(accident.name)
    said = '; '.join(self.rejected.get(name, []) + self.warnings.get(name, []))
    out = 'rejected' if name in self.rejected else 'used, warned' if said else 'used'
    return f'| {accident.fed} | {out} | {said} |'.replace(f'{self.folder}/', '').replace('\n', '\\n')


@pytest.fixture(scope='module')
def fed(tmp_path_factory, clips, launch):
  return Fed(tmp_path_factory.mktemp('accidents'), accidents.ACCIDENTS, _take(clips, times=2), launch)


@pytest.mark.parametrize('accident', accidents.ACCIDENTS, ids=lambda accident: accident.fed)
def test_of_each_accident_comes_what_is_to_come(fed, accident):
  fed.check(accident)


def test_every_clip_is_accounted_for_and_nothing_else(fed):
  names = [_escaped(accident.name) for accident in accidents.ACCIDENTS]
  assert len(set(names)) == len(names) == len(fed.records)
  assert not set(fed.rejected) & set(fed.warnings)
  assert set(fed.rejected) | set(fed.warnings) <= set(names)
  print('| fed | came out | said |\n|---|---|---|', *map(fed.row, accidents.ACCIDENTS), sep='\n')


def test_nothing_of_it_looks_like_a_failure(fed):
  said = fed.done.stdout + fed.done.stderr
  assert 'Traceback' not in said and 'Error' not in said and 'Warning' not in said, said


def test_of_several_faces_the_largest_is_followed(fed):
  with np.load(fed.store / f'{fed.records["several.mp4"]["faces"]}.npz') as facts:
    assert facts['confidence'].mean() > 0.9
    assert facts['eyes'][:, :, 0].min() > 320  # the right half of the picture


@pytest.mark.parametrize('name', ['turned90.mp4', 'turned180.mp4', 'turned270.mp4', 'portrait.mp4', 'fps15.mp4'])
def test_the_face_is_where_it_is_in_the_film_as_it_was(fed, name):
  """Turned films are stored upright: their crops are those of the film that was not turned, but for the coding."""
  crops = {key: np.load(fed.store / f'{fed.records[key]["faces"]}.npy').astype(float) for key in (name, 'whole.mp4')}
  mean, whole = (crops[key].mean(0) for key in (name, 'whole.mp4'))
  assert np.corrcoef(mean.ravel(), whole.ravel())[0, 1] > 0.95


@pytest.mark.slow
@pytest.mark.parametrize('accident', accidents.LONG, ids=lambda accident: accident.fed)
def test_of_each_long_accident_comes_what_is_to_come(tmp_path, clips, launch, accident):
  table = [accident, *(Accident('', f'{i}.mp4', accidents.whole) for i in range(3))]
  take = _take(clips, times=2)
  long = Fed(tmp_path, table, take, launch)
  long.check(accident)
  faces = np.load(long.store / f'{long.records[accident.name]["faces"]}.npy', mmap_mode='r')
  assert len(faces) == 341 * len(take.images)
  assert 'Traceback' not in long.done.stderr
  print(long.row(accident))


@pytest.fixture(scope='module')
def after(tmp_path_factory, clips, launch):
  """A run to the end on whole clips and halves; only the whole ones train."""
  folder = tmp_path_factory.mktemp('halves')
  rows = [['path', 'speaker', 'emotion', 'split', 'sound']]
  for path in sorted(clips.glob('*/*.mp4')):
    name = f'{path.parent.name}_{path.name}'
    shutil.copy(path, folder / name)
    rows.append([name, path.parent.name, path.stem.split('_')[0], 'test' if path.parent.name == 's03' else 'train', ''])
  take = _take(clips)
  (folder / 'text.mp4').write_text('this is no film\n' * 100)
  film(folder / MUTE, take.images, None)
  film(folder / 'faceless.mp4', np.random.default_rng(0).integers(0, 256, take.images.shape, np.uint8), take.wave[None])
  film(folder / 'sound_only.mp4', None, take.wave[None])
  bad = ['text.mp4', MUTE, 'faceless.mp4', 'sound_only.mp4', 'nowhere.mp4']
  rows += [[name, 's03', 'anger', 'test', ''] for name in bad]
  with open(folder / 'clips.csv', 'w', newline='', encoding='utf-8', errors='surrogateescape') as file:
    csv.writer(file).writerows(rows)
  done = launch(folder / 'w', 'data.corpus=manifest', 'data.rule=fixed', f'data.root={folder / "clips.csv"}')
  assert done.returncode == 0, done.stderr
  with open(folder / 'w' / 'predictions.csv', newline='') as file:
    predictions = {row['clip']: row for row in csv.DictReader(file)}
  return (
    _listed(folder / 'w' / 'rejected.csv', 'reason'),
    predictions,
    json.loads((folder / 'w' / 'report.json').read_text()),
  )


def test_what_cannot_be_read_is_rejected_with_a_reason(after):
  rejected, predictions, report = after
  assert set(rejected) == {'text.mp4', 'nowhere.mp4'}
  assert all('cannot be ' in reason for (reason,) in rejected.values()), rejected
  assert not set(rejected) & set(predictions)
  assert report['rejected'] == 2


@pytest.mark.parametrize(
  ('clip', 'judged', 'reason'),
  [
    (MUTE, 'visual', f'{MUTE} has no sound'),
    ('faceless.mp4', 'audio', 'no face was found'),
    ('sound_only.mp4', 'audio', 'sound_only.mp4 has no picture'),
  ],
)
def test_half_a_clip_is_judged_by_what_it_has(after, clip, judged, reason):
  _, predictions, report = after
  assert report['half_clips'][clip] == reason
  for method in report['methods']:
    assert bool(predictions[_escaped(clip)][method]) == (method == judged), method


def test_each_method_counts_the_clips_that_it_could_judge(after):
  _, _, report = after
  counts = {name: method['clips'] for name, method in report['methods'].items()}
  assert counts == {'audio': 6, 'visual': 5, 'concat': 4, 'hybrid': 4}

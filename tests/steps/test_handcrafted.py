"""The stage of hand-crafted features: whose rows are filled, what a bad clip costs, and what is made again."""

import dataclasses
import json
import os
import pathlib
import sys
import wave
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from emo_jax import processes
from emo_jax.context import Experiment, Unusable
from emo_jax.corpora.clip import Clip
from emo_jax.frontend import decoder, store
from emo_jax.frontend.segments import Segments
from emo_jax.handcrafted import face, halves, sound
from emo_jax.steps import handcrafted
from tests import tiny

RATE = 8000
CRASHES = """
import os, signal
import numpy as np
from emo_jax.frontend import decoder
from emo_jax.handcrafted import halves
def bad(half, path, target, settings, beat):
  if path.endswith('0.wav'):
    os.kill(os.getpid(), signal.SIGSEGV)
  return halves.describe(half, path, target, settings, beat)
halves.sound.describe = lambda samples, rate, *, kind: np.full(146, len(samples) / rate)  # for speed
decoder.serve(bad)
"""


def samples(number: int) -> np.ndarray:
  return np.random.default_rng(number).integers(-9000, 9000, RATE).astype(np.int16)


def film(number: int) -> tuple[np.ndarray, np.ndarray]:
  """RGB faces uint8 [6, 20, 16, 3], and their confidence."""
  return np.random.default_rng(number).integers(0, 256, (6, 20, 16, 3)).astype(np.uint8), np.array([0, 1, 1, 1, 1, 0.5])


@pytest.fixture
def x(tmp_path: pathlib.Path) -> Experiment:
  """Four prepared clips: 0 with both halves, 1 of sound, 2 of a face, 3 with both of which no segment has a face."""
  config = tiny.get_config()
  config.handcrafted.size = 32
  clips, records = [], []
  for number in range(4):
    path = tmp_path / f'{number}.wav'
    with wave.open(str(path), 'wb') as file:
      file.setparams((1, 2, RATE, RATE, 'NONE', ''))
      file.writeframes(samples(number).tobytes())
    clips.append(Clip(path.name, path, path, f's{number % 2}', 'ab'[number // 2], 'made'))
    faces, confidence = film(number)
    stem, facts = f'faces-f/{number}', {'confidence': confidence}
    store.write(tmp_path / 'cache' / 'store' / stem, iter([faces]), facts, store.nothing, fortran=False)
    records.append({'audio': None if number == 2 else f'audio-a/{number}', 'faces': None if number == 1 else stem})
  x = Experiment(config, tmp_path, tmp_path / 'cache', clips, ['a', 'b'], [], records=records)
  of, none = np.array([0, 0, 1, 2, 3], np.int32), np.zeros(5, np.int32)
  x.segments = Segments(of, none, np.zeros((5, 16), np.int32), of != 2, (of != 1) & (of != 3))
  x.store = store.Store(x.cache / 'store', records, length=64, shift=30)
  return x


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
  """What is described: half and file; in this process, for speed."""
  names: list[str] = []

  def take(half: str, path: str, target: str, settings: dict[str, Any], limit: float) -> str:
    names.append(f'{half} {pathlib.Path(path).name}')
    return halves.describe(half, path, target, settings)['reason']

  monkeypatch.setattr(halves, 'take', take)
  return names


def test_every_clip_with_a_segment_of_a_half_is_described_by_it(x: Experiment, taken: list[str]) -> None:
  x.config.executor.workers = 2
  handcrafted.extract(x)
  (folder,) = x.made['handcrafted']
  assert sorted(path.name for path in folder.iterdir()) == ['face.npy', 'key.json', 'names.json', 'sound.npy']
  wanted = {
    'sound': {c: sound.describe(samples(c).astype('f4') / 32768, RATE, kind='librosa') for c in (0, 1, 3)},
    'face': {c: face.describe(face.grey(film(c)[0], size=32), film(c)[1] > 0) for c in (0, 2)},
  }
  names = json.loads((folder / 'names.json').read_text())
  for half, of_clip in wanted.items():
    features, clips = handcrafted.load(x, half)
    assert clips.tolist() == list(of_clip) and features.dtype == np.float32
    np.testing.assert_allclose(features, list(of_clip.values()), rtol=1e-4, atol=1e-4)
    assert features.shape[1] == len(names[half])
    stored = np.load(folder / f'{half}.npy')
    assert len(stored) == 4 and np.isnan(np.delete(stored, clips, 0)).all()


def test_clips_that_cannot_be_described_cost_their_half_alone_and_are_told_of(
  x: Experiment, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
  assert x.clips[1].sound
  x.clips[1].sound.write_bytes(b'words')  # since it was prepared
  (x.cache / 'store' / 'faces-f' / '2.npz').unlink()
  monkeypatch.setattr(halves, 'COMMAND', (sys.executable, '-c', CRASHES))
  handcrafted.extract(x)
  features, clips = handcrafted.load(x, 'sound')
  assert clips.tolist() == [3] and (features == 1).all()  # second
  assert handcrafted.load(x, 'face')[1].tolist() == [0]
  told = capfd.readouterr().err
  assert '0.wav has no hand-crafted sound: 0.wav: the decoder died (signal 11 SIGSEGV)' in told
  assert '1.wav has no hand-crafted sound: 1.wav: sound failed with UnreadableMedia' in told
  assert '2.wav has no hand-crafted face: 2: face failed with ValueError: its times and eyes are gone' in told


def test_a_clip_that_hangs_is_given_up(x: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
  hangs = CRASHES.replace('os.kill(os.getpid(), signal.SIGSEGV)', '__import__("time").sleep(1000)')
  monkeypatch.setattr(halves, 'COMMAND', (sys.executable, '-c', hangs))
  assert x.clips[0].sound
  why = halves.take('sound', str(x.clips[0].sound), str(x.workdir / 'a' / 'b'), x.config.handcrafted.to_dict(), 1.0)
  assert why == '0.wav: decoding it stood still for 1 s (config.executor.limit)'


def test_it_is_made_again_only_for_other_clips_or_settings(x: Experiment, taken: list[str]) -> None:
  handcrafted.extract(x)
  first = x.made['handcrafted']
  assert sorted(taken) == ['face 0', 'face 2', 'sound 0.wav', 'sound 1.wav', 'sound 3.wav']
  taken.clear()
  x.clips = [dataclasses.replace(clip, emotion='b', speaker='t') for clip in x.clips]
  x.config.seed, x.config.pool, x.config.normalise = 5, 'max', 'speaker'
  handcrafted.extract(x)
  assert x.made['handcrafted'] == first and taken == []  # it knows neither labels nor folds
  x.records[0]['audio'] = 'audio-a/other'
  handcrafted.extract(x)
  x.config.handcrafted.size = 40
  handcrafted.extract(x)
  x.segments = x.segments.take(x.segments.clip != 1)
  handcrafted.extract(x)
  assert len(list((x.cache / 'handcrafted').glob('*/key.json'))) == 4 and len(taken) == 5 + 5 + 4


def test_a_broken_run_goes_on_where_it_was(x: Experiment, taken: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
  x.config.executor.workers = 1
  take = halves.take

  def full(half: str, path: str, *arguments: Any) -> str:
    if path.endswith('3.wav'):
      raise decoder.MachineFailure('the disk is full')
    return take(half, path, *arguments)

  with monkeypatch.context() as patch:
    patch.setattr(halves, 'take', full)
    with pytest.raises(Unusable, match=r'^the disk is full$'):
      handcrafted.extract(x)
  assert taken == ['sound 0.wav', 'sound 1.wav']
  handcrafted.extract(x)
  assert taken == ['sound 0.wav', 'sound 1.wav', 'sound 3.wav', 'face 0', 'face 2']
  assert handcrafted.load(x, 'sound')[1].tolist() == [0, 1, 3]


def test_a_team_describes_each_half_once_and_makes_what_one_process_makes(
  x: Experiment,
  monkeypatch: pytest.MonkeyPatch,
  as_team: Callable[..., list[Any]],
  capfd: pytest.CaptureFixture[str],
) -> None:
  x.config.executor.workers = 1
  assert x.clips[1].sound
  x.clips[1].sound.write_bytes(b'words')  # since it was prepared
  taken = []

  def take(half: str, path: str, target: str, settings: dict[str, Any], limit: float) -> str:
    taken.append((processes.number(), f'{half} {pathlib.Path(path).name}'))
    return halves.describe(half, path, target, settings)['reason']

  monkeypatch.setattr(halves, 'take', take)
  handcrafted.extract(x)
  (folder,) = x.made['handcrafted']
  alone = {path.name: path.read_bytes() for path in folder.iterdir()}
  folder.rename(x.cache / 'alone')
  taken.clear()
  capfd.readouterr()
  team = [dataclasses.replace(x, made={}) for _ in range(2)]
  as_team(*(lambda each=each: handcrafted.extract(each) for each in team))
  of_each = [['sound 0.wav', 'sound 3.wav', 'face 2'], ['sound 1.wav', 'face 0']]
  assert [[what for number, what in taken if number == each] for each in range(2)] == of_each
  assert {path.name: path.read_bytes() for path in folder.iterdir()} == alone
  assert team[0].made == team[1].made == x.made
  assert capfd.readouterr().err.count('1.wav has no hand-crafted sound') == 1


@pytest.mark.parametrize('kind', ['egemaps', 'compare'])
def test_opensmile_describes_the_same_clips(x: Experiment, taken: list[str], kind: str) -> None:
  pytest.importorskip('opensmile')
  x.config.handcrafted.sound = kind
  handcrafted.extract(x)
  features, clips = handcrafted.load(x, 'sound')
  assert clips.tolist() == [0, 1, 3] and features.shape[1] == {'egemaps': 88, 'compare': 6373}[kind]
  key = json.loads((x.made['handcrafted'][0] / 'key.json').read_text())
  assert 'opensmile' in key['libraries']


def test_opensmile_that_is_missing_is_said_before_anything_is_done(
  x: Experiment, taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setitem(sys.modules, 'opensmile', None)
  x.config.handcrafted.sound = 'egemaps'
  with pytest.raises(Unusable, match=r'pip install -e .*opensmile'):
    handcrafted.extract(x)
  assert taken == []


def test_a_missing_package_is_no_fault_of_a_clip(x: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setitem(sys.modules, 'opensmile', None)
  with pytest.raises(ModuleNotFoundError):
    halves.describe('sound', os.fspath(x.workdir / '0.wav'), str(x.workdir / 'a'), {'sound': 'compare'})

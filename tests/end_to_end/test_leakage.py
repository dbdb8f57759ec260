"""Nothing of a test speaker reaches what is fitted: noise in place of their media and labels changes no byte of it."""

import csv
import json
import pathlib
import shutil

import av
import numpy as np
import pytest
from scipy.io import wavfile

from emo_jax.frontend import media

FITTED = ('audio_net', 'visual_net', 'fusion')  # their Orbax trees; and every scaler and SVM


def _noise(path: pathlib.Path, seed: int) -> None:
  """A film of noise; its sound is noise too."""
  rng = np.random.default_rng(seed)
  with av.open(str(path), 'w', format='mp4') as container:
    picture, sound = container.add_stream('libx264', rate=25), container.add_stream('aac', rate=44100, layout='mono')
    picture.width, picture.height, picture.pix_fmt = 320, 240, 'yuv420p'
    for _ in range(25):
      frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (240, 320, 3), np.uint8), format='rgb24')
      container.mux(picture.encode(frame))
    wave = av.AudioFrame.from_ndarray(rng.normal(0, 0.1, (1, 44100)).astype(np.float32), format='fltp', layout='mono')
    wave.rate = 44100
    for packets in (picture.encode(), sound.encode(wave), sound.encode()):
      container.mux(packets)


def _manifest(folder: pathlib.Path, clips: pathlib.Path, *, spoilt: bool) -> pathlib.Path:
  """Two speakers train, the third is tested: as it is, or with noise for clips and turned labels."""
  emotions = sorted({path.stem.split('_')[0] for path in clips.glob('*/*.mp4')})
  rows = []
  for path in sorted(clips.glob('*/*.mp4')):
    target = folder / path.relative_to(clips)
    target.parent.mkdir(parents=True, exist_ok=True)
    speaker, emotion = path.parent.name, path.stem.split('_')[0]
    test = speaker == 's03'
    if test and spoilt:
      # One clip keeps its face and voice, so that the spoilt fold still has halves of both kinds to predict.
      emotion = emotions[(emotions.index(emotion) + 1) % len(emotions)]
      if len(rows) % 2:
        _noise(target, len(rows))
      else:
        shutil.copy(clips / 's01' / path.name, target)
    else:
      shutil.copy(path, target)
    rows.append([target.relative_to(folder), speaker, emotion, 'test' if test else 'train'])
  with open(folder / 'clips.csv', 'w', newline='') as file:
    csv.writer(file).writerows([['path', 'speaker', 'emotion', 'split'], *rows])
  return folder / 'clips.csv'


def _fitted(stages: pathlib.Path) -> dict[str, dict[str, bytes]]:
  """Every fitted array of a run: the restored Orbax trees and the .npz files, by name."""
  import jax
  import orbax.checkpoint as ocp

  found: dict[str, dict[str, bytes]] = {}
  for folder in sorted(path.parent for path in stages.glob('*/*/*/_METADATA')):
    with ocp.StandardCheckpointer() as loader:
      shapes = loader.metadata(folder).item_metadata.tree
      like = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
      tree = loader.restore(folder, like)
    arrays = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
    name = f'{folder.parent.parent.name}/{folder.name}'
    found[name] = {key: np.asarray(array).tobytes() for key, array in arrays.items()}
  for path in [*stages.glob('decide/*/*/*_svm.npz'), *stages.glob('*/*/scaler.npz')]:
    with np.load(path, allow_pickle=False) as file:
      found[f'{path.relative_to(stages).parts[0]}/{path.name}'] = {key: file[key].tobytes() for key in file}
  return found


@pytest.fixture(scope='module')
def runs(tmp_path_factory, clips, launch):
  """Stages and reports of two runs, the honest and the spoilt one, in caches of their own."""
  found = []
  for spoilt in (False, True):
    folder = tmp_path_factory.mktemp('spoilt' if spoilt else 'honest')
    manifest = _manifest(folder, clips, spoilt=spoilt)
    # The spoilt test speaker says what a training speaker said: a leak, of films this time.
    settings = ('data.corpus=manifest', 'data.rule=fixed', f'data.root={manifest}', 'data.allow_leaks=True')
    done = launch(folder / 'w', *settings)
    assert done.returncode == 0, done.stderr
    found.append((_fitted(folder / 'w' / 'stages'), json.loads((folder / 'w' / 'report.json').read_text())))
  return found


def test_every_fitted_artefact_is_the_same_byte_for_byte(runs):
  (honest, _), (spoilt, _) = runs
  names = {'audio_net/network', 'visual_net/network', 'fusion/dbn', 'fusion/rbm0', 'fusion/rbm1'}
  names.add('fusion/scaler.npz')
  names |= {f'decide/{method}_svm.npz' for method in ('audio', 'visual', 'concat', 'hybrid')}
  assert set(honest) == set(spoilt) == names
  for name in names:
    assert honest[name]
    assert honest[name] == spoilt[name], name


def test_the_spoilt_clips_really_were_other_clips(runs):
  (_, honest), (_, spoilt) = runs
  assert honest['methods']['audio']['confusion'] != spoilt['methods']['audio']['confusion']


@pytest.mark.parametrize('disguise', ['same bytes', 'same sound'])
def test_a_recording_on_two_sides_is_refused_before_anything_is_trained(disguise, clips, launch, tmp_path):
  rows = [['path', 'speaker', 'emotion', 'split']]
  for path in sorted(clips.glob('*/*.mp4')):
    speaker, emotion = path.parent.name, path.stem.split('_')[0]
    rows.append([path, speaker, emotion, 'test' if speaker == 's03' else 'train'])
  film, planted = clips / 's01' / 'anger_01.mp4', tmp_path / f'planted.{"mp4" if disguise == "same bytes" else "wav"}'
  if disguise == 'same bytes':
    shutil.copy(film, planted)
  else:
    wavfile.write(planted, 44100, np.concatenate([*media.sound(str(film))]))
  rows.append([planted, 's03', 'anger', 'test'])
  with open(tmp_path / 'clips.csv', 'w', newline='') as file:
    csv.writer(file).writerows(rows)
  done = launch(tmp_path / 'w', 'data.corpus=manifest', 'data.rule=fixed', f'data.root={tmp_path / "clips.csv"}')
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert f'launch.py: {disguise}: 1 of the recordings in 13 clips' in done.stderr
  assert f'{film} (train) and {planted} (test), fold 0. Mend' in done.stderr and 'allow_leaks=True' in done.stderr
  assert not (tmp_path / 'w' / 'stages' / 'audio_net').exists()

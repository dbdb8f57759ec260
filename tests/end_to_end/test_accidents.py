"""Bad clips among good ones: the run ends, halves are used where they can be, the rest is listed with a reason."""

import csv
import json
import shutil

import av
import numpy as np
import pytest


def _film(path, frames, wave):
  """An mp4 of these RGB frames [F, H, W, 3] and this sound [samples] at 44.1 kHz, either of which may be missing."""
  with av.open(str(path), 'w', format='mp4') as container:
    if frames is not None:
      picture = container.add_stream('libx264', rate=25)
      picture.height, picture.width, picture.pix_fmt = *frames.shape[1:3], 'yuv420p'
    if wave is not None:
      sound = container.add_stream('aac', rate=44100, layout='mono')
      frame = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), format='fltp', layout='mono')
      frame.rate = 44100
      container.mux(sound.encode(frame))
      container.mux(sound.encode())
    if frames is not None:
      for image in frames:
        container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
      container.mux(picture.encode())


@pytest.fixture(scope='module')
def after(tmp_path_factory, clips, launch):
  """A run on a manifest with every kind of clip; only the good ones train."""
  folder = tmp_path_factory.mktemp('accidents')
  rows = [['path', 'speaker', 'emotion', 'split', 'sound']]
  for path in sorted(clips.glob('*/*.mp4')):
    name = f'{path.parent.name}_{path.name}'
    shutil.copy(path, folder / name)
    rows.append([name, path.parent.name, path.stem.split('_')[0], 'test' if path.parent.name == 's03' else 'train', ''])
  from emo_jax.frontend import media

  real = sorted(clips.glob('s03/*.mp4'))[0]
  frames = np.stack([frame for _, frame in media.frames(real)])
  wave = np.concatenate(list(media.sound(real)))
  (folder / 'text.mp4').write_text('this is no film\n' * 100)
  (folder / 'empty.mp4').touch()
  _film(folder / 'mute.mp4', frames, None)
  _film(folder / 'faceless.mp4', np.random.default_rng(0).integers(0, 256, frames.shape, np.uint8), wave)
  _film(folder / 'sound_only.mp4', None, wave)
  cut = (folder / rows[-1][0]).read_bytes()
  (folder / 'cut.mp4').write_bytes(cut[: len(cut) // 2])
  bad = ['text.mp4', 'empty.mp4', 'mute.mp4', 'faceless.mp4', 'sound_only.mp4', 'cut.mp4', 'nowhere.mp4']
  rows += [[name, 's03', 'anger', 'test', ''] for name in bad]
  with open(folder / 'clips.csv', 'w', newline='') as file:
    csv.writer(file).writerows(rows)
  done = launch(folder / 'w', 'data.corpus=manifest', 'data.rule=fixed', f'data.root={folder / "clips.csv"}')
  assert done.returncode == 0, done.stderr
  with open(folder / 'w' / 'rejected.csv', newline='') as file:
    rejected = {row['id']: row['reason'] for row in csv.DictReader(file)}
  with open(folder / 'w' / 'predictions.csv', newline='') as file:
    predictions = {row['clip']: row for row in csv.DictReader(file)}
  return rejected, predictions, json.loads((folder / 'w' / 'report.json').read_text())


def test_what_cannot_be_read_is_rejected_with_a_reason(after):
  rejected, predictions, report = after
  assert set(rejected) == {'text.mp4', 'empty.mp4', 'nowhere.mp4', 'cut.mp4'}
  assert all('cannot be' in reason for reason in rejected.values()), rejected
  assert not set(rejected) & set(predictions)
  assert report['rejected'] == 4


@pytest.mark.parametrize(
  ('clip', 'judged', 'reason'),
  [
    ('mute.mp4', 'visual', 'mute.mp4 has no sound'),
    ('faceless.mp4', 'audio', 'no face was found'),
    ('sound_only.mp4', 'audio', 'sound_only.mp4 has no picture'),
  ],
)
def test_half_a_clip_is_judged_by_what_it_has(after, clip, judged, reason):
  _, predictions, report = after
  assert report['half_clips'][clip] == reason
  for method in report['methods']:
    assert bool(predictions[clip][method]) == (method == judged), method


def test_each_method_counts_the_clips_that_it_could_judge(after):
  _, _, report = after
  counts = {name: method['clips'] for name, method in report['methods'].items()}
  assert counts == {'audio': 6, 'visual': 5, 'concat': 4, 'hybrid': 4}

"""Predicting films and sounds of many kinds with a tiny model: segments, which halves there are, what is filled in."""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from emo_jax import inference, own_clip
from emo_jax.frontend import media
from tests.end_to_end import accidents
from tests.end_to_end.accidents import FPS, RATE, Take, film

SECONDS = 1.8  # of the film that all others are made of
FEWER, MORE = -0.03, 0.15  # seconds that codecs may take from a sound, or add to it
AVI = {'picture': 'mjpeg', 'sound': 'pcm_s16le'}
FLV = {'picture': 'flv', 'sound': 'libmp3lame'}


@pytest.fixture(scope='module')
def model(model_folder: pathlib.Path) -> inference.Model:
  return inference.load(model_folder)


@pytest.fixture(scope='module')
def take(clips: pathlib.Path) -> Take:
  """A speaker's whole clip, there and back."""
  path = str(min(clips.glob('s01/*.mp4')))
  images = np.stack([frame for _, frame in media.frames(path)])
  voice = np.concatenate(list(media.sound(path)))[: len(images) * RATE // FPS]
  return Take(np.concatenate([images, images[::-1]]), np.tile(voice, 2))


@dataclasses.dataclass(frozen=True)
class Case:
  """What is fed, and what is to come out.

  Attributes:
    name: of the file.
    make: writes it.
    seconds: that the segments are cut from: of the sound; without it, of the picture.
    heard, seen: seconds between which segments have sound, or a face; () for none. Segments that lie across an end may
      or may not have it.
    says: is among the warnings; '' where there is to be none.
  """

  name: str
  make: Callable[[pathlib.Path, Take], Any]
  seconds: float = SECONDS
  heard: tuple[float, ...] = (0.0, np.inf)
  seen: tuple[float, ...] = (0.0, np.inf)
  says: str = ''


def made(**options: Any) -> Callable[[pathlib.Path, Take], Any]:
  """The whole film with these options of `film`."""
  return lambda path, take: accidents.whole(path, take, **options)


def at(fps: int) -> Callable[[pathlib.Path, Take], Any]:
  return lambda path, take: film(path, take.at(fps), take.wave[None], fps=fps)


def by_accident(name: str) -> Callable[[pathlib.Path, Take], Any]:
  """As the table of accidents makes it."""
  (make,) = (accident.make for accident in accidents.ACCIDENTS if accident.name == name)
  return make


def bare(take: Take) -> np.ndarray:
  """The images without the face."""
  return np.tile(take.images[:, :, :40], (1, 1, 8, 1))


def _gif(path: pathlib.Path, take: Take) -> None:
  import av

  with av.open(str(path), 'w') as file:
    stream: Any = file.add_stream('gif', rate=FPS)
    stream.height, stream.width, stream.pix_fmt = *take.images.shape[1:3], 'rgb8'
    for image in take.images:
      file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24').reformat(format='rgb8')))
    file.mux(stream.encode(None))


def _webm(path: pathlib.Path, take: Take) -> None:
  film(path, take.images, take.rated(48000), picture='libvpx-vp9', sound='libopus', rate=48000)


def _rotated(path: pathlib.Path, take: Take) -> None:
  film(path, np.rot90(take.images, -1, axes=(1, 2)), take.wave[None], turn=90)


def _silent_later(path: pathlib.Path, take: Take) -> None:
  film(path, np.tile(take.images, (3, 1, 1, 1)), np.pad(take.wave, (0, 2 * take.wave.size))[None], picture='mpeg4')


def _sound(codec: str, rate: int = RATE) -> Callable[[pathlib.Path, Take], Any]:
  return lambda path, take: film(path, None, take.rated(rate), sound=codec, rate=rate)


NO_PICTURE, NO_FACE, IN_PART = ' has no picture', 'no face was found', 'the face is seen in '
CASES = [
  Case('a.mp4', made()),
  Case('a.mkv', made()),
  Case('a.webm', _webm),
  Case('a.avi', made(**AVI)),
  Case('a.flv', made(**FLV)),
  Case('slow.mp4', at(5)),
  Case('fast.mp4', at(120)),
  Case('uneven.mp4', by_accident('vfr.mp4')),
  Case('rotated.mp4', _rotated),
  Case('stereo.mp4', by_accident('stereo.mp4')),
  # Lengths
  Case('short.mp4', lambda p, t: film(p, t.images[:5], t.wave[None, : RATE // 5]), 0.2, says='shorter than a window'),
  Case('still.mp4', lambda p, t: film(p, t.images[:1], t.wave[None]), seen=(0.0, 0.04)),
  Case('longer_sound.mp4', lambda p, t: film(p, t.images, np.tile(t.wave, 2)[None]), 3.6, seen=(0.0, SECONDS + 0.5)),
  Case('longer_picture.mp4', lambda p, t: film(p, np.tile(t.images, (2, 1, 1, 1)), t.wave[None])),
  Case(
    'late_picture.mkv',
    lambda p, t: film(p, t.images, np.tile(t.wave, 2)[None], times=1.5 + 0.048 * np.arange(44)),
    3.6,
    seen=(1.5, np.inf),
  ),
  # Without sound
  Case('mute.mp4', lambda p, t: film(p, t.images, None), heard=(), says='mute.mp4 has no sound'),
  Case('a.gif', _gif, heard=(), says='a.gif has no sound'),
  Case('silent.mp4', by_accident('silence.mp4'), heard=(), says='the sound is silent'),
  Case('silent_later.mp4', _silent_later, 3 * SECONDS, heard=(0.0, SECONDS)),
  Case('mute_still.mp4', lambda p, t: film(p, t.images[:1], None), 0.04, heard=(), says='mute_still.mp4 has no sound'),
  # Without a face
  Case('a.ogg', _sound('libopus', 48000), seen=(), says='a.ogg' + NO_PICTURE),
  Case('a.m4a', _sound('aac'), seen=(), says='a.m4a' + NO_PICTURE),
  Case('a.wav', _sound('pcm_s16le', 16000), seen=(), says='a.wav' + NO_PICTURE),
  Case('a.flac', _sound('flac', 22050), seen=(), says='a.flac' + NO_PICTURE),
  Case('cover.mp3', by_accident('cover.mp3'), seen=(), says='cover.mp3' + NO_PICTURE),
  Case('faceless.mp4', lambda p, t: film(p, bare(t), t.wave[None]), seen=(), says=NO_FACE),
  Case(
    'leaving.mp4',
    lambda p, t: film(p, np.concatenate([t.images, bare(t), bare(t)]), np.tile(t.wave, 3)[None]),
    3 * SECONDS,
    seen=(0.0, SECONDS + 0.5),
    says=IN_PART,
  ),
]


def windows(seconds: float) -> int:
  """Windows of 655 ms, one every 300 ms; a sound that is shorter than one is padded to it."""
  return 1 + max(int((seconds - 0.655) / 0.3 + 1e-6), 0)


def check_plain(result: dict[str, Any]) -> None:
  """What holds of every result: plain data, shares that add up to 1, verdicts that are the likeliest class."""
  assert json.loads(json.dumps(result, allow_nan=False)) == result
  for judged in filter(None, result['methods'].values()):
    assert judged['verdict'] == max(judged['probabilities'], key=judged['probabilities'].get)
    assert judged['confidence'] == judged['probabilities'][judged['verdict']]
    assert list(judged['probabilities']) == result['classes']
  shares = [segment[method] for segment in result['segments'] for method in inference.METHODS]
  for of_class in filter(
    None, shares + [judged['probabilities'] for judged in filter(None, result['methods'].values())]
  ):
    assert sum(of_class.values()) == pytest.approx(1, abs=1e-4) and min(of_class.values()) >= 0
  chosen = result['methods'][result['by']]
  assert (result['verdict'], result['confidence']) == (chosen['verdict'], chosen['confidence'])


def check_segments(result: dict[str, Any], case: Case) -> None:
  """When segments are, and which halves they have; those that lie across an end may go either way."""
  segments = result['segments']
  assert windows(case.seconds + FEWER) <= len(segments) <= windows(case.seconds + MORE)
  for number, segment in enumerate(segments):
    assert segment['start'] == pytest.approx(0.3 * number, rel=0.003, abs=0.002)  # 10 ms are rounded to whole samples
    assert segment['end'] - segment['start'] == pytest.approx(0.655, abs=0.003)
    for half, span in (('has_sound', case.heard), ('has_face', case.seen)):
      inside = bool(span) and span[0] <= segment['start'] and segment['end'] <= span[1]
      outside = not span or segment['end'] < span[0] or segment['start'] > span[1]
      assert inside <= segment[half] <= (not outside), (number, half)
    if segment['box']:
      x, y, width, height = segment['box']
      assert width == pytest.approx(height, rel=0.2) and 90 < width < 170
      assert np.hypot(x + width / 2 - 160, y + height / 2 - 115) < 25  # upright, whichever way it was stored
    assert (segment['audio'] is not None) == segment['has_sound']
    assert (segment['visual'] is not None) == segment['has_face'] == (segment['box'] is not None)


def check_filled(result: dict[str, Any], missing: Any) -> None:
  """What is filled in: as config.missing says, and counted."""
  sound, face = ([segment[half] for segment in result['segments']] for half in ('has_sound', 'has_face'))
  how = missing['part' if any(sound) and any(face) else 'whole']
  fill = how != 'leave_out'
  for segment, heard, seen in zip(result['segments'], sound, face, strict=True):
    lacks = '' if heard == seen else ('face' if heard else 'sound')
    assert segment['filled'] == (lacks if fill else '')
    assert (segment['hybrid'] is not None) == ((heard or seen) if fill else (heard and seen))
  filled = sum(segment['filled'] != '' for segment in result['segments'])
  counts = {'segments': len(sound), 'without_sound': sound.count(False), 'without_face': face.count(False)}
  assert result['missing'] == {**counts, 'filled': filled, 'how': how if filled else ''}
  assert result['by'] == ('hybrid' if result['methods']['hybrid'] else 'audio' if any(sound) else 'visual')


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_whatever_plays_is_judged(case: Case, model: inference.Model, take: Take, tmp_path: pathlib.Path) -> None:
  case.make(tmp_path / case.name, take)
  result = model.predict(tmp_path / case.name)
  assert result['file'] == case.name and result['model']['trained_on']
  check_plain(result)
  check_segments(result, case)
  check_filled(result, model.config.missing)
  assert len(result['warnings']) == bool(case.says) and all(case.says in said for said in result['warnings'])


def test_a_sound_of_its_own_goes_before_the_films(model: inference.Model, take: Take, tmp_path: pathlib.Path) -> None:
  film(tmp_path / 'a.mp4', take.images, 0 * take.wave[None])
  film(tmp_path / 'a.wav', None, np.tile(take.wave, 2)[None], sound='pcm_s16le')
  result = model.predict(tmp_path / 'a.mp4', tmp_path / 'a.wav')
  check_plain(result)
  check_segments(result, Case('', accidents.whole, 2 * SECONDS, seen=(0.0, SECONDS + 0.5)))
  check_filled(result, model.config.missing)


@pytest.mark.parametrize(
  ('name', 'make', 'says'),
  [
    ('words.mp4', lambda path, take: path.write_text('this is no film\n' * 50), 'cannot be opened'),
    ('empty.wav', lambda path, take: path.touch(), 'cannot be opened'),
    ('folder.mp4', lambda path, take: path.mkdir(), 'no regular file'),
    ('gone.mp4', lambda path, take: None, 'no such file'),
    (
      'click.wav',
      lambda path, take: film(path, None, take.wave[None, :882], sound='pcm_s16le'),
      'shorter than one frame',
    ),
    ('wall.mp4', lambda path, take: film(path, bare(take), None), 'no face was found'),
    ('quiet_wall.mp4', lambda path, take: film(path, bare(take), 0 * take.wave[None]), 'the sound is silent'),
    ('quiet.wav', lambda path, take: film(path, None, 0 * take.wave[None], sound='pcm_s16le'), 'the sound is silent'),
  ],
)
def test_what_holds_neither_voice_nor_face_gets_a_sentence(
  model: inference.Model, take: Take, tmp_path: pathlib.Path, name: str, make: Callable[..., Any], says: str
) -> None:
  make(tmp_path / name, take)
  with pytest.raises(own_clip.Unreadable) as failure:
    model.predict(tmp_path / name)
  assert name in str(failure.value) and says in str(failure.value) and '\n' not in str(failure.value)


def test_a_clip_without_an_end_costs_no_more_than_its_time(
  model: inference.Model, take: Take, tmp_path: pathlib.Path
) -> None:
  film(tmp_path / 'a.mp4', np.tile(take.images, (12, 1, 1, 1)), None, picture='mpeg4')
  told = r'a\.mp4: decoding it takes more than 0\.4 s'
  with pytest.raises(own_clip.Unreadable, match=told), model.opened(tmp_path / 'a.mp4', total=0.4):
    pytest.fail('it was decoded')


def test_nothing_is_left_of_a_clip(
  model: inference.Model, take: Take, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  accidents.whole(tmp_path / 'a.mp4', take)
  (tmp_path / 'scratch').mkdir()
  monkeypatch.setattr('tempfile.tempdir', str(tmp_path / 'scratch'))
  with model.opened(tmp_path / 'a.mp4') as clip:
    assert list((tmp_path / 'scratch').iterdir()) == [clip.workdir]
    inference.judge(model, clip)
    assert str(clip.workdir) not in pathlib.Path('/proc/self/maps').read_text()  # nor in the memory, while it is open
  with pytest.raises(own_clip.Unreadable):
    model.predict(tmp_path / 'scratch')
  assert not list((tmp_path / 'scratch').iterdir())

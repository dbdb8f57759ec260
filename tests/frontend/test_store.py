"""The store: arrays as numpy writes them, clips prepared once and whole, halves that are missing and why."""

import concurrent.futures
import dataclasses
import fcntl
import gc
import os
import pathlib
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from emo_jax.corpora.clip import Clip, content_hash
from emo_jax.frontend import audio, haar, halves, media, segments, store
from emo_jax.frontend.halves import prepare_clip
from emo_jax.frontend.store import Store, append_npy, mend, tidy

Encode = Callable[..., pathlib.Path]
SETTINGS: dict[str, Any] = {
  'sound': {'low_hz': 20.0, 'high_hz': 8000.0},
  'faces': {'detector': 'haar', 'every': 1, 'min_face': 0.2, 'hold': 0.5, 'size': (30, 22)},
}
RATE = 16000


@pytest.mark.parametrize('dtype', [np.float32, np.uint8, np.float64])
def test_blocks_in_rows_make_the_file_that_numpy_saves(tmp_path: pathlib.Path, dtype: type) -> None:
  whole = np.random.default_rng(0).integers(0, 255, (2345, 3, 4)).astype(dtype)
  assert append_npy(tmp_path / 'a.npy', iter(np.split(whole, [1, 9, 1000]))) == 2345
  np.save(tmp_path / 'b.npy', whole)
  assert (tmp_path / 'a.npy').read_bytes() == (tmp_path / 'b.npy').read_bytes()


def test_blocks_in_columns_make_the_file_that_numpy_saves(tmp_path: pathlib.Path) -> None:
  whole = np.asfortranarray(np.random.default_rng(0).normal(size=(64, 1234)).astype(np.float32))
  assert append_npy(tmp_path / 'a.npy', iter(np.split(whole, [10, 11, 900], axis=1)), fortran=True) == 1234
  np.save(tmp_path / 'b.npy', whole)
  assert (tmp_path / 'a.npy').read_bytes() == (tmp_path / 'b.npy').read_bytes()
  np.testing.assert_array_equal(np.load(tmp_path / 'a.npy', mmap_mode='r'), whole)


def test_no_blocks_leave_no_file(tmp_path: pathlib.Path) -> None:
  assert append_npy(tmp_path / 'a.npy', iter(())) == 0
  assert append_npy(tmp_path / 'a.npy', iter([np.zeros((0, 3))])) == 0
  assert not list(tmp_path.iterdir())


def noise(seconds: float, *, seed: int = 0, rate: int = RATE) -> np.ndarray:
  return np.random.default_rng(seed).integers(-9000, 9000, (1, round(seconds * rate))).astype(np.int16)


def clip_of(picture: pathlib.Path | None, sound: pathlib.Path | None) -> Clip:
  return Clip('a', picture=picture, sound=sound, speaker='s', emotion='joy', corpus='made')


def prepared(clip: Clip, folder: pathlib.Path) -> dict[str, Any]:
  return prepare_clip(clip, {str(path): content_hash(path) for path in clip.files}, str(folder), SETTINGS)


def store_of(folder: pathlib.Path, *clips: Clip, **options: bool) -> Store:
  return Store(folder, [prepared(clip, folder) for clip in clips], length=64, shift=30, **options)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> None:
  """A detector that sees a face in every frame but those that are darker than 20."""
  seen = np.array([10.0, 5.0, 40.0, 40.0]), np.array([[22.0, 20.0], [38.0, 20.0]])
  monkeypatch.setattr(haar, 'find', lambda image, near, smallest: [seen] if image.mean() > 20 else [])


def greys(*levels: int) -> list[np.ndarray]:
  return [np.full((48, 64, 3), level, np.uint8) for level in levels]


@pytest.fixture
def sound(encode: Encode, tmp_path: pathlib.Path) -> Clip:
  return clip_of(None, encode(tmp_path / 'a.wav', wave=noise(1.2), sound='pcm_s16le', rate=RATE))


def test_windows_are_cut_from_the_spectrogram(sound: Clip, tmp_path: pathlib.Path) -> None:
  store = store_of(tmp_path / 'store', sound)
  table = store.table()
  assert table.start.tolist() == [0, 30] and table.has_audio.all() and not table.has_face.any()
  whole = next(audio.log_mel(iter([noise(1.2)[0] / np.float32(32768)]), RATE, low=20.0, high=8000.0))
  windows = store.audio(table)
  assert windows.shape == (2, 64, 64) and windows.dtype == np.float32
  np.testing.assert_allclose(windows, [whole[:, :64], whole[:, 30:94]], atol=1e-4)
  assert store.facts(0, 'audio')['rate'] == RATE and store.facts(0, 'audio')['column_s'] == 0.01


def test_seconds_of_a_column_come_from_the_shift_in_samples(encode: Encode, tmp_path: pathlib.Path) -> None:
  path = encode(tmp_path / 'a.wav', wave=noise(0.5), sound='pcm_s16le', rate=22050)
  assert store_of(tmp_path / 'store', clip_of(None, path)).facts(0, 'audio')['column_s'] == 221 / 22050


def test_a_short_sound_is_padded_with_its_edge_or_refused(encode: Encode, tmp_path: pathlib.Path, sound: Clip) -> None:
  short = clip_of(None, encode(tmp_path / 'b.wav', wave=noise(0.3), sound='pcm_s16le', rate=RATE))
  store = store_of(tmp_path / 'store', sound, short)
  table = store.table()
  assert table.clip.tolist() == [0, 0, 1]
  window = store.audio(table)[2]
  columns = 1 + (4800 - 400) // 160
  assert (window[:, columns:] == window[:, columns - 1 : columns]).all() and np.ptp(window[0, :columns]) > 1
  assert store_of(tmp_path / 'store', sound, short, refuse_short=True).table().clip.tolist() == [0, 0]


def test_a_long_clip_is_stored_whole_and_read_from_disk(encode: Encode, tmp_path: pathlib.Path) -> None:
  path = encode(tmp_path / 'a.wav', wave=noise(45.0), sound='pcm_s16le', rate=RATE)
  store = store_of(tmp_path / 'store', clip_of(None, path))
  columns = 1 + (45 * RATE - 400) // 160
  assert columns > 4 * audio.CHUNK
  table = store.table()
  assert len(table) == 1 + (columns - 64) // 30
  assert isinstance(store._array(store.records[0]['audio']), np.memmap)
  last = noise(45.0)[0, int(table.start[-1]) * 160 :] / np.float32(32768)
  whole = next(audio.log_mel(iter([last]), RATE, low=20.0, high=8000.0))
  np.testing.assert_allclose(store.audio(table.take(np.array([-1])))[0], whole[:, :64], atol=1e-4)


def test_faces_are_the_aligned_frames_of_a_window(found: None, encode: Encode, tmp_path: pathlib.Path) -> None:
  levels = [60, *range(64, 204, 7)]
  path = encode(tmp_path / 'a.mp4', images=greys(*levels), wave=noise(0.84, rate=44100))
  store = store_of(tmp_path / 'store', clip_of(path, path))
  assert store.records[0]['reason'] == ''
  table = store.table()
  assert table.has_face.all() and table.has_audio.all() and table.frames[0].tolist() == list(range(16))
  crops = store.faces(table.take(np.array([0])))
  assert crops.shape == (1, 16, 30, 22, 3) and crops.dtype == np.uint8
  assert crops.mean((0, 2, 3, 4)) == pytest.approx(levels[:16], abs=4)
  assert store.mean_faces(table.take(np.array([0, 0]))).shape == (2, 1, 30, 22, 3)
  facts = store.facts(0, 'faces')
  assert facts['times'] == pytest.approx(np.arange(len(levels)) / 25)
  assert facts['confidence'].shape == (len(levels),) and facts['eyes'].shape == (len(levels), 2, 2)


def test_a_mean_face_is_of_the_frames_that_have_a_face(
  found: None, encode: Encode, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  path = encode(tmp_path / 'a.mp4', images=greys(*[100] * 20, *[140] * 20))
  store = store_of(tmp_path / 'store', clip_of(path, path))
  table = store.table()
  assert store.mean_faces(table)[0, 0].mean() == pytest.approx(120, abs=2)
  facts = store.facts(0, 'faces')
  half = {**facts, 'confidence': np.where(np.arange(40) < 20, facts['confidence'], 0)}
  monkeypatch.setattr(Store, 'facts', lambda self, clip, modality: half)
  store = Store(store.folder, store.records, length=64, shift=30)
  means = store.mean_faces(table)
  assert means.dtype == np.uint8 and len(means) == len(table)
  assert means.mean() == pytest.approx(100, abs=2)


def written(folder: pathlib.Path, frames: np.ndarray, confidence: np.ndarray) -> Store:
  """A store with one clip of these face frames at 30 a second."""
  facts = {'times': np.arange(len(frames)) / 30, 'confidence': confidence}
  store.write(folder / 'faces-0' / 'a', iter([frames]), facts, store.nothing, fortran=False)
  return Store(folder, [{'audio': None, 'faces': 'faces-0/a'}], length=64, shift=30)


@pytest.mark.parametrize('count', [20, 256, 257, 1400])
@pytest.mark.parametrize('share', [0.6, 1.0])
def test_a_mean_face_taken_in_parts_is_numpys_of_the_whole(tmp_path: pathlib.Path, count: int, share: float) -> None:
  random = np.random.default_rng(count)
  frames, seen = random.integers(256, size=(count, 9, 8, 3), dtype=np.uint8), random.random(count) < share
  clip = written(tmp_path, frames, seen.astype(np.float32))
  want = np.mean(frames[seen], axis=0).round().astype(np.uint8)
  got = clip.mean_faces(clip.table().take(np.array([0])))
  assert got.dtype == np.uint8 and got[0, 0].tobytes() == want.tobytes()


def memory(line: str) -> int:
  """Bytes of this process, as a line of its status says."""
  status = pathlib.Path('/proc/self/status').read_text()
  return 1024 * int(status.partition(f'{line}:')[2].split()[0])


def test_a_long_clip_does_not_stay_in_memory(tmp_path: pathlib.Path) -> None:
  frames = np.repeat(np.arange(200, dtype=np.uint8), 80)[:, None, None, None] * np.ones((1, 48, 48, 3), np.uint8)
  clip, size = written(tmp_path, frames, np.ones(len(frames))), frames.nbytes
  assert size > 100 << 20
  frames = frames[:0].copy()
  table = clip.table()
  pathlib.Path('/proc/self/clear_refs').write_text('5')  # forgets the peak so far
  before = memory('VmRSS')
  assert clip.mean_faces(table.take(np.array([0])))[0, 0, 0, 0, 0] == round(199 / 2)
  assert memory('VmHWM') - before < size / 4
  for release, want in ((clip.release, 0), (lambda: None, 0.9 * size)):
    clip.release()
    before = memory('RssFile')
    for batch in np.array_split(np.arange(len(table)), 20):
      rows = clip.faces(table.take(batch))
      release()
    assert want - size / 20 < memory('RssFile') - before < want + size / 4
  assert rows[-1, -1].mean() == 199
  clip.release()
  np.testing.assert_array_equal(clip.faces(table.take(batch)), rows)


def test_a_film_whose_second_pass_breaks_off_is_cut(
  found: None, encode: Encode, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  path = encode(tmp_path / 'a.mp4', images=greys(*[90] * 40))
  passes: Iterator[int | None] = iter([None, 20])
  pictures = media.pictures
  monkeypatch.setattr(media, 'pictures', lambda *args: iter(list(pictures(*args))[: next(passes)]))
  monkeypatch.setattr(halves, 'KEPT', 0)
  store = store_of(tmp_path / 'store', clip_of(path, None))
  assert store.table().frames.max() == 15 and len(store.table()) == 1  # 0.8 s, where 40 frames are 1.6 s


def state(folder: pathlib.Path) -> dict[str, tuple[int, int, bytes]]:
  files = [path for path in folder.rglob('*') if path.is_file() and path != folder / 'lock']
  return {str(f.relative_to(folder)): (f.stat().st_mtime_ns, f.stat().st_ino, f.read_bytes()) for f in files}


def test_a_second_call_touches_nothing(
  found: None, encode: Encode, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  path = encode(tmp_path / 'a.mp4', images=greys(*[90] * 20), wave=noise(0.8, rate=44100))
  record = prepared(clip_of(path, path), tmp_path / 'store')
  before = state(tmp_path / 'store')
  assert sorted(pathlib.Path(name).suffix for name in before) == ['.npy', '.npy', '.npz', '.npz']
  monkeypatch.setattr(media, 'probe', lambda name: pytest.fail('opened again'))
  assert prepared(clip_of(path, path), tmp_path / 'store') == record
  assert state(tmp_path / 'store') == before


@pytest.mark.parametrize('half', ['audio', 'faces'])
def test_a_half_written_clip_is_made_again(found: None, encode: Encode, tmp_path: pathlib.Path, half: str) -> None:
  path = encode(tmp_path / 'a.mp4', images=greys(*[90] * 20), wave=noise(0.8, rate=44100))
  record = prepared(clip_of(path, path), tmp_path / 'store')
  whole = {name: content for name, (*_, content) in state(tmp_path / 'store').items() if name.endswith('.npy')}
  (tmp_path / 'store' / f'{record[half]}.npz').unlink()  # the facts come last: without them the array is not done
  (tmp_path / 'store' / f'{record[half]}.npy').write_bytes(b'torn')
  assert prepared(clip_of(path, path), tmp_path / 'store') == record
  after = state(tmp_path / 'store')
  assert {name: after[name][2] for name in whole} == whole
  assert f'{record[half]}.npz' in after


def test_an_interrupted_write_is_not_taken_for_done(
  sound: Clip, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  replace = os.replace

  def killed(source: Any, target: Any) -> None:
    if str(target).endswith('.npz'):
      raise KeyboardInterrupt
    replace(source, target)

  with monkeypatch.context() as patch:
    patch.setattr(os, 'replace', killed)
    with pytest.raises(KeyboardInterrupt):
      prepared(sound, tmp_path / 'store')
  assert prepared(sound, tmp_path / 'store')['audio']
  assert len(store_of(tmp_path / 'store', sound).table()) == 2


def film(encode: Encode, folder: pathlib.Path) -> Clip:
  path = encode(folder / 'a.mp4', images=greys(*[90] * 20), wave=noise(0.8, rate=44100))
  return clip_of(path, path)


def test_the_facts_tell_size_and_checksum_of_the_array(found: None, encode: Encode, tmp_path: pathlib.Path) -> None:
  store = store_of(tmp_path / 'store', film(encode, tmp_path))
  for half in ('audio', 'faces'):
    array = (tmp_path / 'store' / f'{store.records[0][half]}.npy').read_bytes()
    facts = store.facts(0, half)
    assert (facts['bytes'], facts['crc32']) == (len(array), zlib.crc32(array))


DAMAGE: dict[str, Callable[[pathlib.Path], Any]] = {
  'truncated': lambda stem: os.truncate(f'{stem}.npy', 1000),
  'longer': lambda stem: os.truncate(f'{stem}.npy', 1 << 20),
  'one bit': lambda stem: pathlib.Path(f'{stem}.npy').write_bytes(flipped(pathlib.Path(f'{stem}.npy'))),
  'no array': lambda stem: os.unlink(f'{stem}.npy'),
  'facts truncated': lambda stem: os.truncate(f'{stem}.npz', 100),
  'facts empty': lambda stem: os.truncate(f'{stem}.npz', 0),
  'facts with one bit': lambda stem: pathlib.Path(f'{stem}.npz').write_bytes(flipped(pathlib.Path(f'{stem}.npz'))),
}


def flipped(path: pathlib.Path) -> bytes:
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  return bytes(content)


@pytest.mark.parametrize('damage', DAMAGE)
@pytest.mark.parametrize('half', ['audio', 'faces'])
def test_what_is_damaged_is_undone_and_made_again(
  found: None, encode: Encode, tmp_path: pathlib.Path, half: str, damage: str
) -> None:
  clip, folder = film(encode, tmp_path), tmp_path / 'store'
  record = prepared(clip, folder)
  before, stems = contents(folder), {record['audio'], record['faces']}
  assert mend(folder, stems) == set() and contents(folder) == before
  DAMAGE[damage](folder / record[half])
  assert mend(folder, stems) == {record[half]}
  assert prepared(clip, folder) == record
  assert contents(folder) == before


def contents(folder: pathlib.Path) -> dict[str, bytes]:
  return {name: content for name, (*_, content) in state(folder).items()}


def test_an_array_beside_facts_that_know_of_none_is_damage(encode: Encode, tmp_path: pathlib.Path) -> None:
  path = encode(tmp_path / 'a.mp4', images=greys(*[90] * 5))
  folder, clip = tmp_path / 'store', clip_of(path, None)
  assert prepared(clip, folder)['reason'] == 'no face was found'
  (stem,) = (name.removesuffix('.npz') for name in contents(folder))
  assert mend(folder, {stem}) == set()
  (folder / f'{stem}.npy').write_bytes(b'from where?')
  assert mend(folder, {stem}) == {stem}
  assert prepared(clip, folder)['reason'] == 'no face was found'
  assert list(contents(folder)) == [f'{stem}.npz']


def test_what_is_not_in_the_store_is_no_damage(tmp_path: pathlib.Path) -> None:
  tidy(tmp_path / 'nowhere')
  assert mend(tmp_path / 'nowhere', {'audio-0/a'}) == set()
  assert not (tmp_path / 'nowhere').exists()


def test_what_killed_runs_left_goes_when_nobody_writes(sound: Clip, tmp_path: pathlib.Path) -> None:
  folder = tmp_path / 'store'
  prepared(sound, folder)
  left = folder / 'partial' / 'tmpx' / 'partial'
  left.parent.mkdir()
  left.write_bytes(b'half an array')
  with open(folder / 'lock') as lock:  # as a process that is writing holds it
    fcntl.flock(lock, fcntl.LOCK_SH)
    tidy(folder)
    assert left.exists()
  tidy(folder)
  assert not left.exists()
  assert prepared(sound, folder)['audio']


def test_while_a_clip_is_written_nothing_is_tidied_up(
  sound: Clip, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  log_mel = audio.log_mel

  def columns(*arguments: Any, **options: Any) -> Iterator[np.ndarray]:
    (own,) = (tmp_path / 'store' / 'partial').iterdir()
    tidy(tmp_path / 'store')
    assert own.exists()
    yield from log_mel(*arguments, **options)

  monkeypatch.setattr(audio, 'log_mel', columns)
  assert prepared(sound, tmp_path / 'store')['audio']
  assert not list((tmp_path / 'store' / 'partial').iterdir())


def test_a_store_of_another_version_is_other_folders(
  sound: Clip, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(halves, 'VERSIONS', {half: number - 1 for half, number in halves.VERSIONS.items()})
  old = prepared(sound, tmp_path / 'store')
  before = state(tmp_path / 'store')
  monkeypatch.undo()
  new = prepared(sound, tmp_path / 'store')
  assert pathlib.Path(new['audio']).parent != pathlib.Path(old['audio']).parent
  after = state(tmp_path / 'store')
  assert len(after) == 2 * len(before) and {name: after[name] for name in before} == before


def test_warnings_stay_with_the_clip(sound: Clip, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  sentence = 'caf\u00e9 \udcff: breaks off'
  heed = audio.heed

  def noted(blocks: Any, notes: list[str], **options: Any) -> Any:
    yield from heed(blocks, notes, **options)
    notes.append(sentence)  # known at the end

  monkeypatch.setattr(audio, 'heed', noted)
  assert prepared(sound, tmp_path / 'store')['warnings'] == [sentence]
  monkeypatch.undo()
  assert prepared(sound, tmp_path / 'store')['warnings'] == [sentence]  # from the store


@pytest.mark.parametrize('error', [OSError(28, 'full'), ImportError('no cv2'), MemoryError('a lot')])
def test_a_fault_of_the_machine_is_not_the_clips(
  sound: Clip, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
  def failing(*arguments: Any, **options: Any) -> Any:
    raise error

  monkeypatch.setattr(audio, 'log_mel', failing)
  with pytest.raises(type(error)):
    prepared(sound, tmp_path / 'store')


def test_an_error_of_the_decoding_library_is_the_clips_even_where_it_is_an_oserror(
  sound: Clip, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  import av

  def failing(*arguments: Any, **options: Any) -> Any:
    raise av.error.PermissionError(1, 'odd', 'a.wav')

  monkeypatch.setattr(audio, 'log_mel', failing)
  assert issubclass(av.error.PermissionError, OSError)
  assert prepared(sound, tmp_path / 'store')['reason'].startswith('a.wav: sound failed with PermissionError')


def test_what_could_not_be_hashed_is_not_stored_under_the_name_of_an_error(sound: Clip, tmp_path: pathlib.Path) -> None:
  hashes = {str(sound.sound): 'OSError:a.wav'}
  record = prepare_clip(sound, hashes, str(tmp_path / 'store'), SETTINGS)
  assert record['audio'] is None and record['reason'] == f'{sound.sound}: cannot be read (OSError)'
  assert not (tmp_path / 'store').exists()


def test_other_settings_and_other_bytes_are_kept_apart(encode: Encode, sound: Clip, tmp_path: pathlib.Path) -> None:
  first = prepared(sound, tmp_path / 'store')
  hashes = {str(sound.sound): content_hash(sound.files[0])}
  other = {**SETTINGS, 'sound': {'low_hz': 20.0, 'high_hz': 4000.0}}
  assert prepare_clip(sound, hashes, str(tmp_path / 'store'), other)['audio'] != first['audio']
  again = clip_of(None, encode(tmp_path / 'b.wav', wave=noise(1.2, seed=1), sound='pcm_s16le', rate=RATE))
  assert prepared(again, tmp_path / 'store')['audio'] != first['audio']
  same = clip_of(None, encode(tmp_path / 'c.wav', wave=noise(1.2), sound='pcm_s16le', rate=RATE))
  assert prepared(same, tmp_path / 'store')['audio'] == first['audio']  # the name does not matter


@pytest.mark.parametrize('content', [b'', b'words, not a film\n' * 50])
def test_what_cannot_be_decoded_is_rejected_with_the_reason(tmp_path: pathlib.Path, content: bytes) -> None:
  path = tmp_path / 'bad.mp4'
  path.write_bytes(content)
  record = prepared(clip_of(path, path), tmp_path / 'store')
  assert record['audio'] is None and record['faces'] is None
  assert str(path) in record['reason'] and 'cannot be opened' in record['reason']
  assert record['reason'].count('cannot be opened') == 1  # said once, not once for each half


def test_a_missing_file_is_rejected_with_the_reason(tmp_path: pathlib.Path) -> None:
  path = tmp_path / 'gone.mp4'
  record = prepared(clip_of(path, path), tmp_path / 'store')
  assert not record['audio'] and not record['faces'] and str(path) in record['reason']


def test_a_film_without_sound_is_half_a_clip(found: None, encode: Encode, tmp_path: pathlib.Path) -> None:
  path = encode(tmp_path / 'mute.mp4', images=greys(*[90] * 20))
  record = prepared(clip_of(path, path), tmp_path / 'store')
  assert record['audio'] is None and record['faces'] and record['reason'] == 'mute.mp4 has no sound'
  table = store_of(tmp_path / 'store', clip_of(path, path)).table()
  assert table.has_face.tolist() == [True] and table.has_audio.tolist() == [False]


def test_a_sound_without_film_is_half_a_clip(sound: Clip, tmp_path: pathlib.Path) -> None:
  record = prepared(dataclasses.replace(sound, picture=sound.sound), tmp_path / 'store')
  assert record['audio'] and record['faces'] is None and record['reason'] == 'a.wav has no picture'


def test_a_film_without_a_face_and_a_sound_below_one_frame_say_so(encode: Encode, tmp_path: pathlib.Path) -> None:
  film = encode(tmp_path / 'a.mp4', images=greys(*[90] * 5))
  click = encode(tmp_path / 'b.wav', wave=noise(0.02), sound='pcm_s16le', rate=RATE)
  for _ in range(2):  # the second time from the store
    record = prepared(clip_of(film, click), tmp_path / 'store')
    assert not record['audio'] and not record['faces']
    assert record['reason'] == 'the sound is shorter than one frame of 25 ms; no face was found'
  assert len(store_of(tmp_path / 'store', clip_of(film, click)).table()) == 0


def test_half_a_clip_that_is_not_asked_for_needs_no_reason(sound: Clip, tmp_path: pathlib.Path) -> None:
  assert prepared(sound, tmp_path / 'store')['reason'] == ''


def test_a_failed_clip_leaves_nothing_in_the_store(
  sound: Clip, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  def broken(path: str, notes: list[str]) -> Iterator[np.ndarray]:
    raise media.UnreadableMedia(f'{path}: broken')
    yield np.zeros(0, np.float32)

  monkeypatch.setattr(media, 'sound', broken)
  assert prepared(sound, tmp_path / 'store')['reason'].endswith('broken')
  assert state(tmp_path / 'store') == {}


def test_when_every_clip_is_refused_the_table_is_empty(encode: Encode, tmp_path: pathlib.Path) -> None:
  short = clip_of(None, encode(tmp_path / 'b.wav', wave=noise(0.3), sound='pcm_s16le', rate=RATE))
  table = store_of(tmp_path / 'store', short, refuse_short=True).table()
  assert isinstance(table, segments.Segments) and len(table) == 0


def test_facts_are_read_whole_by_any_number_of_threads(tmp_path: pathlib.Path) -> None:
  """Python 3.11's parser, which numpy reads headers by, loses count where threads meet in it: provoked here."""
  for number in range(4):
    np.savez(tmp_path / f'{number}.npz', crc32=np.asarray(7), bytes=np.asarray(5), warnings=np.array(['a', 'bb']))
  before, threshold, end = sys.getswitchinterval(), gc.get_threshold(), time.monotonic() + 4

  class Cycle:
    def __init__(self) -> None:
      self.own = self

    def __del__(self) -> None:
      sum(range(20))  # lets go of the interpreter in the midst of whoever is collecting

  def read(number: int) -> int:
    lost = 0
    while time.monotonic() < end:
      Cycle()
      lost += store.read_facts(tmp_path / str(number)) is None
    return lost

  try:
    sys.setswitchinterval(1e-6)
    gc.set_threshold(20, 2, 2)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
      assert sum(pool.map(read, range(4))) == 0
  finally:
    sys.setswitchinterval(before)
    gc.set_threshold(*threshold)

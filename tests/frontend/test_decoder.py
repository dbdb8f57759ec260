"""Decoders in processes of their own: what they prepare, and what remains when they crash, hang or are orphaned."""

import functools
import math
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import threadpoolctl

from emo_jax.corpora.clip import Clip, content_hash
from emo_jax.frontend import decoder, halves, store

BAD = (sys.executable, str(pathlib.Path(__file__).with_name('bad_decoder.py')))
SETTINGS: dict[str, Any] = {'sound': {'low_hz': 20.0, 'high_hz': 8000.0}}


@pytest.fixture(autouse=True)
def no_child_is_left() -> Iterator[None]:
  yield
  decoder.end()
  assert not decoder._children


@pytest.fixture
def wav(encode: Callable[..., pathlib.Path], tmp_path: pathlib.Path) -> pathlib.Path:
  wave = np.random.default_rng(0).integers(-9000, 9000, (1, 16000)).astype(np.int16)
  return encode(tmp_path / 'a.wav', wave=wave, sound='pcm_s16le', rate=16000)


def bad(path: pathlib.Path, do: str, *, limit: float = 5, total: float = math.inf, **settings: Any) -> dict[str, Any]:
  """A job for the bad decoder."""
  target = str(path.parent / 'store' / 'audio-0' / 'a')
  job = 'audio', str(path), target, {'do': do, **settings}
  return decoder.prepare_half(*job, limit=limit, total=total, command=BAD)


def tries(path: pathlib.Path) -> list[str]:
  """The process ids of the bad decoders that had a go at this file."""
  return pathlib.Path(f'{path}.tries').read_text().split()


def is_gone(pid: int) -> bool:
  try:
    state = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
  except (FileNotFoundError, ProcessLookupError):
    return True
  return state == 'Z'


def wait_for(condition: Callable[[], bool], *, seconds: float = 20) -> None:
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, 'in vain'
    time.sleep(0.02)


def prepared(path: pathlib.Path, folder: pathlib.Path, prepare: Callable[..., dict[str, Any]]) -> dict[str, Any]:
  clip = Clip('a', picture=None, sound=path, speaker='s', emotion='joy', corpus='made')
  return halves.prepare_clip(clip, {str(path): content_hash(path)}, str(folder), SETTINGS, prepare)


def contents(folder: pathlib.Path) -> dict[str, bytes]:
  return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.mark.parametrize(
  'name',
  ['a.wav', 'with space.wav', 'it\'s "new"\nline.wav', 'M\u00e4rchen.wav', os.fsdecode(b'byte \xff\xfe.wav'), '-c.wav'],
)
def test_a_child_makes_what_is_made_without_it(wav: pathlib.Path, tmp_path: pathlib.Path, name: str) -> None:
  path = wav.rename(tmp_path / name)
  record = prepared(path, tmp_path / 'by child', functools.partial(decoder.prepare_half, limit=60))
  with threadpoolctl.threadpool_limits(1):  # children have one thread: the last bits of a matrix product hang on it
    assert record == prepared(path, tmp_path / 'here', halves.prepare_half)
  assert record['audio'] and record['reason'] == ''
  assert contents(tmp_path / 'by child') == contents(tmp_path / 'here')


def test_modules_in_the_working_directory_are_not_run(
  wav: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  for name in ('numpy', 'json', 'emo_jax'):
    (tmp_path / f'{name}.py').write_text('raise SystemExit(7)')
  monkeypatch.chdir(tmp_path)
  assert prepared(wav, tmp_path / 'store', functools.partial(decoder.prepare_half, limit=60))['audio']


def test_a_bad_file_is_answered_as_without_a_child(tmp_path: pathlib.Path) -> None:
  path = tmp_path / os.fsdecode(b'no sound \xff.wav')
  path.write_bytes(b'words\n' * 100)
  record = prepared(path, tmp_path / 'by child', functools.partial(decoder.prepare_half, limit=60))
  assert record == prepared(path, tmp_path / 'here', halves.prepare_half)
  assert record['audio'] is None and 'cannot be opened' in record['reason']


def test_what_is_in_the_store_needs_no_child(wav: pathlib.Path, tmp_path: pathlib.Path) -> None:
  record = prepared(wav, tmp_path / 'store', halves.prepare_half)
  nobody = functools.partial(decoder.prepare_half, limit=60, command=('/nowhere',))
  assert prepared(wav, tmp_path / 'store', nobody) == record


def test_one_child_serves_clip_after_clip_and_threads_have_their_own(tmp_path: pathlib.Path) -> None:
  first = bad(tmp_path / 'a', 'who')['reason']
  assert bad(tmp_path / 'b', 'who')['reason'] == first != str(os.getpid())
  assert os.getpgid(int(first)) == int(first)  # Ctrl-C does not reach it
  slow = threading.Thread(target=bad, args=(tmp_path / 'c', 'slow'))
  slow.start()
  wait_for(pathlib.Path(f'{tmp_path}/c.tries').exists)
  assert bad(tmp_path / 'd', 'who')['reason'] != first
  slow.join()
  assert tries(tmp_path / 'c') == [first]


@pytest.mark.parametrize(('do', 'how'), [('crash', 'signal 11 SIGSEGV'), ('exit', 'exit status 3')])
def test_a_crash_costs_its_clip_alone_and_is_tried_once_more(tmp_path: pathlib.Path, do: str, how: str) -> None:
  before = bad(tmp_path / 'before', 'who')['reason']
  answer = bad(tmp_path / 'a.mp4', do)
  assert answer == {'reason': f'a.mp4: the decoder died ({how}), and once more in a fresh process', 'again': 0}
  assert len(set(tries(tmp_path / 'a.mp4'))) == 2 and tries(tmp_path / 'a.mp4')[0] == before
  assert bad(tmp_path / 'b.mp4', 'echo')['reason'] == str(tmp_path / 'b.mp4')


def test_a_crash_that_does_not_come_again_is_forgotten(tmp_path: pathlib.Path) -> None:
  assert bad(tmp_path / 'a', 'crash once') == {'reason': ''}
  assert len(tries(tmp_path / 'a')) == 2


@pytest.mark.parametrize('do', ['hang', 'hang for good'])
def test_a_hang_costs_its_clip_alone_and_is_not_tried_again(tmp_path: pathlib.Path, do: str) -> None:
  bad(tmp_path / 'before', 'who')
  started = time.monotonic()
  answer = bad(tmp_path / 'a.mp4', do, limit=1)
  assert 1 <= time.monotonic() - started < 6
  assert answer == {'reason': 'a.mp4: decoding it stood still for 1 s (config.executor.limit)', 'again': 1}
  (pid,) = tries(tmp_path / 'a.mp4')
  assert is_gone(int(pid))
  assert bad(tmp_path / 'b.mp4', 'echo')['reason'] == str(tmp_path / 'b.mp4')


def test_a_clip_that_takes_longer_than_the_limit_passes_while_frames_come(tmp_path: pathlib.Path) -> None:
  bad(tmp_path / 'before', 'who')
  assert bad(tmp_path / 'a', 'slow', limit=1) == {'reason': ''}  # 2.4 s
  assert len(tries(tmp_path / 'a')) == 1


@pytest.mark.parametrize(('do', 'limit', 'begun'), [('endless', 1, True), ('endless', 1, False), ('hang', 60, True)])
def test_a_clip_that_takes_longer_than_it_may_in_all_is_given_up(
  tmp_path: pathlib.Path, do: str, limit: int, begun: bool
) -> None:
  if begun:
    bad(tmp_path / 'before', 'who')
  started = time.monotonic()
  answer = bad(tmp_path / 'a.mp4', do, limit=limit, total=1.5)
  assert 1.5 <= time.monotonic() - started < 15
  assert answer['reason'] == 'a.mp4: decoding it takes more than 1.5 s, which is all that it may take'
  (pid,) = tries(tmp_path / 'a.mp4')
  assert is_gone(int(pid))
  assert bad(tmp_path / 'b.mp4', 'echo', total=5)['reason'] == str(tmp_path / 'b.mp4')


def test_a_job_has_its_time_from_when_the_decoder_has_begun(tmp_path: pathlib.Path) -> None:
  slow = (sys.executable, '-c', f'import time; time.sleep(1.5); exec(open({BAD[1]!r}).read())')
  job = 'audio', str(tmp_path / 'a'), str(tmp_path / 's' / 'a' / 'a'), {'do': 'who'}
  assert decoder.prepare_half(*job, limit=5, total=1, command=slow)['reason'] == tries(tmp_path / 'a')[0]


def test_signs_of_life_are_few_and_wind_up_an_alarm() -> None:
  said: list[dict[str, Any]] = []

  def prepare(beat: store.Beat, **job: Any) -> dict[str, Any]:
    for _ in range(1000):
      beat()
    assert 60 < signal.getitimer(signal.ITIMER_REAL)[0] <= 90  # seconds left to one whose parent cannot kill it
    return {'reason': ''}

  assert decoder._do({'limit': 60, 'target': '/s/a/b'}, prepare, said.append) == {'reason': ''}
  assert said == [{}]
  assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_every_frame_and_every_block_of_sound_is_a_sign_of_life(
  encode: Callable[..., pathlib.Path], tmp_path: pathlib.Path
) -> None:
  beats = []
  wave = np.random.default_rng(0).integers(-9000, 9000, (1, 45 * 16000)).astype(np.int16)
  sound = encode(tmp_path / 'a.wav', wave=wave, sound='pcm_s16le', rate=16000)
  halves.prepare_half('audio', str(sound), f'{tmp_path}/s/a/a', SETTINGS['sound'], lambda: beats.append(0))
  assert len(beats) >= 45 / 10  # blocks of 10 s
  beats.clear()
  film = encode(tmp_path / 'a.mp4', images=[np.full((48, 64, 3), 90, np.uint8)] * 30)
  faces = {'detector': 'haar', 'every': 1, 'min_face': 0.2, 'hold': 1.0, 'size': (15, 11)}
  halves.prepare_half('faces', str(film), f'{tmp_path}/s/f/a', faces, lambda: beats.append(0))
  assert len(beats) >= 30


def test_what_libraries_print_is_not_taken_for_an_answer(tmp_path: pathlib.Path) -> None:
  assert bad(tmp_path / 'a', 'talk') == {'reason': ''}
  assert bad(tmp_path / 'b', 'echo') == {'reason': str(tmp_path / 'b')}


@pytest.mark.parametrize(
  ('error', 'sentence'),
  [
    (('OSError', 28, 'No space left on device'), 'the disk is full while writing {store}: free space, run the same'),
    (('OSError', 122, 'Disk quota exceeded'), 'the disk is full while writing {store}: free space'),
    (('OSError', 30, 'Read-only file system'), '{store} cannot be written ([Errno 30] Read-only file system)'),
    (('MemoryError', 'a lot'), 'out of memory (a lot): set a smaller config.executor.workers'),
    (('ImportError', 'no cv2'), 'no cv2'),
  ],
)
def test_a_fault_of_the_machine_stops_everything_in_a_sentence(
  tmp_path: pathlib.Path, error: tuple[Any, ...], sentence: str
) -> None:
  with pytest.raises(decoder.MachineFailure) as failure:
    bad(tmp_path / 'a', 'raise', error=error)
  assert str(failure.value).startswith(sentence.format(store=tmp_path / 'store'))
  assert len(tries(tmp_path / 'a')) == 1


def test_a_write_that_fails_is_the_machines_fault_and_leaves_nothing(wav: pathlib.Path) -> None:
  with pytest.raises(decoder.MachineFailure, match=r'store cannot be written .*File too large'):
    bad(wav, 'fill', real=SETTINGS['sound'])
  assert not any(contents(wav.parent / 'store').values())


def test_a_store_that_is_no_folder_is_the_machines_fault(wav: pathlib.Path, tmp_path: pathlib.Path) -> None:
  (tmp_path / 'store').write_text('a file')
  with pytest.raises(decoder.MachineFailure, match='store cannot be written'):
    prepared(wav, tmp_path / 'store', functools.partial(decoder.prepare_half, limit=60))


@pytest.mark.parametrize(
  ('command', 'message'),
  [
    (('/nowhere/python',), 'the decoder cannot be started .*No such file'),
    ((sys.executable, '-c', 'raise SystemExit(3)'), 'the decoder does not start .exit status 3.: try .*python'),
  ],
)
def test_a_decoder_that_does_not_start_stops_everything(
  tmp_path: pathlib.Path, command: tuple[str, ...], message: str
) -> None:
  with pytest.raises(decoder.MachineFailure, match=message):
    decoder.prepare_half('audio', 'a', str(tmp_path / 's' / 'a' / 'a'), {}, limit=5, command=command)


def test_a_decoder_that_takes_too_long_to_start_stops_everything(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(decoder, 'START_S', 0.2)
  with pytest.raises(decoder.MachineFailure, match=r'does not start: nothing came of it in 0\.2 s'):
    decoder.prepare_half('audio', 'a', 's/a/a', {}, limit=5, command=('/bin/sleep', '60'))


def test_the_children_of_a_killed_process_end_at_once(tmp_path: pathlib.Path) -> None:
  job = f'"audio", "{tmp_path}/a", "{tmp_path}/s/a/a", {{"do": "hang"}}'
  code = f'from emo_jax.frontend import decoder; decoder.prepare_half({job}, limit=60, command={BAD})'
  parent = subprocess.Popen([sys.executable, '-c', code], cwd=pathlib.Path(__file__).parents[2])
  wait_for((tmp_path / 'a.tries').exists)
  wait_for(lambda: (tmp_path / 'a.tries').read_text().endswith('\n'))
  (pid,) = map(int, tries(tmp_path / 'a'))
  assert not is_gone(pid)
  parent.kill()
  parent.wait()
  wait_for(lambda: is_gone(pid), seconds=3)


def test_when_preparing_ends_no_child_goes_on_and_none_is_started(tmp_path: pathlib.Path) -> None:
  told: list[str] = []

  def job() -> None:
    try:
      bad(tmp_path / 'a', 'hang', limit=60)
    except decoder.MachineFailure as failure:
      told.append(str(failure))

  bad(tmp_path / 'before', 'who')
  worker = threading.Thread(target=job)
  worker.start()
  wait_for((tmp_path / 'a.tries').exists)
  decoder.end()
  worker.join(10)
  assert told == ['preparing was broken off']
  assert len(tries(tmp_path / 'a')) == 1 and is_gone(int(tries(tmp_path / 'a')[0]))


def test_a_child_without_a_job_ends_and_the_next_job_starts_another(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setenv('BAD_DECODER_IDLE_S', '0.1')
  first = bad(tmp_path / 'a', 'who')['reason']
  wait_for(lambda: is_gone(int(first)))
  assert bad(tmp_path / 'b', 'who')['reason'] != first
  assert len(decoder._children) == 1

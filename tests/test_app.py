"""The local page: a stranger's clip gets its answer, or a sentence; nothing else can be had of it or is left."""

import concurrent.futures
import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import types
import uuid
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import pytest

from emo_jax.corpora import demo

pytest.importorskip('gradio', reason='gradio is not installed (the extra app)')

from emo_jax import app, gate

MAX_MB, MAX_SECONDS, TIME_LIMIT, QUEUE = 2, 5, 8, 3
EVIL = '<img src=x onerror="window.hit=1"><b>${window.hit=2}{{value}}.mp4'


@dataclasses.dataclass
class Server:
  """A page that runs: its process, its port, where it has its temporary files."""

  process: subprocess.Popen[str]
  port: int
  folder: pathlib.Path

  @property
  def url(self) -> str:
    return f'http://127.0.0.1:{self.port}/'

  def left(self) -> list[pathlib.Path]:
    """What lies in its folder, once the children of the last answer are done."""
    return [path for path in self.folder.rglob('*') if path.is_file()]

  def memory(self) -> float:
    """MB of it and its children."""
    me = psutil.Process(self.process.pid)
    total = 0
    for process in (me, *me.children(recursive=True)):
      with contextlib.suppress(psutil.NoSuchProcess):
        total += process.memory_info().rss
    return total / 1e6


def started(model: pathlib.Path, folder: pathlib.Path, *flags: str) -> Server:
  """Starts the program; its errors go to folder/errors.txt, its temporary files to folder/tmp."""
  (folder / 'tmp').mkdir()
  command = [sys.executable, '-m', 'emo_jax.app', f'--model={model}', '--port=0', *flags]
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'TMPDIR': str(folder / 'tmp')}
  with open(folder / 'errors.txt', 'w') as errors:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
  assert process.stdout
  said = process.stdout.readline()
  found = re.search(r'http://127\.0\.0\.1:(\d+)/', said)
  assert found, (folder / 'errors.txt').read_text()
  return Server(process, int(found[1]), folder / 'tmp')


@pytest.fixture(scope='module')
def server(model_folder: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
  limits = f'--max_mb={MAX_MB} --max_seconds={MAX_SECONDS} --time_limit={TIME_LIMIT} --queue={QUEUE}'
  made = started(model_folder, tmp_path_factory.mktemp('page'), *limits.split())
  with made.process:
    yield made
    made.process.kill()


@pytest.fixture(scope='module')
def film(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """A clip of four segments."""
  root = tmp_path_factory.mktemp('films')
  demo.make(root, speakers=1, takes=1, seconds=1.6, voice_noise=0.0, face_noise=0.0, seed=3)
  return root / 's01/happiness_01.mp4'


# In a browser


@pytest.fixture
def tab(browser: Any, server: Server) -> Iterator[Callable[..., Any]]:
  """() -> a visitor's tab with the page; at the end none may have complained or asked another host for anything."""
  tabs = []

  def visit(**options: Any) -> Any:
    one = browser.new_context(viewport={'width': 1280, 'height': 900}, **options).new_page()
    one.heard = {'complaints': [], 'asked': []}
    one.on('console', lambda line: one.heard['complaints'].append(line.text) if line.type == 'error' else None)
    one.on('pageerror', lambda error: one.heard['complaints'].append(str(error)))
    one.on('request', lambda request: one.heard['asked'].append(request.url))
    one.goto(server.url)
    one.wait_for_selector('input[type=file]', state='attached')
    tabs.append(one)
    return one

  yield visit
  for one in tabs:
    elsewhere = [url for url in one.heard['asked'] if not url.startswith((server.url, 'data:'))]
    assert (one.heard['complaints'], elsewhere) == ([], [])
    one.context.close()


def drop(tab: Any, content: pathlib.Path | bytes, name: str = 'clip.mp4') -> None:
  content = content.read_bytes() if isinstance(content, pathlib.Path) else content
  given = {'name': name, 'mimeType': 'video/mp4', 'buffer': content}
  tab.set_input_files('input[type=file]', [given])


def answered(tab: Any) -> Any:
  return tab.wait_for_selector('section.answer', timeout=60_000)


def test_a_clip_is_played_over_its_timeline(tab: Any, server: Server, film: pathlib.Path) -> None:
  page = tab()
  drop(page, film, 'mine.mp4')
  answered(page)
  assert page.inner_text('.answer .file') == 'mine.mp4'
  assert re.fullmatch(r'(anger|contentment|happiness|sadness) \d+ %', page.inner_text('.verdict'))
  assert page.locator('.plot').count() == 3 and page.locator('.plot path').count() == 3 * 4
  assert page.locator('.time > input').count() == page.locator('.card').count() == 4
  playing = page.evaluate("""async () => {
    const clip = document.querySelector('video');
    clip.muted = true;
    await clip.play();
    await new Promise(resolve => { clip.onended = resolve; });
    return {
      at: Number(getComputedStyle(document.querySelector('.time')).getPropertyValue('--at')),
      time: clip.currentTime, length: clip.duration, width: clip.videoWidth, from: clip.src.slice(0, 14),
      segment: [...document.querySelectorAll('.time > input')].findIndex(one => one.checked),
    };
  }""")
  assert playing['time'] == pytest.approx(1.6, abs=0.1) and playing['length'] == pytest.approx(1.6, abs=0.1)
  assert playing['at'] == pytest.approx(1, abs=0.05) and playing['segment'] == 3
  assert playing['from'] == 'data:video/mp4' and playing['width'] > 300
  assert not server.left()


def visible_cards(page: Any) -> list[int]:
  return page.evaluate("""[...document.querySelectorAll('.card')].flatMap(
    (card, place) => getComputedStyle(card).visibility === 'visible' ? [place] : [])""")


def test_a_segment_that_is_pointed_at_shows_its_pictures(tab: Any, film: pathlib.Path) -> None:
  page = tab()
  drop(page, film)
  answered(page)
  assert visible_cards(page) == [0]
  page.locator('.time > input').nth(2).hover()
  assert visible_cards(page) == [2]
  shown = page.locator('.card').nth(2)
  picture = shown.locator('img').evaluate('image => [image.naturalWidth, image.naturalHeight]')
  assert picture == [5 * 80 + 4 * 2, 2 * 80 + 2]  # a log-mel image and four faces, and they once more under heat
  assert 'bright is what speaks for' in shown.inner_text()
  page.mouse.move(5, 5)
  assert visible_cards(page) == [0]
  now = lambda: page.evaluate('document.querySelector("video").currentTime')
  page.locator('.time > input').nth(1).click()
  assert now() == pytest.approx(0.4775, abs=0.01)  # between the middles of segments that begin at 0 and 0.3 s
  page.keyboard.press('ArrowRight')
  page.mouse.move(5, 5)
  assert visible_cards(page) == [2] and now() == pytest.approx(0.7775, abs=0.01)


def test_what_is_missing_is_shown(tab: Any, film: pathlib.Path, tmp_path: pathlib.Path) -> None:
  import av

  with av.open(str(film)) as whole, av.open(str(tmp_path / 'sound.m4a'), 'w') as part:
    voice = part.add_stream_from_template(whole.streams.audio[0])
    for packet in whole.demux(whole.streams.audio[0]):
      if packet.dts is not None:
        packet.stream = voice
        part.mux(packet)
  page = tab()
  drop(page, tmp_path / 'sound.m4a', 'sound.m4a')
  answered(page)
  assert 'No segment has a face.' in page.inner_text('.answer')
  assert page.locator('.plot').nth(1).locator('.missing').inner_text() == 'no face'
  assert page.locator('.plot').nth(0).locator('.missing').count() == 0


def test_markup_in_the_name_of_a_file_is_text(tab: Any, film: pathlib.Path) -> None:
  page = tab()
  for content in (film, b'broken'):
    drop(page, content, EVIL)
    page.wait_for_selector('.answer h2' if content == b'broken' else '.answer .verdict', timeout=60_000)
    assert page.inner_text('.answer .file') == EVIL
  assert page.evaluate('window.hit') is None


def test_a_broken_file_gets_its_sentence(tab: Any, server: Server) -> None:
  page = tab()
  drop(page, b'not a film', 'broken.mp4')
  answered(page)
  said = page.inner_text('.answer')
  assert said.startswith('No answer for broken.mp4') and 'cannot be opened as sound or film' in said
  assert '/' not in said and not server.left()


def test_a_file_that_is_too_large_gets_its_sentence(tab: Any) -> None:
  page = tab()
  drop(page, bytes(MAX_MB * 2**20 + 1), 'large.mp4')
  page.get_by_text('exceed the maximum allowed size of 2.0 Mb: "large.mp4"').wait_for()


def test_two_visitors_at_once_get_their_own_answers(tab: Any, server: Server, film: pathlib.Path) -> None:
  pages = {name: tab() for name in ('one.mp4', 'other.mp4')}
  for name, page in pages.items():
    drop(page, film, name)  # the same content: one must not take the other's away
  for name, page in pages.items():
    answered(page)
    assert page.inner_text('.answer .file') == name and page.locator('.verdict').count() == 1
  assert not server.left()


@pytest.mark.slow
def test_a_real_clip_gets_its_answer(tab: Any, data_root: pathlib.Path) -> None:
  page = tab()
  drop(page, sorted((data_root / 'java_sed/video').glob('*.mp4'))[0])
  answered(page)
  assert page.locator('.time > input').count() > 5
  assert page.locator('.card img').first.evaluate('image => image.naturalWidth') > 0


# Over the network, by whoever does not use the page


def request(
  server: Server, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, str]:
  """Status and content of an answer."""
  connection = http.client.HTTPConnection('127.0.0.1', server.port, timeout=120)
  with contextlib.closing(connection):
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    return response.status, response.read().decode(errors='replace')


def form(*contents: bytes, name: str = 'clip.mp4') -> tuple[bytes, dict[str, str]]:
  """A request's body with these files, and its headers."""
  head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
  body = b''.join(head + content + b'\r\n' for content in contents) + b'--x--\r\n'
  return body, {'Content-Type': 'multipart/form-data; boundary=x'}


def upload(server: Server, content: bytes, name: str = 'clip.mp4') -> tuple[int, str]:
  """Status, and the path or a sentence."""
  status, said = request(server, 'POST', '/gradio_api/upload', *form(content, name=name))
  return status, json.loads(said)[0] if status == 200 else said


def asked(server: Server, path: str, **more: Any) -> str:
  """What is said to somebody who asks about a path: HTML, or a sentence."""
  session = uuid.uuid4().hex
  given = {'path': path, 'orig_name': 'clip.mp4', 'meta': {'_type': 'gradio.FileData'}, **more}
  body = json.dumps({'data': [given], 'fn_index': 0, 'session_hash': session})
  status, said = request(server, 'POST', '/gradio_api/queue/join', body, {'Content-Type': 'application/json'})
  if status != 200:
    return f'{status} {said}'
  _, stream = request(server, 'GET', f'/gradio_api/queue/data?session_hash={session}')
  events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith('data: ')]
  [output] = [event['output'] for event in events if event['msg'] == 'process_completed']
  return output['data'][0] if 'data' in output else output['error']


def ask(server: Server, content: bytes, name: str = 'clip.mp4') -> str:
  """The answer to a file."""
  status, said = upload(server, content, name)
  return asked(server, said) if status == 200 else f'{status} {said}'


def sentence(said: str) -> str:
  """The sentence of a refusal."""
  found = re.search(r'role="alert">.*?<p>(.*?)</p>', said, re.DOTALL)
  return found[1] if found else said


@pytest.fixture
def listener() -> Iterator[socket.socket]:
  """A host that nobody may ask."""
  with socket.create_server(('127.0.0.1', 0)) as opened:
    yield opened
    opened.setblocking(False)
    with pytest.raises(BlockingIOError):
      opened.accept()


PATHS = ['/etc/passwd', '../../etc/passwd', 'file:///etc/passwd', '/proc/self/environ', 'http://127.0.0.1:{port}/x']


@pytest.mark.parametrize('path', PATHS)
@pytest.mark.parametrize('more', [{}, {'is_stream': True}, {'url': 'http://127.0.0.1:{port}/y'}])
def test_no_path_of_a_client_is_opened(
  server: Server, listener: socket.socket, path: str, more: dict[str, Any]
) -> None:
  port = listener.getsockname()[1]
  filled = {key: value.format(port=port) if isinstance(value, str) else value for key, value in more.items()}
  said = asked(server, path.format(port=port), **filled)
  assert sentence(said).startswith('This file was not uploaded here') and 'root:' not in said


def test_no_upload_is_answered_twice_or_found_by_guessing(server: Server, film: pathlib.Path) -> None:
  status, path = upload(server, film.read_bytes())
  assert status == 200
  place = pathlib.Path(path)
  assert sentence(asked(server, str(place.parent))).startswith('This file was not uploaded here')
  assert sentence(asked(server, f'{place.parent}/../{place.parent.name}/{place.name}')).startswith('This file was not')
  assert (place.stat().st_mode & 0o777, place.parents[1].stat().st_mode & 0o777) == (0o600, 0o700)
  assert 'class="verdict"' in asked(server, path)
  assert sentence(asked(server, path)).startswith('This file was not uploaded here, or was answered already')
  assert not server.left()


def test_a_link_is_not_followed(server: Server) -> None:
  status, path = upload(server, b'x')
  assert status == 200
  os.remove(path)
  os.symlink('/etc/passwd', path)
  assert sentence(asked(server, path)) == 'This is no file.'
  assert not server.left()


NEEDLESS = ['/config', '/docs', '/openapi.json', '/monitoring', '/monitoring/summary', '/login', '/robots.txt']
NEEDLESS += [f'/gradio_api/{of}' for of in ('info', 'file=/etc/passwd', 'file=http://127.0.0.1:1/', 'queue/status')]
NEEDLESS += [f'/gradio_api/{of}' for of in ('deep_link?session_hash=x', 'proxy=http://127.0.0.1:1/', 'heartbeat/x')]


@pytest.mark.parametrize('path', NEEDLESS)
def test_of_gradio_only_what_the_page_needs_is_open(server: Server, path: str) -> None:
  assert request(server, 'GET', path) == (404, 'There is no such page.')


@pytest.mark.parametrize('path', ['run/answered', 'call/answered', 'component_server', 'cancel', 'reset', 'stream/x'])
def test_no_other_function_can_be_called(server: Server, path: str) -> None:
  assert request(server, 'POST', f'/gradio_api/{path}', '{}')[0] == 404


@pytest.mark.parametrize('path', ['/assets/../../x', '/static/%2e%2e/%2e%2e/x', '/assets//etc/passwd'])
def test_no_file_outside_of_gradio_is_served(server: Server, path: str) -> None:
  assert request(server, 'GET', path)[0] in (403, 404)


def test_answers_tell_browsers_to_ask_nobody_else(server: Server) -> None:
  connection = http.client.HTTPConnection('127.0.0.1', server.port)
  with contextlib.closing(connection):
    connection.request('GET', '/')
    headers = dict(connection.getresponse().getheaders())
  assert headers['content-security-policy'] == gate.POLICY and 'http' not in gate.POLICY
  assert headers['cache-control'] == 'no-store'


@pytest.mark.parametrize(
  ('host', 'own'),
  [
    ('127.0.0.1:7860', True),
    ('[::1]:7860', True),
    ('localhost', True),
    ('Box.lan:80', True),
    ('evil.example:7860', False),
    ('127.0.0.1.evil.example', False),
    ('', False),
  ],
)
def test_a_name_that_is_not_this_machines_is_refused(host: str, own: bool) -> None:
  assert gate.is_own(host, {'localhost', 'box.lan'}) == own


COMPLAINTS: list[tuple[dict[str, str], str, int]] = [
  ({}, '/gradio_api/upload', 411),
  ({'content-length': '9', 'transfer-encoding': 'chunked'}, '/gradio_api/upload', 411),
  ({'content-length': '-1'}, '/gradio_api/upload', 411),
  ({'content-length': str(10 << 30)}, '/gradio_api/upload', 413),
  ({'content-length': str(1 << 20)}, '/gradio_api/queue/join', 413),
  ({'content-length': '9', 'origin': 'http://evil.example'}, '/gradio_api/upload', 403),
  ({'content-length': '9', 'origin': 'null'}, '/gradio_api/upload', 403),
  ({'content-length': '9', 'origin': 'http://localhost:99'}, '/gradio_api/upload', 403),
  ({'content-length': '9', 'host': 'evil.example'}, '/gradio_api/upload', 421),
]


@pytest.mark.parametrize(('headers', 'path', 'status'), COMPLAINTS)
def test_what_a_request_may_not_be(headers: dict[str, str], path: str, status: int) -> None:
  def of(headers: dict[str, str]) -> Any:
    pairs = {'host': 'localhost:80', **headers}.items()
    scope = {'method': 'POST', 'path': path, 'headers': [(key.encode(), value.encode()) for key, value in pairs]}
    return gate.complaint(scope, {'localhost'}, 1 << 21)

  assert of({'content-length': '9', 'origin': 'http://localhost:80'}) is None
  refused = of(headers)
  assert refused and refused[0] == status and refused[1].endswith('.')


def raw(server: Server, headers: str, body: bytes = b'') -> str:
  """The status line and the content that come back for bytes; '' where the connection is cut."""
  head = f'POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n{headers}\r\n\r\n'.encode()
  with socket.create_connection(('127.0.0.1', server.port), timeout=30) as connection:
    try:
      connection.sendall(head + body)
      answer = http.client.HTTPResponse(connection)
      answer.begin()
      return f'{answer.status} {answer.read().decode()}'
    except OSError:
      return ''


MULTIPART = 'Content-Type: multipart/form-data; boundary=x'


def test_bodies_that_lie_about_their_length_are_refused(server: Server) -> None:
  body, _ = form(b'y' * 5000)
  assert raw(server, f'{MULTIPART}\r\nTransfer-Encoding: chunked').startswith('411 ')
  assert raw(server, f'{MULTIPART}\r\nContent-Length: 10737418240').startswith('413 This is too large')
  assert raw(server, f'{MULTIPART}\r\nContent-Length: 200', body).startswith('400 The upload cannot be read')
  begun = time.monotonic()
  said = raw(server, f'{MULTIPART}\r\nContent-Length: 90000', body[:1000])  # and no more comes
  assert said == f'408 The upload took longer than {TIME_LIMIT} s.'
  assert TIME_LIMIT - 0.1 < time.monotonic() - begun < TIME_LIMIT + 10 and not server.left()


def test_who_goes_away_while_uploading_leaves_nothing(server: Server) -> None:
  head = f'POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\n{MULTIPART}\r\nContent-Length: 90000\r\n\r\n'
  with socket.create_connection(('127.0.0.1', server.port)) as connection:
    connection.sendall(head.encode() + form(b'y' * 5000)[0][:1000])
    until(lambda: bool(server.left()))
  until(lambda: not server.left())


def until(true: Callable[[], bool], *, seconds: float = 10) -> None:
  end = time.monotonic() + seconds
  while not true():
    assert time.monotonic() < end
    time.sleep(0.02)


@pytest.mark.parametrize('body', [form(b'a', b'b')[0], b'--x--\r\n', b'rubbish', form(b'a')[0][:-4]])
def test_a_form_without_just_one_file_is_refused(server: Server, body: bytes) -> None:
  assert request(server, 'POST', '/gradio_api/upload', body, form()[1])[0] == 400
  assert not server.left()


def atom(kind: bytes, content: bytes, *, size: int | None = None) -> bytes:
  """A box of an MP4 file that may lie about its size."""
  return struct.pack('>I4sQ', 1, kind, size or 16 + len(content)) + content


def zip_bomb() -> bytes:
  """1 GB of zeros in 1 MB."""
  import io

  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as packed, packed.open('clip.mp4', 'w') as part:
    for _ in range(1024):
      part.write(bytes(1 << 20))
  return file.getvalue()


def claiming(said: int) -> bytes:
  """A WAV file of 10 ms whose header claims `said` bytes."""
  head = (
    b'RIFF'
    + struct.pack('<I', min(said, 2**32 - 1))
    + b'WAVEfmt '
    + struct.pack('<IHHIIHH', 16, 1, 1, 8000, 16000, 2, 16)
  )
  return head + b'data' + struct.pack('<I', min(said, 2**32 - 1)) + bytes(160)


HOSTILE: dict[str, Callable[[], bytes]] = {
  'nothing': lambda: b'',
  'a zip bomb': zip_bomb,
  'an MP4 box of 10 GB': lambda: atom(b'ftyp', b'isom\0\0\0\0isom') + atom(b'moov', bytes(64), size=10 << 30),
  'an MP4 sample table of 4 billion': lambda: (
    atom(b'ftyp', b'isom\0\0\0\0isom')
    + atom(
      b'moov',
      atom(b'trak', atom(b'mdia', atom(b'minf', atom(b'stbl', atom(b'stsz', struct.pack('>III', 0, 1, 2**32 - 1)))))),
    )
  ),
  'a WAV of 4 GB': lambda: claiming(2**32),
  'a list of files': lambda: b'ffconcat version 1.0\nfile /etc/passwd\n',
  'a playlist': lambda: b'#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n',
  'a page': lambda: b'<html><script>alert(1)</script></html>',
  'a session': lambda: b'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 33\n',
}


@pytest.mark.parametrize('what', HOSTILE)
def test_a_hostile_file_gets_a_sentence(server: Server, what: str) -> None:
  before, begun = server.memory(), time.monotonic()
  said = ask(server, HOSTILE[what]())
  assert 'role="alert"' in said and len(sentence(said)) > 20 and 'Something went wrong' not in said, said
  assert str(server.folder) not in said
  assert time.monotonic() - begun < 2 * TIME_LIMIT + 5 and server.memory() - before < 300
  assert not server.left()


def test_a_clip_that_is_too_long_gets_its_sentence(server: Server) -> None:
  import io
  import wave

  said = {}
  for seconds in (MAX_SECONDS, MAX_SECONDS + 1):
    file = io.BytesIO()
    with wave.open(file, 'wb') as sound:
      sound.setparams((1, 2, 8000, 0, 'NONE', ''))
      sound.writeframes(np.random.default_rng(0).integers(-9999, 9999, 8000 * seconds, np.int16).tobytes())
    said[seconds] = ask(server, file.getvalue(), 'sound.wav')
  assert sentence(said[MAX_SECONDS + 1]).startswith(f'The clip is longer than {MAX_SECONDS} s')
  assert 'class="verdict"' in said[MAX_SECONDS]


def test_of_fifty_at_once_all_are_answered_or_told_to_wait(server: Server, film: pathlib.Path) -> None:
  before, most = server.memory(), [0.0]
  with concurrent.futures.ThreadPoolExecutor(50) as visitors:
    given = [visitors.submit(ask, server, film.read_bytes()) for _ in range(50)]
    while not all(one.done() for one in given):
      most.append(server.memory())
      time.sleep(0.2)
  said = [one.result() for one in given]
  answers = sum('class="verdict"' in one for one in said)
  told = said.count('503 Too many clips are waiting: try again in a minute.')
  assert answers + told == 50 and answers >= QUEUE, {one[:80] for one in said}
  assert max(most) - before < 500
  assert not server.left()


def test_who_has_to_wait_is_told_however_large_the_file_is(server: Server) -> None:
  waiting = [upload(server, b'x') for _ in range(QUEUE)]
  assert [status for status, _ in waiting] == [200] * QUEUE
  assert upload(server, bytes(MAX_MB << 20)) == (503, 'Too many clips are waiting: try again in a minute.')
  for _, path in waiting:
    assert 'cannot be opened' in asked(server, path)
  assert 'cannot be opened' in ask(server, b'x')


@pytest.mark.slow
def test_an_upload_that_nobody_asks_about_is_deleted(server: Server) -> None:
  assert upload(server, b'x')[0] == 200 and server.left()
  until(lambda: not server.left(), seconds=2 * app.ASKED_S)


def test_what_nobody_asks_about_is_forgotten(tmp_path: pathlib.Path) -> None:
  uploads = gate.Uploads(tmp_path, limit=10, most=9, seconds=1)
  paths = {name: tmp_path / name / 'clip.mp4' for name in ('fresh', 'asked', 'old')}
  for name, path in paths.items():
    path.parent.mkdir()
    path.write_text('x')
    uploads._given[str(path)] = time.monotonic() - app.ASKED_S + (5 if name == 'fresh' else -5)
  uploads.forget({str(paths['asked'])})
  assert [name for name, path in paths.items() if path.exists()] == ['fresh', 'asked']
  with pytest.raises(gate.Refused), uploads.claimed(str(paths['old'])):
    pass
  with uploads.claimed(str(paths['asked'])) as path:
    assert path == paths['asked']
  assert [place.name for place in tmp_path.iterdir()] == ['fresh']


# The program


def test_a_port_that_is_taken_is_told() -> None:
  with socket.create_server(('127.0.0.1', 0)) as taken:
    port = taken.getsockname()[1]
    with pytest.raises(gate.Refused, match=f'--port={port} cannot be listened at: Address already in use'):
      app.listen('127.0.0.1', port)
  with pytest.raises(gate.Refused, match=r'--host=nowhere\.invalid'):
    app.listen('nowhere.invalid', 0)


def run(*arguments: str, folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'TMPDIR': str(folder)}
  return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)


def test_a_folder_that_is_no_model_is_told(tmp_path: pathlib.Path) -> None:
  done = run('-m', 'emo_jax.app', f'--model={tmp_path}', folder=tmp_path)
  assert done.returncode == 2 and done.stderr.startswith('app: ') and str(tmp_path) in done.stderr
  assert 'Traceback' not in done.stderr and not list(tmp_path.iterdir())


def test_without_gradio_the_extra_is_named(tmp_path: pathlib.Path) -> None:
  done = run('-c', 'import sys; sys.modules["gradio"] = None; import emo_jax.app', folder=tmp_path)
  assert done.returncode == 1 and "pip install -e '.[app]'" in done.stderr and 'Traceback' not in done.stderr


def test_faults_of_this_side_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
  def fail() -> str:
    raise RuntimeError('secret')

  said = app.told('<clip>', fail)
  assert 'Something went wrong on this side' in said and 'secret' not in said and '&lt;clip&gt;' in said
  assert 'RuntimeError: secret' in capsys.readouterr().err


PAGE = """
import pathlib
from emo_jax import app, gate
blocks = app.page(lambda path, name: 'answer', queue=2, limits='1 s')
app.site(blocks, gate.Uploads(pathlib.Path(), limit=9, most=2, seconds=1), queue=2)
[function] = blocks.fns.values()
blocks.state_holder['a visitor']._update_value_in_config(function.outputs[0]._id, 'answer')
print(function.concurrency_limit, blocks._queue.max_size, dict(blocks.state_holder.session_data))
"""


def test_one_clip_is_answered_at_a_time_and_no_answer_is_kept(tmp_path: pathlib.Path) -> None:
  done = run('-c', PAGE, folder=tmp_path)  # in a process of its own: Gradio leaves event loops open
  assert done.stdout == '1 2 {}\n', done.stderr


def test_uploads_that_wait_for_their_turn_are_known() -> None:
  from gradio.queueing import EventQueue

  event = lambda path: types.SimpleNamespace(data=types.SimpleNamespace(data=[{'path': path}]))
  waiting = EventQueue('one', 1)
  waiting.queue = [event('/waits'), types.SimpleNamespace(data=None)]
  queue = types.SimpleNamespace(event_queue_per_concurrency_id={'one': waiting}, active_jobs=[None, [event('/works')]])
  assert app.asked_about(types.SimpleNamespace(_queue=queue)) == {'/waits', '/works'}


def test_a_sentence_does_not_say_where_an_upload_lies() -> None:
  path = pathlib.Path('/uploads/x/clip1.mp4')
  said = app.plainly('clip1.mp4: /uploads/x/clip1.mp4: cannot be opened; clip1.mp4 has no sound', path, 'my clip.mp4')
  assert said == 'my clip.mp4: cannot be opened; my clip.mp4 has no sound'


def test_stopped_it_leaves_nothing(server: Server, film: pathlib.Path) -> None:
  """The last one, for it stops the server that all share, in the middle of an answer."""
  assert upload(server, b'never asked about')[0] == 200 and server.left()
  with concurrent.futures.ThreadPoolExecutor() as others:
    begun = others.submit(ask, server, film.read_bytes())
    time.sleep(0.3)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(20) == 0
    with contextlib.suppress(Exception):
      begun.result()
  assert not list(server.folder.iterdir())
  assert 'Traceback' not in (server.folder.parent / 'errors.txt').read_text()

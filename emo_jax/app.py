"""A local page to drop a clip on: its emotion over time, beside what the networks looked at (pipeline step: predict).

  python -m emo_jax.app --model=M [--host=127.0.0.1] [--port=7860] [--max_mb=64] [--max_seconds=60] [--time_limit=120]
                        [--queue=16]

One clip is judged at a time, the others wait. What is uploaded lies in a folder that nobody else can read until it is
answered, and nothing is kept. Everything that comes over the network is a stranger's: of Gradio only what its page
needs can be reached, no path of a client is opened, and the page itself may ask no other host for anything.

Exit status: 0 when it is stopped by Ctrl-C, 2 for a model or an address that cannot be used.
"""

import asyncio
import contextlib
import logging
import os
import pathlib
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
from absl import app, flags
from absl import logging as absl_logging

from emo_jax import command_line, inference, own_clip
from emo_jax.corpora import demo
from emo_jax.frontend import decoder, segments
from emo_jax.report import answer, film, saliency

try:
  import fastapi
  import gradio as gr
  import uvicorn
  from fastapi.responses import PlainTextResponse
  from gradio import routes
  from gradio.state_holder import SessionState, StateHolder
  from starlette.requests import ClientDisconnect

  from emo_jax.gate import ASKED_S, MB, Refused, Uploads, guarded
except ModuleNotFoundError as lacking:
  raise SystemExit(f"app: the page needs Gradio ({lacking}): pip install -e '.[app]'") from lacking


CONNECTIONS = 256
HEIGHT = 360  # px of the clip in the answer
HEAT_S = 10.0  # seconds for looking where the networks look; a full-size 3-D CNN takes seconds for a segment
INTRO = (
  '<header class="intro"><h1>Emotion from sound and face</h1>'
  '<p>Drop a film or a sound of {limits}. It stays on this machine and is deleted once it is answered.</p></header>'
)
QUIET = {  # what Gradio would do unless told
  'GRADIO_ANALYTICS_ENABLED': 'False',
  'GRADIO_ANALYTICS_CACHE_FREQUENCY': str(1 << 60),  # no summary of who asked what is made
}


def cards(model: inference.Model, clip: Any, verdict: str) -> tuple[list[dict[str, str]], int]:
  """Of each segment its pictures, and how many of them show where the networks see the verdict.

  As many as HEAT_S seconds allow do, spread over the clip. Loudness is comparable within it.
  """
  store, rows, made = clip.store, clip.segments, dict[int, dict[str, str]]()
  sounds = store.audio(rows) if rows.has_audio.any() else np.zeros((len(rows), 1, 1))
  shaded = answer.shade(sounds, sounds.min(), sounds.max())
  order = np.argsort([int(f'{row:032b}'[::-1], 2) for row in range(len(rows))])  # a half, a quarter, three quarters
  heated, start = 0, time.monotonic()
  for part in np.array_split(order, range(saliency.BATCH, len(rows), saliency.BATCH)):
    heat: dict[str, dict[int, np.ndarray]] = {'audio': {}, 'visual': {}}
    if time.monotonic() - start < HEAT_S:
      heat = inference.saliency(model, clip, part, np.full(len(part), model.classes.index(verdict)))
      heated += len(part)
    for row in part.tolist():
      sound = (shaded[row], heat['audio'].get(row)) if rows.has_audio[row] else None
      face = (store.faces(rows.take(np.array([row])))[0], heat['visual'].get(row)) if rows.has_face[row] else None
      made[row] = answer.card(sound, face, verdict)
  return [made[row] for row in range(len(rows))], heated


def annotated(clip: Any, path: pathlib.Path, result: dict[str, Any], *, seconds: float) -> bytes:
  """The clip as a small MP4 with its face box; nothing where that fails, as the verdict is there."""
  target = clip.workdir / 'annotated.mp4'
  track = clip.store.facts(0, 'faces') if clip.records[0]['faces'] else None
  try:
    film.annotate_apart(str(path), result, track, target, seconds=seconds, height=HEIGHT)
    return target.read_bytes()
  except OSError as error:
    print(f'app: {error}', file=sys.stderr)
    return b''


def judged(model: inference.Model, path: pathlib.Path, name: str, *, longest: float, seconds: float) -> str:
  """The answer to an uploaded clip, as HTML.

  Args:
    name: of the file, as whoever uploaded it called it.
    longest: seconds of a clip.
    seconds: for decoding.

  Raises:
    Refused: it is too long, or nothing in it can be used.
  """
  with said_plainly(path, name), model.opened(path, limit=seconds, total=seconds) as clip:
    beyond = int(clip.segments.start[-1]) + model.config.frontend.segments.length
    if beyond * segments.COLUMN_S > longest:
      raise Refused(f'The clip is longer than {longest:g} s, which is the most that is judged here.')
    result = inference.judge(model, clip)
    shown, heated = cards(model, clip, result['verdict'])
    drawn = annotated(clip, path, result, seconds=seconds)
    said = {'file': name, 'warnings': [plainly(text, path, name) for text in result['warnings']]}
    return answer.render({**result, **said}, film=drawn, cards=shown, heated=heated)


def plainly(text: str, path: pathlib.Path, name: str) -> str:
  """A sentence about an upload, by the name that its owner knows and without where it lies."""
  return re.sub(f'({re.escape(path.name)}: )?{re.escape(str(path))}', path.name, text).replace(path.name, name)


@contextlib.contextmanager
def said_plainly(path: pathlib.Path, name: str) -> Iterator[None]:
  """Says of an upload `plainly` why it cannot be used.

  Raises:
    Refused: that.
  """
  try:
    yield
  except own_clip.Unreadable as error:
    raise Refused(plainly(str(error), path, name)) from error


def told(name: str, make: Callable[[], str]) -> str:
  """An answer, or in its place a sentence that says why there is none."""
  try:
    return make()
  except Refused as refused:
    return answer.refusal(str(refused), name)
  except decoder.MachineFailure as error:
    print(f'app: {error}', file=sys.stderr)
  except Exception:  # whatever it is, others wait
    traceback.print_exc()
  return answer.refusal('Something went wrong on this side; the clip may be fine.', name)


def drop_place() -> gr.File:
  """Gradio's place to drop a file on, whose value is (path, name that the file had).

  The file is neither copied nor opened, and no URL in its stead is fetched. (It is no class of its own, for Gradio
  writes a file beside the module of each.)
  """
  place = gr.File(show_label=False, elem_id='drop', height=150)

  async def left_alone(path: Any) -> str:
    return str(path)

  def named(payload: Any) -> Any:
    return (payload.path, payload.orig_name or pathlib.Path(payload.path).name) if payload else None

  place.async_move_resource_to_block_cache = left_alone  # type: ignore[assignment,method-assign]
  place.preprocess = named  # type: ignore[method-assign]
  return place


class Forgetful(StateHolder):
  """Keeps nothing of any session: each answer would stay in memory."""

  def __getitem__(self, session_id: str) -> SessionState:
    return SessionState(self.blocks)


def page(make: Callable[[str, str], str], *, queue: int, limits: str) -> gr.Blocks:
  """The page: (path, name) -> HTML behind it.

  Args:
    queue: how many clips may wait.
    limits: of a clip, in words.
  """

  def answered(given: tuple[str, str] | None) -> tuple[str, None]:
    return (told(given[1], lambda: make(*given)) if given else ''), None

  with gr.Blocks(analytics_enabled=False, title='Emotion from sound and face') as blocks:
    gr.HTML(INTRO.format(limits=limits), apply_default_css=False)
    drop = drop_place()
    shown = gr.HTML(elem_id='shown', apply_default_css=False, min_height=120)
    drop.upload(
      answered,
      drop,
      [shown, drop],
      concurrency_limit=1,
      show_progress_on=shown,
      api_visibility='private',
    )
  blocks.queue(max_size=queue, api_open=False)
  return blocks


async def finished(request: fastapi.Request, seconds: float) -> None:
  """Lets a request come to its end, unread: who still sends does not hear an answer."""
  with contextlib.suppress(TimeoutError, ClientDisconnect):
    async with asyncio.timeout(seconds):
      async for _ in request.stream():
        pass


def asked_about(blocks: gr.Blocks) -> set[str]:
  """The paths that visitors wait for, or that are being answered."""
  queues, jobs = blocks._queue.event_queue_per_concurrency_id.values(), blocks._queue.active_jobs
  events = [event for group in (*(queue.queue for queue in queues), *filter(None, jobs)) for event in group]
  given = [one for event in events if event.data for one in event.data.data]
  return {str(one.get('path')) for one in given if isinstance(one, dict)}


def mount(blocks: gr.Blocks, outer: fastapi.FastAPI, uploads: Uploads) -> None:
  """Puts the page into an application, with as little of Gradio as it takes."""
  gr.mount_gradio_app(
    outer,
    blocks,
    '/',
    max_file_size=uploads.limit,
    show_error=True,
    allowed_paths=[],
    blocked_paths=[str(uploads.folder)],
    footer_links=[],
    run_history=False,
    enable_monitoring=False,
    ssr_mode=False,
    pwa=False,
    mcp_server=False,
    theme=gr.themes.Base(font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace']),
    head=answer.head(),
  )
  apps = (getattr(route, 'app', None) for route in outer.routes)
  inner = next(one for one in apps if isinstance(one, routes.App))
  inner.state_holder = Forgetful()
  inner.state_holder.set_blocks(blocks)


def site(blocks: gr.Blocks, uploads: Uploads, *, queue: int) -> fastapi.FastAPI:
  """The page and the route of its uploads."""

  @contextlib.asynccontextmanager
  async def forgetting(_: fastapi.FastAPI) -> AsyncIterator[None]:
    async def forget() -> None:
      while True:
        await asyncio.sleep(ASKED_S / 3)
        uploads.forget(asked_about(blocks))

    task = asyncio.create_task(forget())
    yield
    task.cancel()

  outer = fastapi.FastAPI(openapi_url=None, lifespan=forgetting)

  @outer.post('/gradio_api/upload')
  async def upload(request: fastapi.Request) -> Any:
    try:
      return [await uploads.take(request)]
    except Refused as refused:
      if refused.status == 503:
        await finished(request, uploads.seconds)
      return PlainTextResponse(str(refused), refused.status, headers={'connection': 'close'})

  @outer.get('/gradio_api/upload_progress')
  def progress() -> PlainTextResponse:
    return PlainTextResponse('data: {"msg": "done"}\n\n', media_type='text/event-stream')

  mount(blocks, outer, uploads)
  blocks._queue.pending_messages_per_session.max_size = 4 * queue  # answers that nobody fetched
  return outer


@contextlib.contextmanager
def own_folder() -> Iterator[pathlib.Path]:
  """Where from now on everything temporary of this process and its children lies, until the context ends."""
  with tempfile.TemporaryDirectory(prefix='emo_jax_app_', ignore_cleanup_errors=True) as folder:
    os.environ.update(QUIET, TMPDIR=folder, GRADIO_TEMP_DIR=folder)
    tempfile.tempdir = routes.DEFAULT_TEMP_DIR = folder
    try:
      yield pathlib.Path(folder)
    finally:
      decoder.end()  # it writes there


def listen(host: str, port: int) -> socket.socket:
  """Opens the port.

  Raises:
    Refused: it cannot be had.
  """
  try:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family, backlog=CONNECTIONS)
  except OSError as error:
    raise Refused(f'--host={host} --port={port} cannot be listened at: {error.strerror or error}') from error


def warm_up(make: Callable[[pathlib.Path], str], folder: pathlib.Path) -> None:
  """Answers a made-up clip: what whole clips need is compiled when the first visitor comes."""
  demo.make(folder, speakers=1, takes=1, seconds=1.0, voice_noise=0.0, face_noise=0.0, seed=0)
  with contextlib.suppress(Refused):  # no model has to see a face in a drawing
    make(sorted(folder.glob('*/*.mp4'))[0])
  shutil.rmtree(folder)


def serve(model: inference.Model, folder: pathlib.Path, given: Any) -> None:
  """Opens the port and answers until it is interrupted.

  Args:
    folder: for uploads and all else that is temporary.
    given: the flags.

  Raises:
    Refused: the address cannot be had.
  """
  listen(given.host, given.port).close()  # where it cannot be had, that is said at once
  limits = {'longest': given.max_seconds, 'seconds': given.time_limit}
  warm_up(lambda path: judged(model, path, path.name, **limits), folder / 'warm')
  (folder / 'uploads').mkdir()
  uploads = Uploads(folder / 'uploads', limit=given.max_mb * MB, most=given.queue, seconds=given.time_limit)

  def make(path: str, name: str) -> str:
    with uploads.claimed(path) as claimed:
      return judged(model, claimed, name, **limits)

  said = f'at most {given.max_seconds:g} s and {given.max_mb} MB'
  outer = site(page(make, queue=given.queue, limits=said), uploads, queue=given.queue)
  names = {'localhost', socket.gethostname().lower(), given.host.lower()}
  config = uvicorn.Config(
    guarded(outer, names, uploads.limit),
    log_level='warning',
    access_log=False,
    server_header=False,
    limit_concurrency=CONNECTIONS,
    timeout_graceful_shutdown=1,  # open pages never let go
  )
  with listen(given.host, given.port) as opened:
    host, port = opened.getsockname()[:2]
    print(f'http://{f"[{host}]" if ":" in host else host}:{port}/ (Ctrl-C ends it)', flush=True)
    server = uvicorn.Server(config)
    logging.getLogger('uvicorn.error').addFilter(lambda _: not server.should_exit)  # whose answers it breaks off then
    server.run(sockets=[opened])


def main(argv: list[str]) -> int:
  """Flags to exit status."""
  absl_logging.set_verbosity(absl_logging.WARNING)
  signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the folder is deleted
  try:
    if len(argv) > 1:
      raise Refused(f'unknown arguments {argv[1:]}')
    with own_folder() as folder:
      serve(inference.load(flags.FLAGS.model), folder, flags.FLAGS)
  except KeyboardInterrupt:
    return 0
  except (ValueError, decoder.MachineFailure) as error:
    print(f'app: {error}', file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  flags.DEFINE_string('model', None, 'The model folder (python -m emo_jax.export).', required=True)
  flags.DEFINE_string('host', '127.0.0.1', 'Address to listen at; any but a loopback one lets others in.')
  flags.DEFINE_integer('port', 7860, 'Port to listen at; 0: a free one.', lower_bound=0, upper_bound=65535)
  flags.DEFINE_integer('max_mb', 64, 'Largest upload, in MB.', lower_bound=1)
  flags.DEFINE_float('max_seconds', 60.0, 'Longest clip.', lower_bound=1.0)
  flags.DEFINE_float('time_limit', 120.0, 'Seconds for an upload, and for decoding either half of it.', lower_bound=1.0)
  flags.DEFINE_integer('queue', 16, 'How many clips may wait.', lower_bound=1)
  app.run(main, flags_parser=command_line.parser('app', status=2))

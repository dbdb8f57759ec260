"""What of the network comes in to the local page (app.py): uploads, and requests that its own page makes, nothing else
(pipeline step: predict)."""

import asyncio
import contextlib
import ipaddress
import os
import pathlib
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import fastapi
from fastapi.responses import PlainTextResponse
from gradio import route_utils

Scope = MutableMapping[str, Any]
Asgi = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]

MB = 1 << 20
SLACK = 1 << 16  # bytes: of a request beside the file in it, and of any other request
ASKED_S = 30.0  # after its upload, in which a page has asked about a clip
OPEN = {  # of Gradio, what its page asks for
  'GET': re.compile(
    r'/|/(assets|static)/.+|/theme\.css|/favicon\.ico|/manifest\.json|/gradio_api/(queue/data|upload_progress)'
  ),
  'POST': re.compile(r'/gradio_api/(upload|queue/join)'),
}
POLICY = (  # for browsers: no other host is asked for anything, and no other page shows this one
  "default-src 'none'; connect-src 'self'; manifest-src 'self'; font-src 'self' data:; img-src 'self' data:; "
  "media-src data:; style-src 'self' 'unsafe-inline'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'; "
  "script-src 'self' 'unsafe-inline' 'unsafe-eval'"  # Gradio makes functions of its templates there
)
HEADERS = {
  'content-security-policy': POLICY,
  'cache-control': 'no-store',
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
}


class Refused(ValueError):
  """What was asked cannot be answered; the message is for whoever asked, `status` is HTTP's."""

  def __init__(self, message: str, status: int = 400):
    super().__init__(message)
    self.status = status


class Uploads:
  """Files that were uploaded and wait for their turn.

  Attributes:
    folder: where they lie, each in a folder of its own.
    limit: bytes of one.
    most: how many there may be.
    seconds: in which one must have come.
  """

  def __init__(self, folder: pathlib.Path, *, limit: int, most: int, seconds: float):
    self.folder, self.limit, self.most, self.seconds = folder, limit, most, seconds
    self._given: dict[str, float] = {}  # path -> when it came; threads take from it
    self._coming = 0

  async def take(self, request: fastapi.Request) -> str:
    """Stores the one file of a request; its path.

    Raises:
      Refused: too many wait, it took too long, or there is not one file in it.
    """
    if len(self._given) + self._coming >= self.most:
      raise Refused('Too many clips are waiting: try again in a minute.', 503)
    place = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
    self._coming += 1
    try:
      async with asyncio.timeout(self.seconds):
        [path], _, _ = await route_utils.upload_fn(request, place, self.limit, None)
    except BaseException as error:
      shutil.rmtree(place, ignore_errors=True)
      if isinstance(error, TimeoutError):
        raise Refused(f'The upload took longer than {self.seconds:g} s.', 408) from error
      if isinstance(error, Exception):  # Gradio's and Starlette's, of several kinds, and a client that went away
        raise Refused('The upload cannot be read: it must hold one file.') from error
      raise
    finally:
      self._coming -= 1
    self._given[path] = time.monotonic()
    return path

  @contextlib.contextmanager
  def claimed(self, path: str) -> Iterator[pathlib.Path]:
    """An upload for one use, after which it is deleted.

    Raises:
      Refused: nobody uploaded it here, or it was asked about already.
    """
    if self._given.pop(path, None) is None:
      raise Refused('This file was not uploaded here, or was answered already: drop the clip once more.')
    place = self.folder / pathlib.Path(path).relative_to(self.folder).parts[0]
    try:
      if not stat.S_ISREG(os.lstat(path).st_mode):
        raise Refused('This is no file.')
      yield pathlib.Path(path)
    finally:
      shutil.rmtree(place, ignore_errors=True)

  def forget(self, wanted: set[str]) -> None:
    """Deletes what nobody has asked about for ASKED_S seconds; `wanted` are the paths that somebody has."""
    for path, came in list(self._given.items()):
      if path not in wanted and time.monotonic() - came > ASKED_S:
        with contextlib.suppress(Refused), self.claimed(path):
          pass


def is_own(host: str, names: set[str]) -> bool:
  """Whether a request's Host is this machine by its address or one of its names.

  Another name that leads here belongs to a site whose script, in a user's browser, would pass for this page's.
  """
  name = re.sub(r':\d+$', '', host).strip('[]').lower()
  with contextlib.suppress(ValueError):
    ipaddress.ip_address(name)
    return True
  return name in names


def complaint(scope: Scope, names: set[str], limit: int) -> tuple[int, str] | None:
  """Why a request gets no answer, as an HTTP status and a sentence; None: it gets one.

  Args:
    names: of this machine.
    limit: bytes of an upload.
  """
  headers = {key.decode('latin-1'): value.decode('latin-1') for key, value in scope['headers']}
  method, path, host = scope['method'], scope['path'], headers.get('host', '')
  if not is_own(host, names):
    return 421, f'This page is not {host}: use its address.'
  if re.sub(r'^https?://', '', headers.get('origin', host)) != host:
    return 403, 'Only the page itself may ask.'
  if method not in OPEN or not OPEN[method].fullmatch(path):
    return 404, 'There is no such page.'
  if method == 'POST':
    length = headers.get('content-length', '')
    if not length.isdecimal() or 'transfer-encoding' in headers:
      return 411, 'A request must say how long it is.'
    if int(length) > SLACK + limit * path.endswith('/upload'):
      return 413, f'This is too large: a file may have {limit // MB} MB.'
  return None


def guarded(inner: Asgi, names: set[str], limit: int) -> Asgi:
  """An ASGI application that lets through what has no `complaint`, and tells browsers to ask no other host."""

  async def call(scope: Scope, receive: Any, send: Any) -> None:
    async def sealed(message: Any) -> None:
      if message['type'] == 'http.response.start':
        own = [(key.encode(), value.encode()) for key, value in HEADERS.items()]
        kept = [pair for pair in message['headers'] if pair[0].decode().lower() not in HEADERS]
        message = {**message, 'headers': kept + own}
      await send(message)

    if scope['type'] == 'websocket':
      await send({'type': 'websocket.close'})
    elif scope['type'] == 'http' and (why := complaint(scope, names, limit)):
      status, sentence = why
      response = PlainTextResponse(sentence, status, headers={'connection': 'close'})
      await response(scope, receive, sealed)
    else:
      await inner(scope, receive, sealed)

  return call

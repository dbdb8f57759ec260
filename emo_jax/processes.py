"""Several processes, on one host or many: how they start, who leads, what they tell each other, and what happens when
one is lost (all steps of the pipeline).

All run the same program on the same folders. Those that work on a thing together are a team: all of them, unless a
`with` says otherwise. A process that stands alone is a team of one, where everything here costs nothing.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

LOST = 75  # exit status where another process is lost: sysexits.h's EX_TEMPFAIL, "try again"
START_S = 300  # to wait for all processes
HEARTBEAT_S = 60  # without a sign of life of a host after which it is lost; a process that ends is noticed at once
GRACE_S = 2  # in which one that fails waits for the others, which may fail for the same reason, or be the reason

_team: tuple[int, ...] | None = None  # None: all processes
_told: dict[tuple[int, ...], int] = {}  # exchanges of each team, so far
_ending = threading.Event()


def start(*, autodetect: bool, coordinator: str, count: int, number: int) -> None:
  """Joins the processes of this run; to be called before any other use of JAX. Nothing happens for a run of one.

  Args:
    autodetect: ask the cluster (TPU pod, Slurm, Kubernetes, Open MPI) for what follows.
    coordinator: host:port of process 0, which all can reach; '' for none.
    count: processes in all; 0 where not given.
    number: of this one, from 0; -1 where not given.

  Raises:
    ValueError: the three belong together; or there is no cluster to ask.
  """
  given = {'--coordinator': coordinator, '--num_processes': count or '', '--process_id': '' if number < 0 else number}
  if not autodetect and not any(value != '' for value in given.values()):
    return
  if not autodetect:
    _check(given, coordinator, count, number)
    print(f'process {number} of {count}: waits up to {START_S} s for all at {coordinator}', file=sys.stderr)
  import jax

  jax.config.update('jax_enable_preemption_service', False)  # SIGTERM is ours: stopping.py
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  options: dict[str, Any] = {'initialization_timeout': START_S, 'heartbeat_timeout_seconds': HEARTBEAT_S}
  if not autodetect:
    options |= {'coordinator_address': coordinator, 'num_processes': count, 'process_id': number}
  try:
    jax.distributed.initialize(**options)
  except ValueError as error:
    raise ValueError(
      f'--distributed: no TPU pod, Slurm, Kubernetes or Open MPI job is found here ({error}). On machines of your own '
      'start each process with --coordinator=HOST:PORT --num_processes=N --process_id=I'
    ) from error
  devices = exchange(jax.local_device_count())
  if len(set(devices)) > 1:
    raise ValueError(f'the processes have {devices} devices; each needs as many as the others')
  _watch_others()


def _check(given: dict[str, Any], coordinator: str, count: int, number: int) -> None:
  missing = [flag for flag, value in given.items() if value == '']
  if missing:
    raise ValueError(f'{", ".join(missing)} missing: --coordinator, --num_processes and --process_id belong together')
  if not coordinator.rpartition(':')[2].isdigit() or not coordinator.rpartition(':')[0]:
    raise ValueError(f'--coordinator={coordinator!r}: use HOST:PORT of process 0, as 10.0.0.1:8476')
  if count < 1 or not 0 <= number < count:
    raise ValueError(f'--process_id={number} with --num_processes={count}: ids go from 0 to {count - 1}')


def _state() -> Any:
  """What jax.distributed knows: it has no public way to its key-value store, on which its own helpers stand too."""
  from jax._src import distributed

  return distributed.global_state


def number() -> int:
  """Of this process, from 0."""
  return _state().process_id or 0 if 'jax' in sys.modules else 0


def count() -> int:
  """All processes of this run."""
  return _state().num_processes or 1 if 'jax' in sys.modules else 1


def team() -> tuple[int, ...]:
  """The processes that work together now, ascending."""
  return tuple(range(count())) if _team is None else _team


def lead() -> bool:
  """Whether this process leads its team: it alone writes what all have made."""
  return team()[0] == number()


@contextlib.contextmanager
def working(members: tuple[int, ...]) -> Iterator[None]:
  """Within the context, these processes are a team. Others do not enter it, or enter one of their own."""
  global _team
  before, _team = _team, members
  try:
    yield
  finally:
    _team = before


def alone() -> contextlib.AbstractContextManager[None]:
  """Within the context, this process works by itself, and leads."""
  return working((number(),))


def teams(most: int) -> list[tuple[int, ...]]:
  """The team of now, dealt into at most so many, as large as each other.

  Raises:
    ValueError: they do not divide evenly.
  """
  members = team()
  parts = min(most, len(members))
  if len(members) % parts:
    raise ValueError(f'config.parallel.folds={most} with {len(members)} processes: use a number that divides them')
  size = len(members) // parts
  return [members[size * part :][:size] for part in range(parts)]


def leading(most: int) -> bool:
  """Whether this process leads one of `teams`."""
  return any(members[0] == number() for members in teams(most))


def exchange(value: Any) -> list[Any]:
  """What each process of the team gives: JSON values, in the order of their numbers. Waits for all of them."""
  members = team()
  if len(members) == 1:
    return [value]
  turn = _told[members] = _told.get(members, 0) + 1
  client, name = _state().client, f'emo_jax/{"_".join(map(str, members))}'
  client.key_value_set(f'{name}/{turn}/{number()}', json.dumps(value))
  if turn > 2:  # whoever has got this far has read it
    client.key_value_delete(f'{name}/{turn - 2}/{number()}')
  return [json.loads(_wait_for(client, f'{name}/{turn}/{member}')) for member in members]


def _wait_for(client: Any, key: str) -> str:
  import jax

  while True:  # in short waits, between which Python sees to signals
    try:
      return client.blocking_key_value_get(key, 1000)
    except jax.errors.JaxRuntimeError as error:
      if 'DEADLINE_EXCEEDED' not in str(error):
        raise


def together() -> None:
  """Waits until all of the team are here; what they have written is there then."""
  exchange(None)


def by_lead(call: Callable[[], Any]) -> Any:
  """What the lead's call, by itself, returns: a JSON value, in all processes of the team. The others do not call.

  Raises:
    ValueError: the call raised one; in all processes.
  """
  if len(team()) == 1:
    return call()
  outcome: dict[str, Any] = {}
  if lead():
    try:
      with alone():
        outcome = {'value': call()}
    except ValueError as error:
      outcome = {'error': str(error)}
  outcome = exchange(outcome)[0]
  if 'error' in outcome:
    raise ValueError(outcome['error'])
  return outcome['value']


def only_lead(call: Callable[[], object]) -> None:
  """The lead calls, by itself, while the others wait for its end. What it raises ends them too, by ending the lead."""
  if lead():
    with alone():
      call()
  together()


def share(items: list[Any]) -> list[Any]:
  """This process's part of a list that its team deals out."""
  return items[team().index(number()) :: len(team())]


def _watch_others() -> None:
  """Ends this process soon after another one is lost: process 0 holds a connection to each, which breaks then.

  JAX's own heartbeat would leave it waiting in a collective for HEARTBEAT_S; it is there for hosts that go silent.
  """
  host = _state().coordinator_address.rpartition(':')[0].strip('[]')
  if number() == 0:
    server = socket.create_server(('', 0))
    exchange(server.getsockname()[1])
    connections = [server.accept()[0] for _ in range(count() - 1)]
    server.close()
  else:
    connections = [socket.create_connection((host, exchange(None)[0]), timeout=START_S)]
    connections[0].sendall(f'{number()}\n'.encode())
  for connection in connections:
    connection.settimeout(None)
    threading.Thread(target=_listen, args=(connection, connections), daemon=True).start()
  ctypes.CDLL(None).signal(signal.SIGABRT, _ON_ABORT)
  together()


def _listen(connection: socket.socket, connections: list[socket.socket]) -> None:
  """Reads lines: who is there, who is lost, the end."""
  other = '0' if number() else '?'
  with contextlib.suppress(OSError), connection.makefile() as lines:
    for line in lines:
      word = line.split()
      if word[0] == 'lost':
        other = word[1]
        break
      other = word[0]
  if not _ending.is_set():
    for each in connections:
      with contextlib.suppress(OSError):
        each.sendall(f'lost {other}\n'.encode())
    _lose(f'process {other} of {count()} has ended before its time; see its own output')


def _lose(why: str) -> NoReturn:
  """Not by sys.stderr, which a sweep's cell has for itself."""
  with contextlib.suppress(OSError):
    what = 'This one ends too: run the same command again in all, it goes on from what is saved'
    os.write(2, f'process {number()}: {why}. {what}\n'.encode())
  os._exit(LOST)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _ON_ABORT(_: int) -> None:
  """JAX aborts where process 0 is gone, or one gives no sign of life: in a C++ thread, which signal.signal misses."""
  time.sleep(GRACE_S)  # `_listen` is quick, and knows better
  _lose(f'JAX has given up; as a rule another process, or its host, was silent for {HEARTBEAT_S} s (see above)')


@contextlib.contextmanager
def ending() -> Iterator[None]:
  """The whole of a run. After a good end it waits for all; after another it ends at once, so that the others notice.

  JAX's own end would wait for them.
  """
  try:
    yield
  except BaseException as error:
    if count() == 1:
      raise
    _leave(error)
  if count() > 1:
    _end()


def _leave(error: BaseException) -> NoReturn:
  """Ends as Python would, with the same last words; but an error may be what another's end has broken here."""
  status, agreed = 1, _ending.is_set()
  if isinstance(error, SystemExit):
    status = _said(error.code)
    _ending.set()  # that others end as well is no news then
  if not agreed:
    time.sleep(GRACE_S)
  if not isinstance(error, SystemExit):
    traceback.print_exception(error)
  sys.stdout.flush()
  os._exit(status)


def _said(code: Any) -> int:
  """The exit status of a SystemExit, whose sentence is printed."""
  if code is None or isinstance(code, int):
    return code or 0
  print(code, file=sys.stderr, flush=True)
  return 1


def part() -> None:
  """All of the team are about to end, and know it: from now on a connection that breaks means nothing."""
  together()
  _ending.set()
  together()


def _end() -> None:
  import jax

  part()
  jax.distributed.shutdown()

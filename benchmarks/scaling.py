"""Times a training step on one device and on several, in one process and in several: the same global batch, in turn.

  python -m benchmarks.scaling [--device=cpu|gpu] [--devices=N] [--network=alexnet_slim,c3d_slim,...] [--batch=N]
    [--precision=float32,bfloat16] [--repeats=N] [--threads=N] [--out=FILE]

On a CPU devices are fake ones, --xla_force_host_platform_device_count, and what is compared is what the cores are used
for: one device on one core; one device whose convolutions share N cores; N devices on N cores, their convolutions
sharing all of them, or each keeping to one thread (--xla_cpu_multi_thread_eigen=false); and N processes of one device
and one core each, which sum by gloo over TCP. Twice the speed of one core is the most that two can give, whoever deals
the work. On GPUs: 1 to N of them in one process, and N processes of one each. The batch is the step's, of all devices
together; the steps run in turn, every other turn in the opposite order. `faster` is one device's (one core's) seconds
over the side's, turn by turn.
"""

import functools
import multiprocessing
import os
import socket
from multiprocessing.connection import Connection
from typing import Any

from absl import app, flags

from benchmarks import cases, race, tables

DEVICES = flags.DEFINE_integer('devices', 2, 'The most devices, N; on a CPU as many cores.', lower_bound=2)
flags.FLAGS.set_default('network', ['alexnet_slim'])


def _settle(case: cases.Case, devices: int, *, first: int, cores: int, flag: str) -> None:
  """Gives this process its devices, before it has imported JAX: those from number `first` on."""
  if case.device == 'gpu':
    os.environ['CUDA_VISIBLE_DEVICES'] = ','.join(str(first + n) for n in range(devices))
  else:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[first:][:cores])
    os.environ['XLA_FLAGS'] = f'--xla_force_host_platform_device_count={devices} {flag}'


def _stepping(case: cases.Case) -> race.Run:
  """The training's step, on this process's rows of the batch."""
  from emo_jax.training import parallel

  network, variables, _ = cases.ours(case)
  return cases.stepping(network, variables, cases.settings(case)[1].optim, *parallel.own(cases.random_batch(case)))


def alone(devices: int, cores: int, flag: str, case: cases.Case, _: dict[str, Any]) -> race.Runner:
  """One process."""
  _settle(case, devices, first=0, cores=cores, flag=flag)
  return race.Runner(_stepping(case), race.memory_of('jax', case.device))


def several(count: int, case: cases.Case, _: dict[str, Any]) -> race.Runner:
  """Several processes of one device each; this one is the first, and tells the others how many steps to take."""
  with socket.create_server(('127.0.0.1', 0)) as free:
    where = f'127.0.0.1:{free.getsockname()[1]}'
  context, lines = multiprocessing.get_context('spawn'), []
  for number in range(1, count):
    ours, theirs = context.Pipe()
    context.Process(target=_follow, args=(case, where, count, number, theirs), daemon=True).start()
    lines.append(ours)
  step = _joined(case, where, count, 0)

  def run(steps: int) -> None:
    for line in lines:
      line.send(steps)
    if steps:
      step(steps)

  def end() -> float:
    """The last that is asked of a side: all leave together."""
    from emo_jax import processes

    run(0)
    with processes.ending():
      return 0.0

  return race.Runner(run, race.memory_of('jax', case.device), end)


def _joined(case: cases.Case, where: str, count: int, number: int) -> race.Run:
  from emo_jax import processes

  _settle(case, 1, first=number, cores=1, flag='')
  processes.start(autodetect=False, coordinator=where, count=count, number=number)
  return _stepping(case)


def _follow(case: cases.Case, where: str, count: int, number: int, line: Connection) -> None:
  from emo_jax import processes

  with processes.ending():
    step = _joined(case, where, count, number)
    while steps := line.recv():
      step(steps)


def sides(case: cases.Case) -> dict[str, race.Side]:
  """What is compared, by name; the first is what the others are measured by."""
  most, of = DEVICES.value, {}
  if case.device == 'gpu':
    of = {f'{n} GPU{"s" * (n > 1)}': functools.partial(alone, n, 0, '') for n in range(1, most + 1)}
  else:
    one_thread = '--xla_cpu_multi_thread_eigen=false'
    of = {
      '1 device, 1 core': functools.partial(alone, 1, 1, ''),
      f'1 device, {most} cores': functools.partial(alone, 1, most, ''),
      f'{most} devices, {most} cores': functools.partial(alone, most, most, ''),
      f'{most} devices, a thread each': functools.partial(alone, most, most, one_thread),
    }
  of[f'{most} processes x 1 device'] = functools.partial(several, most)
  return {name: race.Side(make, ()) for name, make in of.items()}


def main(argv: list[str]) -> None:
  """Prints a table a network."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  race.set_up()
  for case in cases.cases():
    print(f'\nscaling: {case.network}, batch {case.batch} on all devices together, {case.precision}', flush=True)
    results = race.race(sides(case), case, race.REPEATS.value)
    first = next(iter(results.values()))
    print(f'  {"":28s}{"examples/s":>26s}{"faster":>24s}')
    for name, result in results.items():
      rates, faster = [case.batch / one for one in result.seconds], tables.spread(tables.ratios(first, result))
      print(f'  {name:28s}{tables.spread(rates):>26s}{faster:>24s}', flush=True)
    tables.write('scaling', case._asdict(), results)


if __name__ == '__main__':
  app.run(main)

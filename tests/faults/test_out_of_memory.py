"""Memory that does not suffice, in real runs whose memory is limited: advice is given, and it is true."""

import re

LIMIT = 'memory=4096'  # MiB; JAX alone addresses some 2000


def test_a_run_out_of_memory_says_what_would_need_less_and_it_does(
  unbroken, clips, launch, faulty, with_stages
) -> None:
  workdir = with_stages('greedy', 'prepare', 'audio_net')
  root, cache = f'data.root={clips}', workdir / 'stages'

  greedy = faulty(LIMIT, workdir, root, 'visual.batch=1500', 'visual.select=last')  # XLA's: a step
  said = greedy.stderr.splitlines()[-1]
  assert greedy.returncode == 1 and 'Traceback' not in greedy.stderr
  assert re.match(
    r'launch.py: visual_net: out of memory \(.*[Oo]ut of memory.*\)\. Now config.visual.batch=1500, ', said
  )
  assert 'config.visual.accumulate=1, config.visual.precision=float32: a smaller batch' in said
  assert f'another --workdir, where --config.cache={cache} finds what is made' in said

  greedy = faulty(LIMIT, workdir.with_name('sound'), root, f'cache={cache}', 'audio.batch=2000000')  # numpy's: a batch
  said = greedy.stderr.splitlines()[-1]
  assert greedy.returncode == 1 and 'Traceback' not in greedy.stderr
  assert said.startswith('launch.py: audio_net: out of memory (Unable to allocate ')

  done = launch(workdir.with_name('modest'), root, f'cache={cache}')
  assert done.returncode == 0, done.stderr
  found = workdir.with_name('modest') / 'predictions.csv'
  assert found.read_bytes() == (unbroken / 'predictions.csv').read_bytes()

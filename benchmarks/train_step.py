"""Times a training step of the networks, ours against PyTorch's: the same network, batch and precision, in turn.

  python -m benchmarks.train_step [--device=cpu|gpu] [--network=alexnet,alexnet_caffe,c3d,alexnet_slim,c3d_slim]
    [--precision=float32,bfloat16] [--batch=N] [--repeats=N] [--threads=N] [--out=FILE]
  python -m benchmarks.train_step --pipeline [--stages=FOLDER] [the flags above]

A table a network and precision. Ours is the step that training runs, without what stands in front of the first layer;
PyTorch's does the same on the same images, which lie on the device: dropout, cross-entropy, SGD with momentum, weight
decay on kernels. Eager PyTorch runs in the faster of its two layouts, named in the table, torch.compile in that one.
On a CPU all are bound to the same cores. On a GPU float32 is TF32 on both sides; bfloat16 is autocast there, and here
float32 weights cast in the step. What differs: ours draws dropout's masks row by row (so that they do not depend on the
number of devices), and sums the loss and the right answers as well.

Columns: median and range over the turns; the first step, which compiles; the peak memory after it (on a CPU the
process's resident set, library and all; on a GPU what the library has allocated, JAX's peak with its compilation's
trials in it, which it cannot forget); ours over the peer, turn by turn, below 1 where ours is faster; the share of the
faster library's matrix product, measured in the same run, and on an H100 or H200 of its data sheet (dense, without
sparsity: bfloat16 989 TFLOP/s, TF32 495). Operations are counted layer by layer, convolutions and dense layers: forward
once, backward twice, less the first layer's gradient by its input.

--pipeline: steps within a whole training (training/loop.py) whose batches come from a store of prepared clips, of an
experiment's folder of stages or random ones, against arrays in memory and against one batch on the device; with what
stands in front of the first layer, augmentation and all.
"""

from typing import Any

from absl import app, flags

from benchmarks import cases, race

PIPELINE = flags.DEFINE_bool('pipeline', False, 'Train with the input pipeline attached, and without.')
STAGES = flags.DEFINE_string('stages', None, 'Of --pipeline: <workdir>/stages of an experiment; else random clips.')


def ours(case: cases.Case, _: dict[str, Any]) -> race.Runner:
  """The project's training step."""
  network, variables, facts = cases.ours(case)
  run = cases.stepping(network, variables, cases.settings(case)[1].optim, *cases.random_batch(case))
  return cases.runner(case, run, facts)


def main(argv: list[str]) -> None:
  """Prints the tables."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  race.set_up()
  if PIPELINE.value:
    from benchmarks import pipeline

    pipeline.compare(STAGES.value)
  else:
    cases.compare('training', ours)


if __name__ == '__main__':
  app.run(main)

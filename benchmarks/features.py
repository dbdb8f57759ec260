"""Times feature extraction: a forward pass of the networks, ours against PyTorch's, the same network, batch, precision.

  python -m benchmarks.features [--device=cpu|gpu] [--network=alexnet,alexnet_caffe,c3d,alexnet_slim,c3d_slim]
    [--precision=float32,bfloat16] [--batch=N] [--repeats=N] [--threads=N] [--out=FILE]

Ours is the prediction step that the features stage runs, on images that lie on the device; logits and fc7 are fetched
to the host, as there. PyTorch's runs in inference mode, fetches the same, eager in the faster of its two layouts (named
in the table) and compiled by torch.compile in that one. What is printed and how it is measured: see train_step.py.
"""

from typing import Any

from absl import app

from benchmarks import cases, race


def ours(case: cases.Case, _: dict[str, Any]) -> race.Runner:
  """The project's prediction step."""
  from emo_jax.training import parallel

  network, variables, facts = cases.ours(case)
  placed, batch = parallel.replicate(variables), parallel.shard({'input': cases.random_batch(case)[0]})
  return cases.runner(case, lambda steps: [network.predict_step(placed, batch) for _ in range(steps)], facts)


def main(argv: list[str]) -> None:
  """Prints the tables."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}')
  race.set_up()
  cases.compare('extraction', ours)


if __name__ == '__main__':
  app.run(main)

"""Several folds' RBMs trained side by side, for accelerators (pipeline step: fusion).

One program updates the RBMs of all folds, and of several seeds, at once: all has a leading axis [K, ...], dealt to the
devices. Random streams, order of rows and averages are those of one by one (training/contrastive.py), so the results
are equal but for the order of sums; in long trainings that turns a sampled bit here and there, as another number of
devices does. Nothing is saved on the way: where this is worth while, a layer takes seconds to minutes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from emo_jax.models import rbm
from emo_jax.training import batches, contrastive, finiteness, loop, parallel

Tree = Any


class Fold(NamedTuple):
  """What one stack of RBMs learns from.

  Attributes:
    data: float32 [N, V]; N may differ between folds, V not.
    held: float32 [M, V], monitored and never learnt from; M may be 0.
    seed: of its random streams.
    name: of the fold's fusion, for metrics.
    watch: metrics and progress. Of all folds, the first one's log_every counts, and nothing is saved.
  """

  data: np.ndarray
  held: np.ndarray
  seed: int
  name: str
  watch: loop.Watch


def train_stacks(folds: Sequence[Fold], layers: Sequence[contrastive.Layer], *, config: Any) -> list[list[rbm.Params]]:
  """What contrastive.train_stack gives of each fold, numpy arrays; one layer of all folds after the other.

  Args:
    folds: one or more.
    layers: the lowest first; any depth.
    config: config.fusion.rbm.

  Raises:
    FloatingPointError: a fold's metric or parameter became NaN or infinite.
  """
  stacks: list[list[rbm.Params]] = [[] for _ in folds]
  for number, layer in enumerate(layers):
    folds_above = []
    for stack, fold, params in zip(stacks, folds, _train_rbms(folds, layer, number, config), strict=True):
      stack.append(params)
      data, held = (contrastive.hidden_means(params, rows, layer.units) for rows in (fold.data, fold.held))
      folds_above.append(fold._replace(data=data, held=held))
    folds = folds_above
  return stacks


def _train_rbms(folds: Sequence[Fold], layer: contrastive.Layer, number: int, config: Any) -> list[rbm.Params]:
  """The averaged parameters of each fold's RBM."""
  names = [f'{fold.name}/rbm{number}' for fold in folds]
  courses = []
  for fold, name in zip(folds, names, strict=True):
    of: dict[str, Any] = {'seed': fold.seed, 'names': ('fusion', 'rbm', number), 'name': name, 'watch': fold.watch}
    course = contrastive.plan(fold.data, fold.held, layer, config=config, size=config.batch, **of)
    courses.append(course._replace(state=jax.device_get(course.state)))  # the devices hold all states once
  state, found = _fit(layer, courses, names, [fold.watch for fold in folds]), []
  for k, (course, name) in enumerate(zip(courses, names, strict=True)):
    found.append(loop.finite(_of(state, k), name, course.steps)['average'])
    course.finish(found[-1])
  return found


def _fit(
  layer: contrastive.Layer, courses: list[contrastive.Course], names: list[str], watches: list[loop.Watch]
) -> Tree:
  """Takes all courses to their ends, in step: 'params' and 'average' [K, ...], on the host."""
  state = parallel.place_folds(_stacked([course.state for course in courses]))
  key = parallel.place_folds(jnp.stack([course.key for course in courses]))
  steps, sums = max(course.steps for course in courses), []
  skipped: list[list[int]] = [[] for _ in courses]
  make = lambda step: parallel.place_folds(_stacked([_batch(course, step) for course in courses]))
  with batches.ahead(make, range(steps)) as placed:
    for done, batch in enumerate(placed, start=1):
      state, summed = layer.folds_step(state, batch, key)
      sums.append(summed)
      ending = [k for k, course in enumerate(courses) if done <= course.steps and done % course.epoch_steps == 0]
      if done % watches[0].log_every == 0 or ending or done == steps:
        first, fetched = done - len(sums), jax.device_get(sums)
        for k, (course, name, watch) in enumerate(zip(courses, names, watches, strict=True)):
          own = [_of(of_step, k) for of_step in fetched[: max(course.steps - first, 0)]]
          loop.report(name, own, watch, course.batch_at, skipped[k], first=first, steps=course.steps)
          watch.tick(len(own), sum(float(of_step['count']) for of_step in own))
        sums = []
      for k in ending:
        courses[k].after_epoch(done, {'params': _of(state['params'], k)})
  for course, name, watch, own in zip(courses, names, watches, skipped, strict=True):
    finiteness.tell(name, own, course.steps, watch.workdir)
  return jax.device_get({name: state[name] for name in ('params', 'average')})


def _batch(course: contrastive.Course, step: int) -> dict[str, np.ndarray]:
  """A fold's batch; once its course has ended, one without rows."""
  batch = course.batch_at(min(step, course.steps - 1))
  return {**batch, 'mask': batch['mask'] * np.float32(step < course.steps)}


def _stacked(trees: list[Tree]) -> Tree:
  return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _of(tree: Tree, k: int) -> Tree:
  """Fold k's part."""
  return jax.tree.map(lambda leaf: leaf[k], tree)

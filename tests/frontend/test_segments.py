"""Segments: the table of 16 frames, window counts, and frames matched to windows in exact arithmetic."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest

from emo_jax.frontend import audio, segments

# Worked out by hand from contract.md, Frames to 16.
BY_HAND = {
  1: [0] * 16,
  2: [0] * 8 + [1] * 8,
  5: [0] * 6 + [1, 2, 3] + [4] * 7,
  14: [0, 0, *range(1, 13), 13, 13],
  15: [*range(15), 14],
  16: list(range(16)),
  17: list(range(16)),
  18: list(range(1, 17)),
  19: list(range(1, 17)),
  20: list(range(2, 18)),
  24: list(range(4, 20)),
  25: [0, 2, 3, 5, 6, 8, 10, 11, 13, 14, 16, 18, 19, 21, 22, 24],
  31: list(range(0, 31, 2)),
  39: [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28, 30, 33, 35, 38],
}


def sixteen(count: int) -> list[int]:
  """The rule step by step, as the contract words it."""
  frames = list(range(count))
  if count > 24:
    return [(2 * i * (count - 1) + 15) // 30 for i in range(16)]
  at_the_end = True
  while len(frames) > 16:
    frames = frames[:-1] if at_the_end else frames[1:]
    at_the_end = not at_the_end
  while len(frames) < 16:
    frames = [*frames, count - 1] if at_the_end else [0, *frames]
    at_the_end = not at_the_end
  return frames


@pytest.mark.parametrize('count', BY_HAND)
def test_the_table_worked_out_by_hand(count: int) -> None:
  assert segments.choose_frames(np.arange(count)).tolist() == BY_HAND[count]


@pytest.mark.parametrize('count', range(1, 41))
def test_sixteen_frames_are_chosen_as_the_rule_says(count: int) -> None:
  assert segments.choose_frames(7 + np.arange(count)).tolist() == [7 + i for i in sixteen(count)]


@pytest.mark.parametrize(('seconds', 'count'), [(4.94, 15), (2.8, 8), (1.1, 2), (0.655, 1), (0.3, 1), (0.03, 1)])
@pytest.mark.parametrize('rate', [16000, 22050, 48000])
def test_clips_have_the_windows_that_the_method_lists(seconds: float, count: int, rate: int) -> None:
  frame, shift = audio.frame_lengths(rate)
  columns = 1 + (round(seconds * rate) - frame) // shift
  if (seconds, rate) == (4.94, 22050):
    assert columns == 491
  assert segments.window_count(columns, length=64, shift=30) == count
  table = of_clip(columns)
  assert len(table) == count and table.start.tolist() == [30 * i for i in range(count)]


@pytest.mark.parametrize(('columns', 'count'), [(1, 1), (63, 1), (64, 1), (93, 1), (94, 2), (123, 2), (124, 3)])
def test_a_remainder_is_dropped(columns: int, count: int) -> None:
  assert segments.window_count(columns, length=64, shift=30) == count


def of_clip(
  columns: int, times: np.ndarray | None = None, *, column_s: float = 0.01, clip: int = 3, **kept: np.ndarray
):
  times = np.zeros(0) if times is None else times
  confidence = kept.get('confidence', np.ones(len(times)))
  return segments.of_clip(clip, columns, column_s, times, confidence, length=64, shift=30)


FPS = [Fraction(25), Fraction(30000, 1001), Fraction(30), Fraction(60)]


@pytest.mark.parametrize('fps', FPS)
@pytest.mark.parametrize('late', [Fraction(0), Fraction(25, 1000)])
@pytest.mark.parametrize('rate', [22050, 44100, 48000])
def test_frames_are_matched_to_windows_by_their_times(fps: Fraction, late: Fraction, rate: int) -> None:
  times = [late + n / fps for n in range(int(5 * fps))]
  hop = Fraction(audio.frame_lengths(rate)[1], rate)
  table = of_clip(491, np.array([float(t) for t in times]), column_s=float(hop))
  assert len(table) == 15 and table.has_face.all() and table.has_audio.all() and (table.clip == 3).all()
  for row in range(15):
    begin = 30 * row * hop
    inside = [i for i, t in enumerate(times) if begin <= t < begin + 63 * hop + Fraction(25, 1000)]
    assert table.frames[row].tolist() == [inside[i] for i in sixteen(len(inside))]


def test_usual_rates_fill_windows_as_the_method_says() -> None:
  """Frames in the first window of a clip: 17 at 25 fps (0 to 0.64 s), 20 at 30 fps, 40 at 60 fps."""
  for fps, last in ((25, 15), (30, 17), (60, 39)):
    assert of_clip(64, np.arange(100) / fps).frames[0].max() == last


def test_a_picture_shorter_than_the_sound_leaves_segments_without_a_face() -> None:
  table = of_clip(64 + 30 * 6, np.arange(25) / 25)  # 2.455 s of sound, the last frame shown at 0.96 s
  assert len(table) == 7 and table.has_audio.all()
  assert table.has_face.tolist() == [True] * 4 + [False] * 3
  assert table.frames[3].tolist() == [23] * 8 + [24] * 8  # from 0.9 s: the frames at 0.92 and 0.96 s
  assert (table.frames[4:] == 0).all()


def test_a_picture_that_starts_late_leaves_the_first_segments_without_a_face() -> None:
  assert of_clip(64 + 30 * 3, 0.7 + np.arange(50) / 25).has_face.tolist() == [False, True, True, True]


def test_without_sound_the_picture_decides_the_windows() -> None:
  times = 0.4 + np.arange(50) / 25  # 2 s, of which 1 + (2 - 0.655) / 0.3 = 5.48 windows
  table = of_clip(0, times)
  assert len(table) == 5 and not table.has_audio.any() and table.has_face.all()
  for row in range(5):
    inside = [i for i, t in enumerate(times - 0.4) if 0.3 * row - 1e-6 <= t < 0.3 * row + 0.655]
    assert table.frames[row].tolist() == [inside[i] for i in sixteen(len(inside))]
  assert len(of_clip(0, np.arange(24) / 25)) == 2  # 0.96 s, for the last frame lasts as long as the others
  assert of_clip(0, np.array([0.5])).frames.tolist() == [[0] * 16]  # a single frame is still a segment


def test_without_sound_there_are_the_windows_in_which_a_frame_is_shown() -> None:
  """One by one, of films with gaps; and of one whose last time stamp is years ahead, at once."""
  rng = np.random.default_rng(2)
  for _ in range(20):
    times = np.cumsum(rng.choice([0.04, 0.2, 3.0], size=30, p=[0.6, 0.3, 0.1])) + 0.3
    whole = 1 + max(1 + int((times[-1] - times[0] + np.median(np.diff(times)) - 0.025) / 0.01) - 64, 0) // 30
    begin = np.arange(whole) * 30 * 0.01 + times[0]
    shown = [any((b - 1e-9 <= t) and (t < b + 0.655 - 1e-9) for t in times) for b in begin]
    assert of_clip(0, times).start.tolist() == (30 * np.flatnonzero(shown)).tolist()
  table = of_clip(0, np.append(np.arange(30) / 25, 1e7 + np.arange(30) / 25))
  assert len(table) < 12 and table.start[-1] > 9e8


def test_without_a_picture_there_is_no_face_and_without_both_no_segment() -> None:
  table = of_clip(124)
  assert len(table) == 3 and table.has_audio.all() and not table.has_face.any()
  assert len(of_clip(0)) == 0


@pytest.mark.parametrize(('sure', 'has_face'), [(8, True), (7, False)])
def test_half_of_the_sixteen_frames_must_show_a_face(sure: int, has_face: bool) -> None:
  confidence = np.zeros(16)
  confidence[4 : 4 + sure] = 0.1
  assert of_clip(64, np.arange(16) / 25, confidence=confidence).has_face.tolist() == [has_face]


def test_tables_are_joined_and_taken_row_by_row() -> None:
  whole = segments.Segments.join([of_clip(94, clip=0), of_clip(0, clip=1), of_clip(124, clip=2)])
  assert len(whole) == 5 and whole.clip.tolist() == [0, 0, 2, 2, 2]
  part = whole.take(whole.clip == 2)
  assert part.start.tolist() == [0, 30, 60] and part.frames.shape == (3, 16)
  assert whole.take(np.array([3, 0])).start.tolist() == [30, 0]


@pytest.mark.parametrize('field', [field.name for field in dataclasses.fields(segments.Segments)])
def test_a_digest_names_a_table_with_all_that_is_in_it(field: str) -> None:
  table = segments.of_clip(3, 130, 0.01, np.arange(40) / 25, np.ones(40), length=64, shift=30)
  assert table.digest() == table.take(np.arange(len(table))).digest()
  array = getattr(table, field).copy()
  array[-1] = ~array[-1] if array.dtype == bool else array[-1] + 1
  assert dataclasses.replace(table, **{field: array}).digest() != table.digest()
  assert table.take(np.arange(len(table) - 1)).digest() != table.digest()

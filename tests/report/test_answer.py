"""The answer to a clip says what is in the result, shows what was missing, and takes no text for markup."""

import base64
import html
import re
from typing import Any

import numpy as np
import pytest

from emo_jax.report import answer
from tests.report import results

WHITE, BLACK = np.full((16, 32, 32, 3), 255, np.uint8), np.zeros((64, 64, 3), np.uint8)


def shown(result: dict[str, Any], **changes: Any) -> str:
  cards = [answer.card((BLACK, None), None, 'anger') for _ in result['segments']]
  return answer.render(result, **{'film': b'film', 'cards': cards, 'heated': len(cards), **changes})


def decoded(card: dict[str, str]) -> np.ndarray:
  import cv2

  content = base64.b64decode(card['uri'].removeprefix('data:image/jpeg;base64,'))
  return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def test_segments_are_pointed_at_up_to_halfway_to_the_next() -> None:
  segments = [{'start': 0.0, 'end': 1.0}, {'start': 1.0, 'end': 2.0}, {'start': 1.5, 'end': 2.5}]
  np.testing.assert_allclose(answer.borders(segments, 4.0), [0, 0.25, 1.75 / 4, 1])


def test_lines_break_where_nothing_is_known() -> None:
  odds = [{'joy': 1.0}, None, {'joy': 0.25}, {'joy': 0.5}]
  segments = [{'start': float(n), 'end': n + 1.0, 'audio': of} for n, of in enumerate(odds)]
  result = {'segments': segments, 'seconds': 4.0}
  line = answer.line(result, 'audio', 'joy', answer.borders(segments, 4.0))
  assert line == 'M0.0 0.0L125.0 0.0H250.0M500.0 75.0L625.0 75.0L875.0 50.0H1000.0'


def test_runs_are_joined() -> None:
  edges = np.array([0, 0.1, 0.3, 0.6, 1])
  assert answer.spans([True, True, False, True], edges) == [(0.0, 0.3), (0.6, 0.4)]
  assert answer.spans([False] * 4, edges) == []


@pytest.mark.parametrize(
  ('seconds', 'times'),
  [(1.6, [0, 0.5, 1, 1.5]), (3.77, [0, 1, 2, 3]), (60, [0, 10, 20, 30, 40, 50]), (9000, [0, 1800, 3600, 5400, 7200])],
)
def test_times_are_round(seconds: float, times: list[float]) -> None:
  assert answer.ticks(seconds) == times


@pytest.mark.parametrize(
  ('missing', 'said'),
  [
    ({}, ''),
    ({'without_face': 9}, 'No segment has a face. Nothing was put in its place.'),
    (
      {'without_sound': 2, 'filled': 2, 'how': 'zero'},
      '2 of 9 segments have no sound. In 2 the missing half was taken as zeros.',
    ),
    (
      {'without_sound': 1, 'without_face': 3, 'filled': 4, 'how': 'mean'},
      '1 of 9 segments have no sound. 3 of 9 segments have no face. '
      'In 4 the missing half was taken as the mean of the training clips.',
    ),
  ],
)
def test_what_was_missing_is_said(missing: dict[str, Any], said: str) -> None:
  base = {'segments': 9, 'without_sound': 0, 'without_face': 0, 'filled': 0, 'how': ''}
  assert answer.absences(base | missing) == said


@pytest.mark.parametrize('how', ['gibbs', 'mean_field', 'zero', 'mean'])
def test_every_way_of_filling_in_has_words(how: str) -> None:
  told = answer.absences({'segments': 9, 'without_sound': 1, 'without_face': 0, 'filled': 1, 'how': how})
  assert f'half was {how}' not in told


def test_a_card_holds_pictures_side_by_side_and_heat_below() -> None:
  plain = answer.card((BLACK, None), (WHITE, None), 'anger')
  picture = decoded(plain)
  assert picture.shape == (80, 5 * 80 + 4 * 2, 3)
  assert picture[:, :70].max() < 30 and picture[:, 90:150].min() > 225
  assert plain['said'] == 'Log-mel image and 4 of 16 faces.'
  heat = np.zeros((16, 32, 32), np.float32)
  heat[:, :16] = 1
  hot = answer.card(None, (WHITE, heat), 'anger')
  picture = decoded(hot)
  assert picture.shape == (80 + 2 + 80, 4 * 80 + 3 * 2, 3) and 'bright is what speaks for anger' in hot['said']
  assert picture[:78, :78].min() > 225 and picture[130:, :78].min() > 225  # under heat of 0 everything stays
  assert np.ptp(picture[90:110, 10:70].mean((0, 1))) > 30  # under heat of 1 it has the heat's colour


def test_the_lowest_band_is_at_the_bottom() -> None:
  sound = BLACK.copy()
  sound[:10] = 255
  picture = decoded(answer.card((sound, None), None, 'anger'))
  assert picture[-10:].min() > 200 and picture[:60].max() < 60


def test_a_segment_without_anything_has_no_picture() -> None:
  assert answer.card(None, None, 'anger') == {'uri': '', 'said': 'Neither sound nor face.'}


def test_decibels_become_grey() -> None:
  np.testing.assert_array_equal(answer.shade(np.array([[-80.0, -40, 0]]), -80, 0)[0], [[0] * 3, [127] * 3, [255] * 3])


def test_the_answer_says_what_the_result_says() -> None:
  result = results.result(9, without_face=(2, 3), without_sound=(7,))
  text = shown(result)
  words = re.sub(r'\s+', ' ', html.unescape(re.sub('<[^>]+>', ' ', text)))
  assert f'{result["verdict"]} {100 * result["confidence"]:.0f} %' in words
  assert '1 of 9 segments have no sound. 2 of 9 segments have no face. In 3 the missing half was drawn' in words
  assert text.count('class="missing"') == 2 and text.count('class="filled"') == 2
  assert text.count('type="radio"') == text.count('<img') == 9
  assert text.count('<path') == 3 * len(results.CLASSES)
  for row in result['segments']:
    for method in ('audio', 'visual', 'hybrid'):
      if row[method]:
        first = max(row[method], key=row[method].get)
        assert f'>{first} {100 * row[method][first]:.0f}</td>' in text


def test_pictures_without_heat_are_told() -> None:
  assert 'computed for 4 of 9 segments' in shown(results.result(9), heated=4)
  assert 'computed for' not in shown(results.result(9))


def test_without_a_film_there_is_no_player() -> None:
  assert '<video' in shown(results.result()) and '<video' not in shown(results.result(), film=b'')


@pytest.mark.parametrize('field', ['file', 'warnings', 'classes'])
def test_no_text_is_markup(field: str) -> None:
  evil = '<script>alert(1)</script>"\'&'
  result = results.result(classes=(evil, 'joy')) if field == 'classes' else results.result()
  if field != 'classes':
    result[field] = [evil] if field == 'warnings' else evil
  text = shown(result)
  assert '<script' not in text and '&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&amp;' in text
  assert answer.refusal(evil, evil).count('&lt;script&gt;') == 2


def test_the_page_holds_no_address() -> None:
  assert not re.findall(r'https?://|url\(|@import|src=', answer.head())

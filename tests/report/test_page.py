"""The page of an ablation, as a reader's browser shows it: headless Chromium where there is one."""

import copy
import json
import pathlib
import re
from typing import Any

import numpy as np
import pytest

from emo_jax.report import page
from tests.report import pages

DESK, PHONE = 1280, 360


def written(folder: pathlib.Path, **changes: Any) -> pathlib.Path:
  """The page of all inputs, but for those that are changed."""
  inputs = {name: getattr(pages, name)() for name in ('comparison', 'run', 'curves', 'embedding', 'saliency')}
  inputs |= changes
  return page.write(folder, inputs.pop('comparison'), **inputs)


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  return written(tmp_path_factory.mktemp('page'))


def opened(browser: Any, path: pathlib.Path, *, width: int = DESK, **options: Any) -> Any:
  """A tab that shows the page, with what it complained about and asked for in `heard`."""
  tab = browser.new_context(viewport={'width': width, 'height': 800}, **options).new_page()
  tab.heard = {'complaints': [], 'requests': []}
  tab.on('console', lambda message: tab.heard['complaints'].append(message.text))
  tab.on('pageerror', lambda error: tab.heard['complaints'].append(str(error)))
  tab.on('request', lambda request: tab.heard['requests'].append(request.url))
  tab.goto(path.as_uri())
  return tab


def unfold(tab: Any) -> None:
  tab.evaluate('document.querySelectorAll("details").forEach(one => one.open = true)')


# What the page says


@pytest.mark.parametrize(
  ('value', 'text'), [(0.5734, '57.3'), (0.0, '0.0'), (1, '100.0'), (None, '–'), (float('nan'), '–')]
)
def test_shares_are_percent(value: float | None, text: str) -> None:
  assert page.percent(value) == text


def test_differences_are_signed_points() -> None:
  assert [page.points(value) for value in (-0.0104, 0.052, -1e-9, None)] == ['−1.0', '+5.2', '+0.0', '–']
  assert [page.number(value, 2) for value in (-0.104, -1e-9, None)] == ['−0.10', '0.00', '–']


@pytest.mark.parametrize(
  ('p', 'text'),
  [(1.0, '1.00'), (0.53125, '0.53'), (0.0078125, '0.0078'), (0.05, '0.050'), (0.000123, '0.00012'), (1e-6, '< 0.0001')],
)
def test_p_has_two_digits(p: float, text: str) -> None:
  assert page.probability(p) == text


@pytest.mark.parametrize(
  ('seconds', 'text'), [(9.4, '9 s'), (59.7, '1 min 0 s'), (2711.4, '45 min 11 s'), (7380, '2 h 3 min'), (None, '–')]
)
def test_durations(seconds: float | None, text: str) -> None:
  assert page.duration(seconds) == text


def contrast(difference: float, p_holm: float | None, rival: Any = 'concat', row: str = 'dbn') -> dict[str, Any]:
  return {**pages.CONTRASTS[1], 'row': row, 'rival': rival, 'difference': difference, 'p_holm': p_holm}


def test_a_contrast_in_words() -> None:
  assert page.sentence(contrast(-0.0104, 0.53)) == (
    'dbn is 1.0 points below concat (95 % −3.1 to +1.2, p = 0.53, by Holm 0.53, 8 speakers): '
    'no difference can be shown.'
  )
  better = page.sentence(contrast(0.1, 0.01, ['audio', 'visual']))
  assert better.startswith('dbn is 10.0 points above the better of audio and visual as chosen on held speakers (')
  assert better.endswith(': it is better.')
  assert page.sentence(contrast(-0.1, 0.01)).endswith(': it is worse.')
  assert page.sentence(contrast(0.0001, 0.9)).startswith('dbn is level with concat (')


def test_the_rival_that_was_chosen_is_named() -> None:
  assert page.chosen({'chosen': ['visual', 'audio', 'visual']}) == 'visual in 2 folds, audio in 1 fold'
  assert page.chosen({'chosen': None}) == page.chosen({}) == ''


@pytest.mark.parametrize(
  ('difference', 'p_holm', 'verdict'),
  [(0.1, 0.049, 'better'), (-0.1, 0.049, 'worse'), (0.1, 0.05, ''), (0.9, None, ''), (0.0, 0.01, '')],
)
def test_a_difference_is_shown_by_the_corrected_p_alone(difference: float, p_holm: float | None, verdict: str) -> None:
  assert page.verdict(contrast(difference, p_holm) | {'p': 0.001, 'interval': [0.01, 0.2]}) == verdict


@pytest.mark.parametrize(
  ('contrasts', 'text'),
  [
    ([], 'No contrast was tested, so no difference is claimed.'),
    ([contrast(0.1, 0.5)], 'No difference between dbn and its rival can be shown.'),
    (
      [contrast(0.1, 0.5), contrast(0.1, 0.5, 'mean')],
      'No difference between dbn and any of its 2 rivals can be shown.',
    ),
    ([contrast(0.1, 0.01), contrast(0.1, 0.01, 'mean')], 'dbn is better than concat and mean.'),
    (
      [contrast(0.1, 0.01, ['audio', 'visual']), contrast(-0.1, 0.01), contrast(0.1, 0.5, 'mean')],
      'dbn is better than the better of audio and visual, but worse than concat; '
      'against mean no difference can be shown.',
    ),
    (
      [contrast(-0.1, 0.01), contrast(0.1, 0.9, row='fc')],
      'dbn is worse than concat. No difference between fc and its rival can be shown.',
    ),
  ],
)
def test_the_headline_claims_what_is_shown_and_no_more(contrasts: list[dict[str, Any]], text: str) -> None:
  assert ' '.join(page.headline(contrasts)) == text


def test_whether_fusion_forgets_the_speaker_is_told_by_the_neighbours() -> None:
  made = pages.embedding()
  assert 'less than the joined ones' in page.forgets(made, 'test')
  assert 'of 10.0 % of test clips after fusion, of 40.0 % before (12.0 % by chance)' in page.forgets(made, 'test')
  made['hybrid']['neighbours']['speaker'] = 0.5
  assert 'more than the joined ones' in page.forgets(made, 'test')
  made['hybrid']['neighbours']['speaker'] = None
  assert page.forgets(made, 'test') == ''
  assert page.forgets({name: of for name, of in made.items() if name != 'hybrid'}, 'test') == ''


def test_after_epochs_measures_join_the_training_that_they_are_of() -> None:
  panels = page.learning_panels(pages.curves())
  assert list(panels) == ['audio_net', 'visual_net', 'fusion/finetune', 'fusion/rbm0']
  assert [one['measure'] for one in panels['audio_net']['main']] == ['loss', 'accuracy']
  assert 'held 1.40' in panels['audio_net']['main'][0]['plot']
  assert [one['measure'] for one in panels['fusion/rbm0']['main']] == ['reconstruction error']
  assert [one['measure'] for one in panels['fusion/rbm0']['more']] == ['free energy']
  assert 'training -3.00, held -2.00' in panels['fusion/rbm0']['more'][0]['plot']


def test_intervals_lie_on_one_axis_with_chance() -> None:
  rows = [{'accuracy': 0.5, 'interval': [0.41, 0.61]}, {'accuracy': 0.3, 'interval': [None, None]}]
  assert page.scale(rows, 1 / 6) == (0.15, 0.65)
  assert page.scale(rows, 0.5) == (0.3, 0.65)
  assert page.scale([], 0.5) == (0.5, 0.55)


# What the file holds


def test_the_page_is_small_and_its_names_are_unique(whole: pathlib.Path) -> None:
  text = whole.read_text()
  assert len(text) < 5e6
  assert '{{' not in text and '{%' not in text
  ids = re.findall(r'\bid="([^"]+)"', text)
  assert len(ids) == len(set(ids))
  aims = {a or b for a, b in re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text)}
  assert aims <= set(ids) and aims


def test_every_table_has_a_caption_and_every_head_a_scope(whole: pathlib.Path) -> None:
  text = whole.read_text()
  assert text.count('<table') == text.count('<caption>') > 30
  heads = re.findall(r'<th\b[^>]*>', text)
  assert all('scope=' in head or 'aria-hidden' in head for head in heads)
  assert all(re.search(r'\balt="[^"]+"', image) for image in re.findall(r'<img[^>]*>', text))


def test_the_dots_of_the_table_stand_where_the_figures_say(browser: Any, whole: pathlib.Path) -> None:
  tab = opened(browser, whole)
  dots = tab.evaluate("""[...document.querySelectorAll('#contenders .contenders tr:not(.level)')].slice(1).map(row => {
    const span = row.querySelector('.span').getAttribute('d').match(/[\\d.]+/g);
    return [row.cells[1].dataset.v, row.cells[2].textContent, row.querySelector('circle').getAttribute('cx'),
      span[0], span[2], row.querySelector('.line').getAttribute('d').match(/[\\d.]+/)[0]];
  })""")
  place = lambda share: 6 + 160 * (share - 0.15) / (0.7 - 0.15)  # the axis is 15 to 70 %, the plot 172 px
  assert len(dots) == len(pages.ROWS)
  for (name, *_, accuracy), (value, interval, dot, low, high, line) in zip(pages.ROWS, dots, strict=True):
    assert float(value) == accuracy, name
    assert interval == f'{100 * accuracy - 8:.1f} to {100 * accuracy + 7:.1f}'
    shares = (accuracy, accuracy - 0.08, accuracy + 0.07, 1 / 6)
    np.testing.assert_allclose([float(x) for x in (dot, low, high, line)], [place(s) for s in shares], atol=0.06)


def test_the_page_answers_first_and_says_how_to_run_it_again(browser: Any, whole: pathlib.Path) -> None:
  tab = opened(browser, whole)
  assert tab.inner_text('.answer') == (
    'dbn is better than the better of audio and visual; against concat and mean no difference can be shown.'
  )
  assert tab.locator('.claims li').count() == 3
  run = tab.inner_text('#run')
  for words in (pages.run()['command'], pages.run()['git'], 'scikit-learn 1.9.1', 'platform cpu', '45 min 11 s'):
    assert words in run
  assert '12 configurations judged on test' in run
  cells = tab.evaluate('[...document.querySelectorAll("#run tr")].map(row => [...row.cells].map(c => c.textContent))')
  assert ['fusion', '60', '12'] in cells
  assert ['encoding/inductive_nets0_seed2', 'FloatingPointError: loss is nan at step 120'] in cells


def test_confusions_are_shares_of_the_truth(browser: Any, whole: pathlib.Path) -> None:
  tab = opened(browser, whole)
  table = next(row for row in pages.comparison()['protocols']['inductive']['rows'] if row['name'] == 'dbn')['confusion']
  found = tab.evaluate("""[...document.querySelector('#confusions table').tBodies[0].rows].map(
    row => [...row.cells].slice(1).map(cell => parseFloat(cell.textContent)))""")
  counts = np.array(table)
  want = np.round(100 * counts / counts.sum(1, keepdims=True))
  np.testing.assert_array_equal(np.array(found)[:, :6], want)
  np.testing.assert_array_equal(np.array(found)[:, 6], np.round(counts.sum(1) / 3))


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'leaks_allowed': True}, 'NOT speaker-independent.'),
    ({'judged': 'held'}, 'Judged on held speakers.'),
    ({'protocols': {'transductive': pages.protocol(1, 0.0)}}, 'Not to be ranked with inductive results.'),
  ],
)
def test_what_must_not_be_quoted_so_says_it(tmp_path: pathlib.Path, changes: dict[str, Any], words: str) -> None:
  bare: dict[str, Any] = {'run': None, 'curves': None, 'embedding': None, 'saliency': None}
  plain = written(tmp_path, comparison=pages.comparison(protocols={'inductive': pages.protocol(0, 0.0)}), **bare)
  assert 'class="warning"' not in plain.read_text()
  text = written(tmp_path, comparison=pages.comparison(**changes), **bare).read_text()
  assert f'<p class="warning"><strong>{words}</strong>' in text


def test_transductive_rows_stand_in_a_table_of_their_own(browser: Any, whole: pathlib.Path) -> None:
  tab = opened(browser, whole)
  assert tab.locator('#contenders .contenders').count() == tab.locator('#transductive .contenders').count() == 1
  assert 'Not to be ranked' in tab.inner_text('#transductive')
  assert 'transductive' not in tab.inner_text('#contenders')


# How the browser shows it


@pytest.mark.parametrize('width', [PHONE, DESK])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_nothing_is_missing_and_nothing_sticks_out(browser: Any, whole: pathlib.Path, width: int, scheme: str) -> None:
  tab = opened(browser, whole, width=width, color_scheme=scheme)
  unfold(tab)
  assert tab.heard == {'complaints': [], 'requests': tab.heard['requests']}
  assert all(url == whole.as_uri() or url.startswith('data:') for url in tab.heard['requests'])
  assert tab.evaluate('document.documentElement.scrollWidth') == width
  images = tab.evaluate('[...document.images].map(image => [image.complete, image.naturalWidth, image.width])')
  assert len(images) == 2 * 2 * 2 + 2 * 2 * 3 and all(done and own > 0 and shown > 20 for done, own, shown in images)
  plots = tab.evaluate("""[...document.querySelectorAll('svg.plot')].map(
    one => [one.getBoundingClientRect().width, one.getBoundingClientRect().height])""")
  assert len(plots) > 20 and all(w > 100 and h > 100 for w, h in plots)


# Every text's colour against what lies behind it, colours brought to sRGB by a canvas.
CONTRAST = """() => {
  const brush = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
  const rgba = colour => {
    brush.clearRect(0, 0, 1, 1); brush.fillStyle = colour; brush.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = brush.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map(n => top[n] * top[3] + below[n] * (1 - top[3]));
  const light = colour => {
    const [r, g, b] = colour.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    if (!element) return [255, 255, 255];
    const own = rgba(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, behind(element.parentElement));
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || element.closest('script, style')) continue;
    const style = getComputedStyle(element);
    const below = behind(element);
    const ink = over(rgba(element.closest('svg') ? style.fill : style.color), below);
    const [high, low] = [light(ink), light(below)].sort((a, b) => b - a);
    found.push([(high + 0.05) / (low + 0.05), walk.currentNode.data.trim().slice(0, 40)]);
  }
  return found;
}"""


def test_texts_can_be_read_in_both_schemes(browser: Any, whole: pathlib.Path) -> None:
  papers = []
  for scheme in ('light', 'dark'):
    tab = opened(browser, whole, color_scheme=scheme)
    unfold(tab)
    measured = tab.evaluate(CONTRAST)
    assert len(measured) > 1000
    assert min(measured)[0] >= 4.5, (scheme, sorted(measured)[:5])
    papers.append(tab.evaluate('getComputedStyle(document.body).backgroundColor'))
    plot = tab.evaluate('getComputedStyle(document.querySelector("svg.plot text")).fill')
    papers.append(plot)
  assert len(set(papers)) == 4


def column(tab: Any, table: str, number: int) -> list[str]:
  script = """([table, n]) => [...document.querySelectorAll(table + ' tbody tr:not(.level)')].map(
    row => row.cells[n].textContent.trim())"""
  return tab.evaluate(script, [table, number])


@pytest.mark.parametrize('key', [None, 'Enter', ' '])
def test_tables_sort_by_click_and_by_key(browser: Any, whole: pathlib.Path, key: str | None) -> None:
  tab = opened(browser, whole)
  table, head = '#contenders .contenders', '#contenders .contenders thead th:nth-child(2)'

  def press() -> None:
    button = tab.locator(f'{head} button')
    if key:
      button.focus()
      tab.keyboard.press(key)
    else:
      button.click()

  before = column(tab, table, 1)
  want = sorted(map(float, before))
  assert tab.get_attribute(head, 'aria-sort') is None
  press()
  assert [float(x) for x in column(tab, table, 1)] == want[::-1]
  assert tab.get_attribute(head, 'aria-sort') == 'descending'
  assert not tab.is_visible(f'{table} .level') and tab.is_visible(f'{table} .of >> nth=0')
  press()
  assert [float(x) for x in column(tab, table, 1)] == want
  assert tab.get_attribute(head, 'aria-sort') == 'ascending'
  press()
  assert column(tab, table, 1) == before and tab.get_attribute(head, 'aria-sort') is None
  assert tab.is_visible(f'{table} .level >> nth=0')


def test_what_is_absent_is_sorted_last_and_texts_by_the_alphabet(browser: Any, whole: pathlib.Path) -> None:
  tab = opened(browser, whole)
  table = '#contenders .contenders'
  for _ in range(2):
    tab.click(f'{table} thead th:nth-child(7) button')
    assert column(tab, table, 6)[-1] == '–'
  tab.click(f'{table} thead th:nth-child(1) button')
  names = [name.split(' ')[0] for name in column(tab, table, 0)]
  assert names == sorted(names) and names[0] == 'attention'
  assert tab.locator(f'{table} th[aria-sort]').count() == 1


def test_every_sortable_table_sorts(browser: Any, whole: pathlib.Path) -> None:
  tab = opened(browser, whole)
  unfold(tab)
  tables = tab.locator('table.sortable')
  for number in range(tables.count()):
    head = tables.nth(number).locator('th[data-sort=number]').first
    head.locator('button').click()
    where = head.evaluate('head => head.cellIndex')
    values = tables.nth(number).evaluate(
      '(t, n) => [...t.querySelectorAll("tbody tr:not(.level)")].map(row => parseFloat(row.cells[n].dataset.v))', where
    )
    assert len(values) > 2 and values == sorted(values, reverse=True)


def test_without_script_all_is_there_to_read(browser: Any, whole: pathlib.Path) -> None:
  tab = opened(browser, whole, java_script_enabled=False)
  assert tab.locator('th button').count() == 0
  for row in pages.ROWS:
    assert tab.locator('#contenders th[scope=row]', has_text=row[3]).first.is_visible()


def test_print_shows_what_is_folded_on_white_paper(browser: Any, whole: pathlib.Path) -> None:
  tab = opened(browser, whole, color_scheme='dark')
  folded = '[...document.querySelectorAll("details > :not(summary)")].map(one => one.checkVisibility())'
  assert not any(tab.evaluate(folded))
  tab.emulate_media(media='print')
  assert all(tab.evaluate(folded)) and len(tab.evaluate(folded)) >= 5
  assert tab.evaluate('getComputedStyle(document.body).backgroundColor') == 'rgb(255, 255, 255)'
  assert min(tab.evaluate(CONTRAST))[0] >= 4.5
  sticky = '[...document.querySelectorAll("th")].filter(one => getComputedStyle(one).position === "sticky").length'
  assert tab.evaluate(sticky) == 0
  for part in ('#run', '#contenders', '#confusions', '#saliency', '#method'):
    assert tab.is_visible(part)
  assert tab.pdf().startswith(b'%PDF')


HOSTILE = """"><img src=x onerror="window.bad=1"><script>window.bad=1</script>{{ 7 * 7 }}$x^2$'&lt;\udcff"""


def poisoned(value: Any) -> Any:
  """Every text of an input replaced by a hostile one that begins with it, but for what says how to read it."""
  known = {'audio', 'visual', 'concat', 'hybrid', 'test', 'held', 'train', 'number', 'text'}
  if isinstance(value, dict):
    return {key: poisoned(of) for key, of in value.items()}
  if isinstance(value, (list, tuple)):
    return [poisoned(of) for of in value]
  return value + HOSTILE if isinstance(value, str) and value not in known else value


def test_ids_that_hold_html_are_shown_as_they_are(browser: Any, tmp_path: pathlib.Path) -> None:
  hostile = {name: poisoned(getattr(pages, name)()) for name in ('run', 'curves', 'embedding', 'saliency')}
  comparison = poisoned(pages.comparison())
  rename = {speaker: speaker + HOSTILE for speaker in pages.SPEAKERS}
  for protocol in comparison['protocols'].values():
    for row in protocol['rows']:
      row['per_speaker'] = {rename[speaker]: of for speaker, of in row['per_speaker'].items()}
  comparison['judged'] = 'test'
  curves = {train + HOSTILE: folds for train, folds in pages.curves().items()}
  stages = {name + HOSTILE: of for name, of in pages.run()['stages'].items()}
  hostile |= {'curves': curves, 'run': hostile['run'] | {'stages': stages}}
  tab = opened(browser, written(tmp_path, comparison=comparison, **hostile))
  unfold(tab)
  assert tab.evaluate('window.bad') is None and tab.heard['complaints'] == []
  assert tab.locator('script').count() == 1
  assert tab.evaluate('[...document.images].every(image => image.src.startsWith("data:"))')
  shown = HOSTILE.replace('\udcff', '\\udcff')
  for part in ('h1', '#run', '#contenders', '#confusions', '#speakers', '#learning', '#wrong', '#published'):
    assert shown in tab.locator(part).first.text_content(), part
  for part in ('#embedding', '#saliency', '#described-inductive'):
    assert shown in tab.locator(part).text_content(), part


def test_a_page_of_nothing_is_a_page(browser: Any, tmp_path: pathlib.Path) -> None:
  tab = opened(browser, page.write(tmp_path / 'report', None))
  assert tab.heard['complaints'] == [] and 'Nothing was compared.' in tab.inner_text('main')


@pytest.mark.parametrize('absent', ['comparison', 'run', 'curves', 'embedding', 'saliency'])
def test_each_input_may_be_missing(tmp_path: pathlib.Path, absent: str) -> None:
  changes: dict[str, Any] = {'curves': None, 'embedding': None, 'saliency': None, absent: None}
  assert '</html>' in written(tmp_path, **changes).read_text()


def test_figures_that_are_not_known_are_dashes(browser: Any, tmp_path: pathlib.Path) -> None:
  """One speaker, nobody held, no contrast, a fold without fused features: as comparison.json has it, through JSON."""
  given = copy.deepcopy(pages.comparison(speakers=['s01'], said=[], published=[]))
  for protocol in given['protocols'].values():
    protocol['wrong'], protocol['described'], protocol['contrasts'] = [], [], protocol['contrasts'][:1]
    protocol['contrasts'][0] |= {'difference': 0.0, 'interval': [None, None], 'dz': None}
    for row in protocol['rows']:
      row |= {'interval': [None, None], 'held_accuracy': None, 'calibration': None, 'deviation': None}
      row['confusion'][0] = [0] * 6
      row['per_speaker']['s01'] = {'clips': 0, 'accuracy': None, 'uar': None}
  embedding = pages.embedding()
  del embedding['hybrid']
  embedding['audio'] |= {what: dict.fromkeys(('emotion', 'speaker')) for what in ('silhouette', 'neighbours', 'chance')}
  tab = opened(browser, written(tmp_path, comparison=json.loads(json.dumps(given)), embedding=embedding, curves=None))
  unfold(tab)
  assert tab.heard['complaints'] == []
  assert {'nan', 'None', 'none', 'undefined'}.isdisjoint(
    re.findall(r'\w+', tab.inner_text('main').replace('is nan', ''))
  )
  assert column(tab, '#speakers table', 1) == ['–'] * len(pages.ROWS)
  assert tab.locator('#contenders .span').count() == 0

"""Nothing that is loaded can run code (configs apart) or lead elsewhere. Weights have tests of their own."""

import ast
import contextlib
import ctypes
import inspect
import json
import os
import pathlib
import pickle
import re
import select
import struct
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import openpyxl
import orbax.checkpoint as ocp
import pytest

from emo_jax import fitted
from emo_jax.corpora import baum1s
from emo_jax.evaluation import splits
from emo_jax.frontend import media, store
from emo_jax.models import packaged, pretrained
from emo_jax.report import cells, report, saliency
from emo_jax.steps import frozen, handcrafted, networks, prepare
from emo_jax.training import checkpoint
from emo_jax.weights import pickled

# Where one array of a folder cannot be read, the others still come, to an event loop that tensorstore finds closed.
pytestmark = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
REPO = pathlib.Path(__file__).parents[1]
MODULES = {'pickle', '_pickle', 'cloudpickle', 'dill', 'marshal', 'shelve', 'yaml', 'tarfile', 'runpy', 'imp'}
CALLS = {'eval', 'exec', 'compile', '__import__', 'importlib.import_module', 'os.system', 'os.popen'}
CALLS |= {'joblib.load', 'joblib.dump', 'torch.load', 'numpy.lib.format.read_array'}
METHODS = {'extractall', 'read_pickle', 'unpack_archive'}  # of any object
KEYWORDS = {'allow_pickle', 'shell', 'trust'}
OWN_NAMES = {  # of modules of this repository, and of benchmarks' libraries, that no file names
  'configs/ablations/bases.py': {'importlib.import_module'},
  'benchmarks/cases.py': {'importlib.import_module'},
  'benchmarks/race.py': {'importlib.import_module'},
}


def dotted(node: ast.AST, known: dict[str, str]) -> str:
  """numpy.load of np.load; '' of what is no name."""
  if isinstance(node, ast.Attribute):
    return f'{dotted(node.value, known)}.{node.attr}'
  return known.get(node.id, node.id) if isinstance(node, ast.Name) else ''


def dangers(source: str) -> set[str]:
  """What a program imports or calls that may run what it reads, or write where a file says."""
  tree, known, found = ast.parse(source), dict[str, str](), set[str]()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      known |= {alias.asname: alias.name for alias in node.names if alias.asname}
      found |= {alias.name for alias in node.names if alias.name.split('.')[0] in MODULES}
    elif isinstance(node, ast.ImportFrom) and node.module:
      known |= {alias.asname or alias.name: f'{node.module}.{alias.name}' for alias in node.names}
      found |= {node.module} if node.module.split('.')[0] in MODULES else set()
  for node in ast.walk(tree):
    name = dotted(node, known)
    found |= {name} & CALLS | ({name} if name.rpartition('.')[2] in METHODS and '.' in name else set())
    if isinstance(node, ast.keyword) and node.arg in KEYWORDS:
      found |= set() if isinstance(node.value, ast.Constant) and node.value.value is False else {node.arg}
  return found


@pytest.mark.parametrize(
  'source',
  [
    'import pickle as p',
    'from marshal import loads',
    'import yaml',
    'import numpy as np\nnp.load(path, allow_pickle=True)',
    'import numpy as np\nnp.load(path, allow_pickle=flag)',
    'import joblib\njoblib.load(path)',
    'from joblib import load as read\nread(path)',
    'import torch\ntorch.load(path, weights_only=True)',
    'eval(text)',
    'exec(text)',
    'subprocess.run(text, shell=True)',
    'from os import system\nsystem(text)',
    'import os\ncall = os.popen',
    'zipfile.ZipFile(path).extractall()',
    'import importlib\nimportlib.import_module(name)',
  ],
)
def test_the_search_for_dangers_finds_them(source: str) -> None:
  assert dangers(source)


def test_the_search_for_dangers_finds_nothing_else() -> None:
  assert not dangers(
    'import re, joblib, numpy as np\nre.compile(text)\njoblib.Parallel()\nnp.load(p, allow_pickle=False)'
  )


def test_no_module_runs_what_it_reads_or_unpacks_archives() -> None:
  files = [path for folder in ('emo_jax', 'configs', 'benchmarks') for path in (REPO / folder).rglob('*.py')]
  names = {path.relative_to(REPO).as_posix(): path for path in [REPO / 'launch.py', *files]}
  found = {name: dangers(path.read_text()) - OWN_NAMES.get(name, set()) for name, path in names.items()}
  assert len(names) > 100 and not {name: what for name, what in found.items() if what}


def test_numpy_reads_no_objects_unless_asked() -> None:
  assert inspect.signature(np.load).parameters['allow_pickle'].default is False


class Gadget:
  """Makes a file when it is unpickled."""

  def __init__(self, mark: pathlib.Path):
    self.mark = mark

  def __reduce__(self) -> Any:
    return pathlib.Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A file that is there once a gadget has run."""
  path = tmp_path / 'it has run'
  yield path
  assert not path.exists()


def objects(mark: pathlib.Path) -> np.ndarray:
  return np.array([Gadget(mark)], object)


def an_experiment(folder: pathlib.Path) -> Any:
  """As much of one as readers of arrays look at."""
  x = types.SimpleNamespace(folds=[None], made={})
  x.config = types.SimpleNamespace(methods=['m'], data=types.SimpleNamespace(judge='test'))
  for stage in ('decide/m', 'features', 'handcrafted'):
    x.made[stage] = [folder]
  return x


ROWS = np.arange(1)
READERS: dict[str, tuple[str, Callable[[pathlib.Path], Any]]] = {  # file, and who reads it
  "a clip's array": ('a.npy', lambda d: store.Store(d, [{'audio': 'a'}], length=9, shift=3).table()),
  "a clip's facts": ('a.npz', lambda d: store.Store(d, [{'audio': 'a'}], length=9, shift=3).facts(0, 'audio')),
  "a clip's columns": ('a.npy', lambda d: np.savez(d / 'a.npz', column_s=1) or prepare.sound_print(d, 'a')),
  'features': ('audio_features.npy', lambda d: networks.load_features(an_experiment(d), 0, ROWS, 'audio')),
  'rows': ('audio_rows.npy', lambda d: networks.load_features(an_experiment(d), 0, ROWS, 'audio')),
  'the frozen part': ('trunk.npy', lambda d: frozen.reader(d, ROWS)(ROWS)),
  'hand-crafted features': ('sound.npy', lambda d: handcrafted.load(an_experiment(d), 'sound')),
  'scores': ('m_test.npz', lambda d: report.load_scores(an_experiment(d), 'test')),
  'scores of the page': ('m_test.npz', lambda d: saliency.scored(an_experiment(d), 0, 'm')),
  'a machine': ('m_svm.npz', lambda d: report.load_penalty(an_experiment(d), 0, 'm')),
  'a scaler': ('m_svm.npz', lambda d: fitted._load(d / 'm_svm.npz')),
}


@pytest.mark.parametrize('what', READERS)
def test_arrays_of_objects_are_refused(tmp_path: pathlib.Path, mark: pathlib.Path, what: str) -> None:
  name, read = READERS[what]
  if name.endswith('.npz'):
    np.savez(tmp_path / name, **dict.fromkeys(('column_s', 'clip', 'scores', 'c'), objects(mark)))  # type: ignore[arg-type]
  else:
    for good in ('audio_rows.npy', 'rows.npy'):
      np.save(tmp_path / good, ROWS)
    np.save(tmp_path / name, objects(mark))
  with pytest.raises(ValueError, match=r'allow_pickle=False|Python objects'):
    read(tmp_path)


def test_facts_of_objects_count_as_damaged(tmp_path: pathlib.Path, mark: pathlib.Path) -> None:
  np.savez(tmp_path / 'a.npz', crc32=objects(mark))
  assert store.read_facts(tmp_path / 'a') is None


TEXTS: dict[str, tuple[str, Callable[[pathlib.Path], Any]]] = {
  'a split': ('split.json', lambda path: splits.load(path)),
  'verdicts': ('predictions.csv', lambda path: cells._read_table(None, path, ['joy'])),  # type: ignore[arg-type]
}


@pytest.mark.parametrize('what', TEXTS)
def test_a_pickle_in_place_of_a_text_is_no_text(tmp_path: pathlib.Path, mark: pathlib.Path, what: str) -> None:
  name, read = TEXTS[what]
  (tmp_path / name).write_bytes(pickle.dumps(Gadget(mark)))
  with pytest.raises(ValueError, match=name if what == 'a split' else 'utf-8'):
    read(tmp_path / name)


def test_a_pickle_in_place_of_an_index_counts_as_damage(tmp_path: pathlib.Path, mark: pathlib.Path) -> None:
  (tmp_path / 'index.json').write_bytes(pickle.dumps(Gadget(mark)))
  assert prepare._read_index(tmp_path) == []


def test_a_gadget_runs_where_it_is_unpickled(tmp_path: pathlib.Path) -> None:
  mark = tmp_path / 'it has run'
  np.save(tmp_path / 'a.npy', objects(mark))
  np.load(tmp_path / 'a.npy', allow_pickle=True)
  assert mark.exists()
  mark.unlink()
  pickle.loads(pickle.dumps(Gadget(mark)))
  assert mark.exists()


# Orbax


TREE = {'params': {'x': np.arange(3000, dtype=np.float32)}, 'step': np.asarray(7, np.int32)}
Change = Callable[[pathlib.Path, pathlib.Path], None]


def assert_same(tree: Any) -> None:
  np.testing.assert_array_equal(tree['params']['x'], np.arange(3000))


def in_json(name: str, old: str, new: str) -> Change:
  def change(folder: pathlib.Path, mark: pathlib.Path) -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))

  return change


def rich(folder: pathlib.Path, mark: pathlib.Path) -> None:
  """The tree described with types by their names."""
  found = json.loads((folder / '_METADATA').read_text())
  leaf = {'category': 'custom', 'clazz': 'ValueMetadataEntry', 'data': {'value_type': 'gadget.Thing'}}
  entry = {'category': 'namedtuple', 'module': 'gadget', 'clazz': 'Thing', 'entries': [{'key': 'x', 'value': leaf}]}
  (folder / '_METADATA').write_text(json.dumps({**found, 'value_metadata_tree': json.dumps({'params': entry})}))


def pickles(*names: str) -> Change:
  def change(folder: pathlib.Path, mark: pathlib.Path) -> None:
    for name in names:
      (folder / name).write_bytes(pickle.dumps(Gadget(mark)))

  return change


CHANGES: dict[str, Change] = {
  'the type of an array': in_json('_METADATA', '"np.ndarray"', '"gadget.Thing"'),
  'the type of a scalar': in_json('_METADATA', '"np.ndarray"', '"gadget"'),
  'who reads it': in_json('_CHECKPOINT_METADATA', 'orbax.checkpoint._src', 'gadget'),
  'types of containers': rich,
  'pickles for metadata': pickles('_METADATA', '_CHECKPOINT_METADATA'),
  'a pickle for the old format': pickles('checkpoint', '_sharding', '_strings.json'),
  'a pickle for the database': pickles('manifest.ocdbt'),
}


@pytest.fixture
def gadget(tmp_path: pathlib.Path, mark: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
  """A module `gadget` that makes a file when it is imported."""
  (tmp_path / 'lib').mkdir()
  (tmp_path / 'lib/gadget.py').write_text(f'import pathlib\npathlib.Path({str(mark)!r}).touch()\nThing = dict\n')
  monkeypatch.syspath_prepend(tmp_path / 'lib')
  yield
  assert 'gadget' not in sys.modules


@pytest.mark.parametrize('what', CHANGES)
@pytest.mark.usefixtures('gadget')
def test_no_folder_of_arrays_names_code(tmp_path: pathlib.Path, mark: pathlib.Path, what: str) -> None:
  checkpoint.save(tmp_path / 'a', TREE)
  CHANGES[what](tmp_path / 'a', mark)
  with contextlib.suppress(checkpoint.Unfit):
    assert_same(checkpoint.load(tmp_path / 'a', TREE))


@pytest.mark.usefixtures('gadget')
def test_no_checkpoint_of_a_training_names_code(tmp_path: pathlib.Path, mark: pathlib.Path) -> None:
  with checkpoint.checkpoints(tmp_path / 'c') as saved:
    saved.save(3, TREE)
  in_json('_CHECKPOINT_METADATA', 'orbax.checkpoint._src', 'gadget')(tmp_path / 'c/3', mark)
  in_json('_METADATA', '"np.ndarray"', '"gadget.Thing"')(tmp_path / 'c/3/default', mark)
  pickles('checkpoint', '_sharding')(tmp_path / 'c/3/default', mark)
  with checkpoint.checkpoints(tmp_path / 'c') as saved:
    saved.restore(TREE)


def test_a_module_that_is_named_runs_where_it_is_imported(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
  (tmp_path / 'gadget_alone.py').write_text(f'import pathlib\npathlib.Path({str(tmp_path / "it has run")!r}).touch()\n')
  monkeypatch.syspath_prepend(tmp_path)
  __import__('gadget_alone')
  assert (tmp_path / 'it has run').exists()


def crc32c(content: bytes) -> int:
  """Castagnoli's, by which tensorstore seals its files."""
  crc = 0xFFFFFFFF
  for byte in content:
    crc ^= byte
    for _ in range(8):
      crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
  return crc ^ 0xFFFFFFFF


@pytest.mark.parametrize(('beginning', 'within'), [('e', True), ('..', False), ('d/../..', False)])
def test_no_database_reads_files_outside_its_folder(tmp_path: pathlib.Path, beginning: str, within: bool) -> None:
  folder = tmp_path / 'a'
  checkpoint.save(folder, TREE)
  manifest = folder / 'manifest.ocdbt'
  old = re.search(rb'd/[0-9a-f]{32}', manifest.read_bytes())[0].decode()  # type: ignore[index]
  new = f'{beginning}/{"0" * 40}'[: len(old)]
  content = manifest.read_bytes().replace(old.encode(), new.encode())[:-4]
  manifest.write_bytes(content + struct.pack('<I', crc32c(content)))
  (folder / new).parent.mkdir(exist_ok=True)
  (folder / old).rename(folder / new)
  if within:  # so such a file is read, where it may lie
    assert_same(checkpoint.read(folder))
  else:
    with pytest.raises(checkpoint.Unfit):
      checkpoint.read(folder)


@pytest.mark.parametrize('name', ['../secret/x', '{}/secret/x'])
def test_arrays_of_other_folders_reach_nobody(tmp_path: pathlib.Path, name: str) -> None:
  """Without a database Orbax makes paths of names, and follows whole ones."""

  def plain(folder: pathlib.Path, tree: Any) -> None:
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)) as saver:
      saver.save(folder, ocp.args.PyTreeSave(tree))

  plain(tmp_path / 'secret', {'x': np.full(3, 0.5, np.float32)})
  own = {'params': {'fc8': np.ones(3, np.float32)}, 'statistics': {}}
  plain(tmp_path / 'a', {**own, 'more': np.ones(3, np.float32)})
  assert checkpoint.read(tmp_path / 'a')['more'].all()
  text = (tmp_path / 'a/_METADATA').read_text()
  (tmp_path / 'a/_METADATA').write_text(text.replace('more', name.format(tmp_path)))
  with pytest.raises(checkpoint.Unfit):
    checkpoint.load(tmp_path / 'a', own)
  try:
    assert list(pretrained.load(str(tmp_path / 'a')).tensors) == ['fc8']
  except ValueError as error:
    assert 'no folder of a trained network' in str(error)


# media, sheets and archives


Opened = Callable[[pathlib.Path], Callable[[], bool]]


@pytest.fixture
def opened() -> Iterator[Opened]:
  """A file -> whether anybody, in C too, has opened it since; asked of the system."""
  libc, events = ctypes.CDLL(None), []
  watch_open = 0x20

  def watch(path: pathlib.Path) -> Callable[[], bool]:
    events.append(libc.inotify_init())
    assert libc.inotify_add_watch(events[-1], os.fsencode(path), watch_open) > 0
    return lambda event=events[-1]: bool(select.select([event], [], [], 0)[0])

  yield watch
  for event in events:
    os.close(event)


LISTS = {
  'clip.mp4': 'ffconcat version 1.0\nfile other.mp4\n',
  'clip.avi': 'ffconcat version 1.0\nfile subfile,,start,0,end,9,,:other.mp4\n',
  'clip.m3u8': '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n',
  'clip.sdp': 'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 33\n',
  'clip%d.png': '',
}


def laid(folder: pathlib.Path, name: str, opened: Opened) -> list[Callable[[], bool]]:
  """Puts a list and what it names into a folder; of each of these, whether it was opened."""
  (folder / name).write_text(LISTS[name])
  others = [folder / 'other.mp4', folder / 'clip1.png']
  for other in others:
    other.write_bytes(bytes(5000))
  return [opened(other) for other in others]


@pytest.mark.parametrize('name', LISTS)
def test_a_film_that_names_other_files_opens_none(tmp_path: pathlib.Path, opened: Opened, name: str) -> None:
  asked = laid(tmp_path, name, opened)
  with pytest.raises(media.UnreadableMedia, match=re.escape(name)):
    list(media.frames(str(tmp_path / name)))
  assert not any(ask() for ask in asked)


@pytest.mark.parametrize('name', ['clip.mp4', 'clip.m3u8', 'clip%d.png'])
def test_ffmpeg_itself_opens_them(tmp_path: pathlib.Path, opened: Opened, name: str) -> None:
  import av

  asked = laid(tmp_path, name, opened)
  with contextlib.suppress(av.error.FFmpegError):
    av.open(str(tmp_path / name)).close()
  assert any(ask() for ask in asked)


def sheet(path: pathlib.Path, kind: str, value: str) -> pathlib.Path:
  """A sheet of labels whose cell is an entity of this kind."""
  book = openpyxl.Workbook()
  book.active.append(['S001_001', 'THE CELL'])  # type: ignore[union-attr]
  book.save(path.with_suffix('.plain'))
  with zipfile.ZipFile(path.with_suffix('.plain')) as plain, zipfile.ZipFile(path, 'w') as made:
    for name in plain.namelist():
      content = plain.read(name)
      if b'THE CELL' in content:
        head = f'<?xml version="1.0"?><!DOCTYPE a [{kind}]>'.encode()
        content = head + re.sub(rb'^<\?xml.*?\?>', b'', content).replace(b'THE CELL', value.encode())
      made.writestr(name, content)
  return path


def test_a_sheet_opens_no_other_file(tmp_path: pathlib.Path, opened: Opened) -> None:
  (tmp_path / 'secret').write_text('Anger')
  asked = opened(tmp_path / 'secret')
  path = sheet(tmp_path / 'BAUM1s.xlsx', f'<!ENTITY e SYSTEM "file://{tmp_path}/secret">', '&e;')
  with pytest.raises(ValueError, match='cannot be read as a sheet'):
    baum1s._labels(path)
  assert not asked()


def test_a_sheet_that_grows_without_end_is_refused(tmp_path: pathlib.Path) -> None:
  grown = ''.join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
  path = sheet(tmp_path / 'BAUM1s.xlsx', f'<!ENTITY e0 "{"ha" * 10}">{grown}', '&e9;')
  with pytest.raises(ValueError, match='amplification'):
    baum1s._labels(path)


def test_a_sheet_with_an_entity_of_its_own_is_read(tmp_path: pathlib.Path) -> None:
  path = sheet(tmp_path / 'BAUM1s.xlsx', '<!ENTITY e "Anger">', '&e;')
  assert baum1s._labels(path) == {'S001_001': {'anger'}}


def test_names_in_a_zip_file_are_no_paths(tmp_path: pathlib.Path) -> None:
  (tmp_path / 'in').mkdir()
  with zipfile.ZipFile(tmp_path / 'in/w.pth', 'w') as file:
    for name in ('../out', '/tmp/emo_jax_out', 'a/../../out', 'a/data/../../../out'):
      file.writestr(name, b'out')
    file.writestr('a/data.pkl', pickle.dumps({'x': 1}, 2))
  before = sorted(tmp_path.rglob('*'))
  assert pickled.read_torch(tmp_path / 'in/w.pth') == {'x': 1}
  assert sorted(tmp_path.rglob('*')) == before and not pathlib.Path('/tmp/emo_jax_out').exists()


def test_a_package_with_another_file_is_not_read(
  tmp_path: pathlib.Path, mark: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  other = tmp_path / 'weights.pkl'
  other.write_bytes(pickle.dumps(Gadget(mark)))
  found = types.SimpleNamespace(locate_file=lambda _: other, version='0.1.4')
  monkeypatch.setattr(packaged.importlib.metadata, 'distribution', lambda _: found)
  with pytest.raises(ValueError, match='SHA-256'):
    packaged.load('ndf')

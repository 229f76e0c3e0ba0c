"""The rows of the standard library: complete, ordered, read without importing, apart from the pretraining text."""

import ast
import collections
import inspect
import json
import os
import pydoc as stdlib_pydoc
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fedlit.config.schema import DataConfig
from fedlit.data import pydoc
from fedlit.errors import UserError

Rows = list[dict[str, str]]

PLANTED = '''
"""A planted module of the demonstration."""
raise ImportError("a module of the standard library was executed")

class Kettle(Base[int], metaclass=Meta, flag=True):
    """A kettle that
    boils   water.

    More about kettles.
    """

    async def boil(self, litres: int, /, *cups: str, lid: bool = (1, 2), hot, **rest: object) -> None:
        """Boil the planted water."""

if True:
    try:
        def nested(): """Found below an if statement."""
    except ImportError:
        def other(a=1): """Found below an except clause."""

def again(): """Boil the planted water."""
def short(): """Too short."""
def bare(): pass
'''


@pytest.fixture(scope="module")
def rows() -> Rows:
    return pydoc.read_rows()


def plant(monkeypatch: pytest.MonkeyPatch, root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(root))


def test_rows_are_complete_and_enough(rows: Rows) -> None:
    assert len(rows) >= 1500
    counts = collections.Counter(row["label"] for row in rows)
    assert len(counts) >= 8
    assert min(counts.values()) >= 50
    assert set(counts) <= set(pydoc.DEMO_PACKAGES)
    for row in rows:
        assert set(row) == {"prompt", "response", "label", "name"}
        assert 3 <= len(row["response"].split()) <= 60
        assert row["response"] == " ".join(row["response"].split())
        assert row["name"].split(".")[0] == row["label"]
        (definition,) = ast.parse(f"{row['prompt']}: pass").body
        assert isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        assert definition.name == row["name"].split(".")[-1]
    assert len({row["response"] for row in rows}) == len(rows)


def test_rows_agree_with_inspect(rows: Rows) -> None:
    """`pydoc.locate` and `inspect` see the imported functions, the reader only their files."""
    num_compared = 0
    for row in rows:
        found = stdlib_pydoc.locate(row["name"]) if row["label"] in {"email", "logging", "urllib"} else None
        if not inspect.isfunction(found) or hasattr(found, "__wrapped__"):
            continue
        docstring = inspect.cleandoc(found.__doc__ or "")
        if not " ".join(docstring.split()).startswith(row["response"]):
            continue  # of two definitions of one name, the reader may have the other one
        (definition,) = ast.parse(f"{row['prompt']}: pass").body
        assert isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef)
        args = definition.args
        groups = [[*args.posonlyargs, *args.args], [args.vararg], args.kwonlyargs, [args.kwarg]]
        names = [arg.arg for group in groups for arg in group if arg]
        parameters = inspect.signature(found).parameters
        assert names == list(parameters)
        num_defaults = len(args.defaults) + sum(default is not None for default in args.kw_defaults)
        assert num_defaults == sum(item.default is not inspect.Parameter.empty for item in parameters.values())
        num_compared += 1
    assert num_compared > 200


def test_nothing_is_imported_and_the_order_does_not_depend_on_hashing(rows: Rows) -> None:
    code = (
        "import json, sys\n"
        "from fedlit.data import pydoc\n"
        "before = set(sys.modules)\n"
        "rows = pydoc.read_rows()\n"
        "print(json.dumps([rows, sorted(set(sys.modules) - before), 'torch' in sys.modules]))"
    )
    root = Path(__file__).parents[3]
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        found, imported, has_torch = json.loads(done.stdout)
        assert found == rows
        assert not {name.split(".")[0] for name in imported} & set(pydoc.DEMO_PACKAGES)
        assert not has_torch


def test_planted_module_gives_exactly_its_documented_definitions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plant(monkeypatch, tmp_path, {"asyncio/__init__.py": PLANTED})
    assert [(row["prompt"], row["response"], row["name"]) for row in pydoc.read_rows()] == [
        ("class Kettle(Base[int], metaclass=Meta, flag=True)", "A kettle that boils water.", "asyncio.Kettle"),
        (
            "async def boil(self, litres, /, *cups, lid=(1, 2), hot, **rest)",
            "Boil the planted water.",
            "asyncio.Kettle.boil",
        ),
        ("def nested()", "Found below an if statement.", "asyncio.nested"),
        ("def other(a=1)", "Found below an except clause.", "asyncio.other"),
    ]


def test_tests_and_installed_packages_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wanted = {"email/b.py": "email.b", "email/deep/a.py": "email.deep.a", "tarfile.py": "tarfile"}
    unwanted = ["email/test/a.py", "email/tests/a.py", "site-packages/email/a.py", "xml/__pycache__/a.py", "json/a.py"]
    texts = {name: f'def f{idx}(): """A function of file {idx}."""' for idx, name in enumerate([*wanted, *unwanted])}
    plant(monkeypatch, tmp_path, texts)
    assert [row["name"].rpartition(".")[0] for row in pydoc.read_rows()] == list(wanted.values())


def test_pretraining_texts_are_of_other_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plant(
        monkeypatch,
        tmp_path,
        {
            "json/__init__.py": '# one\n# two\n#\n# three\nclass A:\n    """Class text."""\n    def f(self):\n'
            '        """Method text."""\n        return 1\n',
            "json/test/a.py": '"""A test of json."""',
            "pydoc_data/topics.py": f"topics = {{'if': {'topic ' * 50!r}, 'x': 'short'}}",
            "copy.py": '"""Module text."""\ndef undocumented(): pass\n',
            "copy2.py": '"""Module text."""\n',
            "xml/a.py": '"""Demo text of xml."""',
            "xml.py": '"""Demo text of xml."""',
            "_sysconfigdata_x.py": '"""The folders of one machine."""',
        },
    )
    assert pydoc.pretraining_texts() == [
        "Module text.",
        'class A:\n    """Class text."""',
        'def f(self):\n    """Method text."""\n    return 1',
        "one\ntwo\n\nthree",
        "topic " * 50,
    ]


def test_real_pretraining_texts_hold_almost_no_response(rows: Rows) -> None:
    """A sentence may occur in two packages by itself; whole packages may not."""
    texts = pydoc.pretraining_texts()
    assert sum(map(len, texts)) > 2_000_000
    assert len(set(texts)) == len(texts)
    everything = " ".join("\n".join(texts).split())
    long = [row["response"] for row in rows if len(row["response"].split()) >= 8][::10]
    assert sum(response in everything for response in long) <= 0.03 * len(long)


@pytest.mark.parametrize("folder", ["missing", "empty"])
def test_interpreter_without_sources_is_a_user_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / folder))
    with pytest.raises(UserError) as caught:
        pydoc.read_rows()
    message = str(caught.value)
    assert str(tmp_path / folder) in message
    assert "data=<name>" in message
    assert "\n" not in message


def test_configuration_names_the_columns_of_the_rows(rows: Rows) -> None:
    path = Path(__file__).parents[3] / "configs" / "data" / "pydoc.yaml"
    config = OmegaConf.merge(OmegaConf.structured(DataConfig), OmegaConf.load(path))
    assert {*config.required, config.response, config.label} <= set(rows[0])
    assert config.template.format(**rows[0]) == f"{rows[0]['prompt']}\n### Summary\n"

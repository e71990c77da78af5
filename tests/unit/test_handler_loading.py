"""How modules of people are loaded, and what is said of those that cannot be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import service
from service.engine.handlers.registry import HandlerLoadError, Registry
from tests.unit.attempts import context

MODULE = """
from __future__ import annotations
from flowkeep.handlers import handler

@handler("double")
def double(n: int) -> int:
    return 2 * n

again = double
"""
CALLING = """
from flowkeep.handlers import handler
{imports}

@handler("f")
def f() -> str:
    return {value}
"""


@pytest.fixture(autouse=True)
def imported_modules() -> Iterator[None]:
    """Forget what a test has imported."""
    modules, path = dict(sys.modules), list(sys.path)
    yield
    for name in sys.modules.keys() - modules.keys():
        del sys.modules[name]
    sys.path[:] = path


def write(folder: Path, **files: str) -> None:
    """Write Python files, of which a `__` in the name begins what lies in a folder."""
    for name, text in files.items():
        path = folder.joinpath(*name.split("__", 1)).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


async def called(registry: Registry, name: str = "f", **params: Any) -> Any:
    found = registry.get(name)
    assert found is not None
    return await found.run(params, context())


async def test_a_file_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, flow_functions=MODULE)
    (tmp_path / "link.py").symlink_to(tmp_path / "flow_functions.py")
    registry = Registry()
    for name in ("flow_functions.py", "flow_functions.py", "link.py"):
        registry.load([str(tmp_path / name)])
    assert await called(registry, "double", n=4) == 8
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HandlerLoadError, match="two handlers named 'double'; its file is loaded under two names"):
        registry.load(["flow_functions"])


async def test_two_handlers_of_one_name_are_both_named(tmp_path: Path) -> None:
    write(tmp_path, one=MODULE, two=MODULE, three=MODULE.replace("double", "wait"))
    registry = Registry.with_builtins()
    registry.load([str(tmp_path / "one.py")])
    with pytest.raises(HandlerLoadError, match=r"two.py:5: there are two handlers named 'double'.*one.py:5"):
        registry.load([str(tmp_path / "two.py")])
    with pytest.raises(HandlerLoadError, match=r"three.py:5: there are two handlers named 'wait'.*built in"):
        registry.load([str(tmp_path / "three.py")])


async def test_modules_beside_a_file_are_found(tmp_path: Path) -> None:
    for name in ("a", "b"):
        imports = "from helper import text\nfrom config.names import name"
        write(
            tmp_path / name, handlers=CALLING.format(imports=imports, value="text + name").replace('"f"', f'"{name}"')
        )
        write(tmp_path / name, helper=f"text = {name!r}", config__names=f"name = {name!r}", random="broken")
    registry = Registry()
    registry.load([str(tmp_path / name / "handlers.py") for name in ("a", "b")])
    assert [await called(registry, name) for name in ("a", "b")] == ["aa", "bb"], "each has its own"


@pytest.mark.parametrize("name", ["my_module", "my_package.inside"])
async def test_modules_of_the_current_folder_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write(tmp_path, **{name.replace(".", "__"): CALLING.format(imports="import my_helper", value="my_helper.text")})
    write(tmp_path, my_helper="text = 'helped'")
    monkeypatch.chdir(tmp_path)
    registry = Registry()
    registry.load([name])
    assert await called(registry) == "helped"


@pytest.mark.parametrize("is_package", [True, False])
async def test_folders_of_the_names_of_the_servers_packages_are_peoples_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_package: bool
) -> None:
    ours = dict(sys.modules)
    texts = "from service.engine.handlers import HandlerError\nfrom service.prices import price\n"
    texts += "from service.config import text\nfrom persistence import store\n"
    later = "__import__('service.late', fromlist=['late']).late"
    write(tmp_path, handlers=CALLING.format(imports=texts, value=f"price + text + store + {later}"))
    write(tmp_path, service__prices="price = 'p'", service__config="text = 'c'", service__late="late = 'l'")
    write(tmp_path, persistence="store = 's'", buf__validate="", logging="broken")
    if is_package:
        write(tmp_path, service____init__="from service import prices")
    monkeypatch.chdir(tmp_path)
    registry = Registry()
    registry.load(["handlers"])
    assert await called(registry) == "pcsl"
    assert {name: sys.modules[name] for name in ours} == ours
    assert sys.modules["service"] is service


async def test_a_module_of_a_package_named_as_ours_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, service__tasks=CALLING.format(imports="from service.prices import price", value="price"))
    write(tmp_path, service__prices="price = 'p'")
    monkeypatch.chdir(tmp_path)
    registry = Registry()
    registry.load(["service.tasks"])
    assert await called(registry) == "p"


async def test_what_belongs_to_a_class_and_needs_no_object(tmp_path: Path) -> None:
    text = """
    from flowkeep.handlers import handler

    class Handlers:
        @handler("a")
        @staticmethod
        def a(n: int) -> int:
            return n

        @staticmethod
        @handler("b")
        def b(n: int) -> int:
            return n

        @handler("c")
        @classmethod
        def c(cls, n: int) -> str:
            return cls.__name__

        @classmethod
        @handler("d")
        async def d(cls, n: int) -> str:
            return cls.__name__

        def plain(self, n: int) -> int:
            return n

    e = handler("e")(Handlers().plain)

    @handler("g")
    @handler("h")
    def both() -> str:
        return "both"

    class Odd:
        def __getattr__(self, name):
            raise RuntimeError("working outside of request context")

    odd = Odd()
    """
    write(tmp_path, handlers="\n".join(line[4:] for line in text.splitlines()))
    registry = Registry()
    registry.load([str(tmp_path / "handlers.py")])
    assert [await called(registry, name, n=1) for name in "abcde"] == [1, 1, "Handlers", "Handlers", 1]
    assert [await called(registry, name) for name in "gh"] == ["both", "both"]

    write(tmp_path, method="\n".join(line[4:] for line in text.replace("@staticmethod", "").splitlines()))
    with pytest.raises(HandlerLoadError, match=r"method.py:\d+: handler 'a' is a method.*staticmethod"):
        Registry().load([str(tmp_path / "method.py")])


async def test_a_bad_parameter_is_named_with_its_file(tmp_path: Path) -> None:
    write(tmp_path, handlers=CALLING.format(imports="", value="x").replace("f()", "f(x: float = float('inf'))"))
    with pytest.raises(HandlerLoadError, match=r"handlers.py:5: handler 'f': parameter 'x': its default must be a fin"):
        Registry().load([str(tmp_path / "handlers.py")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_module_x", r"ModuleNotFoundError: No module named 'no_such_module_x' \(.*broken.py, line 1\)"),
        ("x = 1", "no function decorated with @handler"),
        ("def f(:", r"SyntaxError: .*\(.*broken.py, line 1\)"),
        ("import sys\nsys.exit(3)", r"SystemExit: 3 \(.*broken.py, line 2\)"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("import asyncio\nraise asyncio.CancelledError", "CancelledError"),
        ("class E(Exception):\n    def __str__(self): raise E\nraise E", "E: <exception str.. failed>"),
        ("from . import x", "my.handlers"),
        ("from flowkeep.handlers import handler\n@handler('a\\0')\ndef f(): ...", "name must not contain.*NUL"),
        ("from flowkeep.handlers import handler\n@handler\ndef f(): ...", '@handler."name"'),
        ("from flowkeep.handlers import handler\n@handler('f')\ndef f():\n    '\\ud800'", "'f': docstring.*surrogate"),
    ],
)
def test_load_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, broken=text)
    with pytest.raises(HandlerLoadError, match=message) as caught:
        Registry().load([str(tmp_path / "broken.py")])
    assert "broken.py" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "hint"),
    [
        ("/nowhere/x.py", "No such file"),
        ("no_such_module_y", "neither installed nor in the current folder"),
        ("handlers/", "nor a file that ends in .py"),
        ("", "nor a file that ends in .py"),
        ("..x", "nor a file that ends in .py"),
        ("queue", "name a file as queue.py"),
    ],
)
def test_load_of_a_missing_file_or_module(place: str, hint: str) -> None:
    with pytest.raises(HandlerLoadError, match=hint) as caught:
        Registry().load([place])
    assert repr(place) in str(caught.value)


def install(folder: Path, *points: str) -> None:
    info = folder / "flow_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flow-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(("[flowkeep.handlers]", *points, "")))


def test_load_entry_points(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path, flow_plugin=MODULE.replace("double", "plugged"))
    install(tmp_path, "module = flow_plugin", "function = flow_plugin:plugged")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry()
    registry.load_entry_points()
    assert "plugged" in registry.names()


@pytest.mark.parametrize("point", ["flow_nothing", "flow_plugin:nothing", "flow_plugin:exits", "no name!"])
def test_a_broken_entry_point_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, point: str) -> None:
    write(
        tmp_path, flow_plugin="def __getattr__(name):\n    raise SystemExit(1) if name == 'exits' else AttributeError"
    )
    install(tmp_path, f"broken = {point}")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(HandlerLoadError, match=f"entry point broken = {point} of flow-plugin"):
        Registry().load_entry_points()

"""Imports modules of people, with what lies beside them, into a process whose own modules stay as they are."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

# Packages of the server whose names people's folders may bear; what a folder lacks of them is still the server's.
_OURS = frozenset({"service", "persistence"})
# What handlers are written against is never another one's.
_SHARED = frozenset({"flowkeep"}) | sys.stdlib_module_names


def import_file(path: Path) -> ModuleType:
    """Import a file under a name of its own, once; the folders of two files may hold the same names."""
    path = path.resolve()
    name = f"flowkeep_handlers_{sha256(str(path).encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def folder_of(place: str) -> Path | None:
    """Return the folder from which a place is loaded: a file's own, the current one if it has the module, else none."""
    if place.endswith(".py"):
        return Path(place).resolve().parent
    try:
        here = Path.cwd().resolve()
    except OSError:
        return None
    inside = here.joinpath(*place.split("."))
    return here if inside.with_name(f"{inside.name}.py").is_file() or inside.is_dir() else None


@contextmanager
def beside(folder: Path | None) -> Iterator[None]:
    """Let the modules of a folder be imported inside by their names, before installed ones of the same names.

    Never before those of the standard library. What bears such a name and is loaded from elsewhere steps aside for as
    long, and is what its name means again afterwards; then the folder is looked at last.
    """
    if folder is None:
        yield
        return
    own = _modules_of(folder)
    aside = {name: sys.modules[name] for name in list(sys.modules) if _steps_aside(name, own)}
    for name in aside:
        del sys.modules[name]
    sys.modules.update(_seen_from.get(folder, {}))
    finder = _Finder(folder, own)
    sys.meta_path.insert(0, finder)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _seen_from[folder] = {name: sys.modules[name] for name in sys.modules.keys() & aside.keys()}
        sys.modules.update(aside)
        for name in _OURS & own.keys() & aside.keys():
            _open_to(aside[name], own[name])


# What bears another one's name where people's modules were loaded, by their folders: files of one folder share it.
_seen_from: dict[Path, dict[str, ModuleType]] = {}


class _Finder(MetaPathFinder):
    """Finds what lies in a folder before all else, wherever the folder stands in the path."""

    def __init__(self, folder: Path, own: Mapping[str, Path]) -> None:
        self._folder = folder
        self._own = own

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module of the folder is to be loaded from."""
        place = self._own.get(fullname)
        if path is not None or place is None:
            return None
        if not (_is_module(place) or fullname in _OURS):
            elsewhere = PathFinder.find_spec(fullname)
            if elsewhere is not None and elsewhere.origin is not None:
                return None
        return PathFinder.find_spec(fullname, [str(self._folder)])


def _modules_of(folder: Path) -> dict[str, Path]:
    """Return what can be imported from a folder, by name: modules, packages, and folders that may be packages."""
    found: dict[str, Path] = {}
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return {}
    for entry in entries:
        if entry.suffix == ".py" and entry.stem.isidentifier():
            found.setdefault(entry.stem, entry)
        elif entry.name.isidentifier() and entry.is_dir():
            found[entry.name] = entry
    return {name: entry for name, entry in found.items() if name not in _SHARED}


def _is_module(place: Path) -> bool:
    """Return whether it is one without doubt: any folder may be a package, but one without __init__.py goes last."""
    return place.is_file() or (place / "__init__.py").is_file()


def _steps_aside(name: str, own: Mapping[str, Path]) -> bool:
    top, *below = name.split(".")
    place, module = own.get(top), sys.modules.get(top)
    if place is None or _is_from(module, place):
        return False
    if top in _OURS:
        inside = place.joinpath(*below)
        return not below or inside.is_dir() or inside.with_name(f"{inside.name}.py").is_file()
    return _is_module(place) or getattr(module, "__file__", None) is None


def _is_from(module: ModuleType | None, place: Path) -> bool:
    found = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(isinstance(each, str) and Path(each).resolve().is_relative_to(place) for each in found)


def _open_to(package: ModuleType, place: Path) -> None:
    """Let what functions import while they run be found in the folder too, as far as it is not named as ours is."""
    if place.is_dir() and str(place) not in package.__path__:
        package.__path__.append(str(place))

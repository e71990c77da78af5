"""`pip install .`: what an installed Flowkeep holds, away from the tree it was made of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.folders import ROOT

USE = """
import sys
import flowkeep.v1.execution_service_pb2
from service.api.reflection import shown_files
import service
print(service.__file__, flowkeep.__file__, "flowkeep/v1/event.proto" in shown_files(), "buf" in sys.modules)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with both distributions, as `pip install .` makes them, without what they depend on."""
    folder: Path = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    options = ("--no-deps", "--no-build-isolation", "--target", str(folder))
    # Not from inside the tree, and with an environment in which nothing says where the client is.
    subprocess.run([*pip, *options, str(ROOT), str(ROOT / "clients" / "python")], cwd=folder, check=True, env={})
    return folder


def test_it_brings_all_that_its_code_reads(installed: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", USE], cwd=installed, env={"PYTHONPATH": str(installed)}, capture_output=True, check=True
    )
    *paths, has_descriptors, has_buf = ran.stdout.decode().split()
    assert all(Path(path).is_relative_to(installed) for path in paths)
    assert (has_descriptors, has_buf) == ("True", "False")
    assert (installed / "persistence/postgres/migrations/versions/0007_core.sql").exists()


def test_it_takes_the_client_of_its_own_tree(installed: Path) -> None:
    (metadata,) = installed.glob("flowkeep-*.dist-info/METADATA")
    assert f"Requires-Dist: flowkeep-client @ {(ROOT / 'clients/python').as_uri()}\n" in metadata.read_text()


def test_it_adds_no_names_but_ours(installed: Path) -> None:
    packages = {each.name for each in installed.iterdir() if each.is_dir() and not each.name.endswith(".dist-info")}
    assert packages - {"bin", "__pycache__"} == {"flowkeep", "service", "persistence"}

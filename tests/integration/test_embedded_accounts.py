"""The embedded Postgres runs as an account that may, whoever starts it and however its folders and binaries lie."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from persistence import embedded
from persistence.embedded import EmbeddedPostgres, EmbeddedPostgresError
from persistence.installation import wheel_binaries
from tests.folders import may_pass
from tests.integration.psql import query

ROOT = os.geteuid() == 0
NAMELESS = 54_321
ALONE = """
import subprocess, sys
from pathlib import Path
from persistence.embedded import EmbeddedPostgres, EmbeddedPostgresError, default_root
try:
    default_root()
except EmbeddedPostgresError:
    print("no home")
for _ in range(2):
    with EmbeddedPostgres(Path(sys.argv[1])) as postgres:
        command = [*postgres.psql_command(), "-XAtqc", "SELECT current_database()"]
        found = subprocess.check_output(command, text=True)
print(found.strip())
"""


@pytest.mark.skipif(not ROOT, reason="only root can take on an account without a line in /etc/passwd")
@pytest.mark.skipif(not may_pass(wheel_binaries()), reason="Postgres lies where no other account may start it")
def test_an_account_without_a_name_or_a_home_starts_it(root: Path) -> None:
    """As containers give them out: initdb asks for the name of its account, and has to be talked out of it."""
    root.mkdir(mode=0o700)
    os.chown(root, NAMELESS, NAMELESS)
    # The interpreter may lie where only root may look.
    account = ["setpriv", f"--reuid={NAMELESS}", f"--regid={NAMELESS}", "--clear-groups"]
    account += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_DATA_HOME")}
    command = [*account, sys.executable, "-c", ALONE, str(root)]
    environment["PYTHONPATH"] = str(Path(embedded.__file__).parent.parent)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["no home", "flowkeep"]
    assert (root / "data").stat().st_uid == NAMELESS
    assert not list(root.glob("postgres*copy*"))


@pytest.mark.skipif(not ROOT, reason="only root runs Postgres as somebody else")
def test_unreachable_binaries_are_copied_once(base: Path, root: Path) -> None:
    wheel = wheel_binaries().parents[1]
    private = base / "private"
    private.mkdir(mode=0o700)
    for folder in (wheel, wheel.with_name(f"{wheel.name}.libs")):
        shutil.copytree(folder, private / folder.name, ignore=shutil.ignore_patterns("include", "pginstall"))
    binaries = private / wheel.name / "pginstall18" / "bin"
    (binaries / "postgres").chmod(0o700)  # as a strict umask leaves it
    interrupted = root / "postgres.copy-cut"
    interrupted.mkdir(parents=True)
    with EmbeddedPostgres(root, binaries=binaries) as postgres:
        (copy,) = root.glob("postgres-18.*")
        made = copy.stat().st_ctime_ns
        assert postgres.pid is not None
        assert Path(psutil.Process(postgres.pid).exe()).is_relative_to(copy)
        assert query(postgres, "SELECT 1") == "1"
    assert not interrupted.exists()
    with EmbeddedPostgres(root, binaries=binaries):
        assert copy.stat().st_ctime_ns == made
    assert private.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not ROOT, reason="only root runs Postgres as somebody else")
def test_an_unreachable_folder_is_refused_and_left_alone(base: Path) -> None:
    private = base / "private"
    private.mkdir(mode=0o700)
    with pytest.raises(EmbeddedPostgresError, match=f"may not enter {private}: allow it by chmod"):
        EmbeddedPostgres(private / "fk").start()
    assert private.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not ROOT, reason="only root runs Postgres as somebody else")
def test_root_passes_a_strict_umask(base: Path) -> None:
    before = os.umask(0o077)
    try:
        with EmbeddedPostgres(base / "new" / "fk") as postgres:
            assert query(postgres, "SELECT 1") == "1"
    finally:
        os.umask(before)


@pytest.mark.skipif(not ROOT, reason="only root runs Postgres as somebody else")
def test_root_keeps_the_owner_of_the_data(root: Path) -> None:
    with EmbeddedPostgres(root):
        pass
    for path in [root / "data", root / "sock", *(root / "data").rglob("*")]:
        os.chown(path, 65534, 65534)
    with EmbeddedPostgres(root) as postgres:
        assert postgres.pid is not None
        assert psutil.Process(postgres.pid).uids().real == 65534

"""The embedded Postgres survives what happens to processes and folders."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import psutil
import pytest

from persistence import embedded
from persistence.embedded import EmbeddedPostgres, EmbeddedPostgresError, default_root
from persistence.postgres.inspection import inspect
from persistence.postgres.migrate import migrate
from tests.integration.psql import query
from tests.processes import outliving

ROOT = os.geteuid() == 0
DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
OWNER = """
import sys, time
from pathlib import Path
from persistence.embedded import EmbeddedPostgres
postgres = EmbeddedPostgres(Path(sys.argv[1])).start()
print(postgres.pid, flush=True)
time.sleep(600)
"""
# Each of these alone would make a client that heeds it fail.
HOSTILE = {
    "PGDATABASE": "elsewhere",
    "PGGSSLIB": "none",
    "PGHOST": "db.invalid",
    "PGPASSFILE": "/dev/null",
    "PGPASSWORD": "wrong",
    "PGPORT": "1",
    "PGSERVICE": "none",
    "PGSSLMODE": "verify-full",
    "PGSSLNEGOTIATION": "direct",
    "PGTARGETSESSIONATTRS": "standby",
    "PGUSER": "somebody",
}


def write_row(postgres: EmbeddedPostgres) -> None:
    query(postgres, "CREATE TABLE kept (word text); INSERT INTO kept VALUES ('kept')")


def family(pid: int) -> list[psutil.Process]:
    postmaster = psutil.Process(pid)
    return [postmaster, *postmaster.children(recursive=True)]


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # the postmaster's children may be quicker than we are
            process.kill()
    assert not outliving(processes)


@pytest.fixture
def owner(root: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that runs Postgres in `root`, and the process id of that Postgres."""
    environment = {**os.environ, "PYTHONPATH": str(Path(embedded.__file__).parent.parent)}
    command = [sys.executable, "-c", OWNER, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        processes = family(int(process.stdout.readline()))
        yield process, processes[0].pid
        process.kill()
    assert not outliving(processes)


def test_data_survives_a_restart(base: Path) -> None:
    postgres = EmbeddedPostgres(base / "new" / "fk")
    with postgres:
        write_row(postgres)
        assert query(postgres, "SELECT current_database()") == "flowkeep"
        first = postgres.pid
        assert first is not None
    assert postgres.pid is None
    assert not psutil.pid_exists(first)
    with postgres:
        assert query(postgres, "SELECT word FROM kept") == "kept"
    assert postgres.log_path.read_text().count("ready to accept connections") == 2


def test_settings_and_order_are_ours(root: Path) -> None:
    with EmbeddedPostgres(root, settings={"work_mem": "5MB", "wal_compression": "off", "port": "1"}) as postgres:
        names = ["synchronous_commit", "shared_buffers", "max_connections", "work_mem", "wal_compression"]
        shown = query(postgres, "SELECT " + ", ".join(f"current_setting('{name}')" for name in names))
        assert shown == "on|128MB|100|5MB|off"
        assert query(postgres, "SELECT string_agg(w, '' ORDER BY w) FROM unnest('{a,B,ä,Z}'::text[]) w") == "BZaä"
        assert query(postgres, "SHOW timezone") in ("UTC", "Etc/UTC")


async def test_the_address_serves_asyncpg_whatever_the_environment(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    with EmbeddedPostgres(base / "with space, comma" / "ü%") as postgres:
        connection = await asyncpg.connect(postgres.dsn())
        assert await connection.fetchval("SELECT current_database()") == "flowkeep"
        await connection.close()
        await migrate(postgres.dsn())
        assert (await inspect(postgres.dsn())).is_primary


def test_folders_are_private(base: Path, root: Path) -> None:
    with EmbeddedPostgres(root):
        for name in ("data", "sock", "postgres.log", "owner.lock"):
            assert (root / name).stat().st_mode & 0o077 == 0, name
    assert base.stat().st_mode & 0o777 == 0o711


def test_a_second_owner_is_refused(root: Path, owner: tuple[subprocess.Popen[str], int]) -> None:
    process, pid = owner
    with pytest.raises(EmbeddedPostgresError, match=f"{root} is in use by process {process.pid}"):
        EmbeddedPostgres(root).start()
    assert psutil.pid_exists(pid)


def test_a_second_start_is_refused(root: Path) -> None:
    with EmbeddedPostgres(root) as postgres:
        with pytest.raises(EmbeddedPostgresError, match="already started"):
            postgres.start()
        with pytest.raises(EmbeddedPostgresError, match=f"in use by process {os.getpid()}"):
            EmbeddedPostgres(root).start()
        assert query(postgres, "SELECT 1") == "1"


def test_data_survives_kill_of_everything(root: Path) -> None:
    with EmbeddedPostgres(root) as postgres:
        write_row(postgres)
        assert postgres.pid is not None
        kill(family(postgres.pid))
        assert postgres.pid is None
    with EmbeddedPostgres(root) as postgres:
        assert query(postgres, "SELECT word FROM kept") == "kept"


def test_a_busy_child_of_a_killed_postmaster_is_ended(root: Path) -> None:
    busy = "DO $$ BEGIN LOOP END LOOP; END $$"
    with EmbeddedPostgres(root) as postgres:
        write_row(postgres)
        assert postgres.pid is not None
        with subprocess.Popen([*postgres.psql_command(), "-c", busy], stderr=subprocess.DEVNULL) as client:
            while query(postgres, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO %'") != "1":
                pass
            backends = family(postgres.pid)
            backends[0].kill()
            postgres.stop()
            postgres.start()
            assert client.wait() != 0
        assert not outliving(backends)
        assert query(postgres, "SELECT word FROM kept") == "kept"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_postgres_ends_with_its_owner(owner: tuple[subprocess.Popen[str], int]) -> None:
    process, pid = owner
    processes = family(pid)
    process.kill()
    assert not outliving(processes)


def test_an_orphan_is_taken_over(root: Path, owner: tuple[subprocess.Popen[str], int]) -> None:
    process, pid = owner
    processes = family(pid)
    processes[0].suspend()  # so that it outlives its owner, as on macOS
    process.kill()
    process.wait()
    threading.Timer(0.2, processes[0].resume).start()
    with EmbeddedPostgres(root) as postgres:
        assert postgres.pid not in (None, pid)
        assert not outliving(processes)
        assert query(postgres, "SELECT 1") == "1"


def test_a_stale_process_id_of_another_is_harmless(root: Path) -> None:
    with EmbeddedPostgres(root) as postgres:
        write_row(postgres)
        recorded = (root / "data" / "postmaster.pid").read_text().split("\n", 1)[1]
    with subprocess.Popen(["sleep", "600"]) as stranger:
        (root / "data" / "postmaster.pid").write_text(f"{stranger.pid}\n{recorded}")
        (root / "sock" / ".s.PGSQL.5432.lock").write_text(f"{stranger.pid}\n{recorded}")
        with EmbeddedPostgres(root) as postgres:
            assert query(postgres, "SELECT word FROM kept") == "kept"
        assert stranger.poll() is None
        stranger.kill()


def test_what_an_interrupted_start_left_goes_with_the_next(base: Path) -> None:
    for left in ("data.init-cut", "postgres.copy-cut") * 2:  # with the first, and with data that is there
        (base / left).mkdir()
        with pytest.raises(EmbeddedPostgresError, match=r"in time|timed out"):
            EmbeddedPostgres(base).start(timeout=0)
        assert not [*base.glob("data.init-*"), *base.glob("postgres.copy-*")]
        with EmbeddedPostgres(base) as postgres:
            assert query(postgres, "SELECT 1") == "1"


def test_a_dropped_database_is_made_again(root: Path) -> None:
    with EmbeddedPostgres(root) as postgres:
        subprocess.run([*postgres.psql_command("postgres"), "-qc", "DROP DATABASE flowkeep"], check=True)
    with EmbeddedPostgres(root) as postgres:
        assert query(postgres, "SELECT 1") == "1"


def test_a_long_path_has_its_sockets_elsewhere(base: Path) -> None:
    root = base / ("long" * 20) / ("path" * 20)
    with EmbeddedPostgres(root) as postgres:
        assert query(postgres, "SELECT 1") == "1"
        sockets = Path(query(postgres, "SHOW unix_socket_directories"))
        assert sockets.stat().st_mode & 0o777 == 0o700
    assert not sockets.exists()


@pytest.mark.parametrize("trap", ["open", "link"])
def test_a_socket_folder_of_anybody_else_is_refused(base: Path, trap: str) -> None:
    root = base / ("long" * 30)
    postgres = EmbeddedPostgres(root)
    sockets = embedded._socket_folder(root)
    if trap == "open":
        sockets.mkdir()
        sockets.chmod(0o777)
    else:
        sockets.symlink_to(base)
    try:
        with pytest.raises(EmbeddedPostgresError, match=f"{sockets} is not a private folder"):
            postgres.start()
    finally:
        sockets.rmdir() if trap == "open" else sockets.unlink()


@pytest.mark.skipif(not DEBIAN_15.exists(), reason="Debian's Postgres 15 is not installed")
def test_postgres_15_serves_too(base: Path) -> None:
    with EmbeddedPostgres(base, binaries=DEBIAN_15) as postgres:
        write_row(postgres)
        assert query(postgres, "SHOW server_version").startswith("15.")
    with EmbeddedPostgres(base, binaries=DEBIAN_15) as postgres:
        assert query(postgres, "SELECT word FROM kept") == "kept"
    with pytest.raises(EmbeddedPostgresError, match="initialized by PostgreSQL version 15"):
        EmbeddedPostgres(base).start()


def test_a_failure_is_explained_and_leaves_nothing_running(root: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="invalid value for parameter"):
        EmbeddedPostgres(root, settings={"shared_buffers": "plenty"}).start()
    with pytest.raises(EmbeddedPostgresError, match="not ready in time"):
        EmbeddedPostgres(root).start(timeout=0)
    with EmbeddedPostgres(root) as postgres:
        assert query(postgres, "SELECT 1") == "1"


def test_it_starts_from_the_main_thread_only(base: Path) -> None:
    refused = []

    def start() -> None:
        with pytest.raises(EmbeddedPostgresError, match="main thread"):
            EmbeddedPostgres(base).start()
        refused.append(True)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert refused


def test_a_forked_child_cannot_end_it(root: Path) -> None:
    with EmbeddedPostgres(root) as postgres:
        child = os.fork()
        if child == 0:
            postgres.stop()
            os._exit(0)
        assert os.waitpid(child, 0) == (child, 0)
        assert query(postgres, "SELECT 1") == "1"


def test_a_missing_wheel_is_explained(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EmbeddedPostgresError, match=r"flowkeep\[embedded\] or set FLOWKEEP_DATABASE_URL"):
        EmbeddedPostgres(base)
    with pytest.raises(EmbeddedPostgresError, match="no postgres program"):
        EmbeddedPostgres(base, binaries=base)


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert default_root() == Path("/var/lib/flowkeep" if ROOT else "/home/somebody/.local/share/flowkeep")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_root() == Path("/var/lib/flowkeep" if ROOT else "/data/flowkeep")

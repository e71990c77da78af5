"""Settings are read in the forms that people write them in, and what is wrong is told without a secret."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from service.cli import settings
from service.config import Config

LINKS = {  # what Kubernetes tells a container of a service called flowkeep
    "FLOWKEEP_PORT": "tcp://10.0.0.7:50051",
    "FLOWKEEP_PORT_50051_TCP_ADDR": "10.0.0.7",
    "FLOWKEEP_SERVICE_HOST": "10.0.0.7",
    "FLOWKEEP_SERVICE_PORT_GRPC": "50051",
    "FLOWKEEP_DB_SERVICE_HOST": "10.0.0.8",
}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("step_timeout", "90", 90.0),
        ("step_timeout", "0.5", 0.5),
        ("step_timeout", " 1m30s ", 90.0),
        ("park_after", "250ms", 0.25),
        ("handlers", "my.handlers", ["my.handlers"]),
        ("handlers", "a.b, /srv/c.py,", ["a.b", "/srv/c.py"]),
        ("handlers", ' ["a,b", "c"]', ["a,b", "c"]),
        ("handlers", "", []),
        ("jwt_issuer", "https://a, https://b", ["https://a", "https://b"]),
        ("jwt_roles", '{"op": ["executions.read"]}', {"op": ["executions.read"]}),
        ("http_allow", "10.1.0.0/16, [fd00::1]:80,*.svc.local,", ["10.1.0.0/16", "[fd00::1]:80", "*.svc.local"]),
        ("data_dir", "", None),
        ("migrate", "no", False),
    ],
)
def test_a_setting_is_read(monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: Any) -> None:
    monkeypatch.setenv(f"FLOWKEEP_{name.upper()}", text)
    assert getattr(Config(), name) == value


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:p%40ss%2Fword@db:5432/flowkeep?sslmode=require",
        "postgres://me@[::1]:5432,db2/flowkeep",
        "postgresql://me@/flowkeep?host=/run/postgresql\n",
    ],
)
def test_a_database_url_is_taken(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("FLOWKEEP_DATABASE_URL", url)
    found = Config().database_url
    assert found is not None
    assert found.get_secret_value() == url.strip()


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("step_timeout", "soon", "=soon: must be a number of seconds, or a span of time such as 10s"),
        ("step_timeout", "0s", "=0.0: must be greater than 0"),
        ("step_timeout", "nan", "=nan: must be"),
        ("max_running", "many", "=many: must be a whole number"),
        ("max_running", "1.5", "=1.5: must be a whole number"),
        ("migrate", "perhaps", "=perhaps: must be true or false"),
        ("log_level", "loud", "=loud: must be 'debug', 'info', 'warning' or 'error'"),
        ("handlers", "a,,b", "=a,,b: must be names with commas between, such as a,b, or a JSON list"),
        ("handlers", '["a", 1]', "must be names with commas between"),
        (
            "http_allow",
            "10.1.0.0/16,10.1/16",
            "=10.1.0.0/16,10.1/16: '10.1/16': '10.1' is no address; a network is written",
        ),
        ("handlers", '["a"', "must be names with commas between"),
        *(("jwt_roles", text, "must be JSON with the permissions of each role") for text in ("{a", "[]", '{"a": "b"}')),
        ("database_url", "mysql://me:hunter2@db/x", ": must be postgresql://user:password@host:port/database"),
        ("database_url", "hunter2", ": must be postgresql://"),
        ("database_url", "postgresql://me:hun/ter2@db/x", "written as %40 %2F"),
        ("database_url", "postgresql://me:hun@ter2@db/x", "written as %40 %2F"),
        ("database_url", "postgresql://me:hun#ter2@db/x", "written as %40 %2F"),
        ("database_url", "postgresql://me:hunter2@[db/x", "must be postgresql://"),
        ("database_url", "postgresql://me:hunter2@db:port/x", "written as %40 %2F"),
        ("database_url", "postgresql://me:hunter2@db/x?sslmode", "must be postgresql://"),
    ],
)
def test_a_wrong_setting_names_its_variable_and_its_form(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, text: str, complaint: str
) -> None:
    monkeypatch.setenv(f"FLOWKEEP_{name.upper()}", text)
    with pytest.raises(typer.Exit) as ended:
        settings.load()
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.exit_code == 2
    assert line.startswith(f"Error: FLOWKEEP_{name.upper()}")
    assert complaint in line
    assert not any(part in line for part in ("hun", "ter2"))


def test_a_variable_that_is_no_setting_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    environment = {"FLOWKEEP_LISTN": "secret", "flowkeep_tokn": "x", "FLOWKEEP_QQQ": "x", "FLOWKEEP_PORT": "many"}
    with pytest.raises(typer.Exit) as ended:
        settings.refuse_unknown({**environment, "FLOWKEEP_MAX_RUNNING": "7"}, ["FLOWKEEP_TOKEN"])
    assert ended.value.exit_code == 2
    assert capsys.readouterr().err.splitlines() == [
        "Error: FLOWKEEP_LISTN is no setting: did you mean FLOWKEEP_LISTEN?",
        "Error: FLOWKEEP_PORT is no setting: did you mean FLOWKEEP_SMTP_PORT?",
        "Error: FLOWKEEP_QQQ is no setting: `flowkeep config` shows those that there are",
        "Error: flowkeep_tokn is no setting: did you mean FLOWKEEP_TOKEN?",
    ]


def test_what_is_no_setting_of_ours_is_let_be() -> None:
    others = {"FLOWKEEP_ENVIRONMENT": "test", "FLOWKEEP_TEST_ANY": "1", "FLOWKEEP_EMPTY": "", "OTHER": "1"}
    settings.refuse_unknown({**LINKS, **others, "flowkeep_listen": "127.0.0.1:0"}, [])

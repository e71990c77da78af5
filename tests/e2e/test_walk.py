"""The walk of `clients/CONTROL.md`: each command is typed as it stands there, and answers what stands there."""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from tests.e2e.process import flowkeep
from tests.folders import ROOT

CLIENTS = ROOT / "clients"
PRICES = "localhost:8099"
"""Where the walk has its service of prices."""
ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
VARYING = {
    r"\d{4}-\d\d-\d\dT[\d:.]+Z|\d{4}-\d\d-\d\d [\d:]+ UTC|\d\d:\d\d:\d\dZ": "TIME",
    r"\b\d+(?:\.\d+)?s\b": "DURATION",
    r"[\d,]+ bytes": "SIZE",
    r"(?<=DURATION) +\S+:\d+": " WORKER",
    r"─+": "─",
    r" +": " ",
}
"""What differs each time, and what is printed in its place."""


class Typed(NamedTuple):
    """A command of the walk, the lines that it is given, and those that it answers."""

    command: str
    given: str
    answer: list[str]


class Prices(SimpleHTTPRequestHandler):
    """What `python3 -m http.server` serves, without its log."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving_prices() -> Iterator[str]:
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Prices, directory=CLIENTS / "examples/control/prices")
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def typed(text: str) -> Iterator[Typed]:
    """Yield the commands of a document in their order."""
    for block in re.findall(r"^```console\n(.*?)^```", text, re.M | re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, *lines = part.rstrip("\n").split("\n")
            given = [line.removeprefix("> ") for line in takewhile(lambda line: line.startswith("> "), lines)]
            yield Typed(command, "".join(f"{line}\n" for line in given), lines[len(given) :])


def steady(text: str, ids: list[str]) -> list[str]:
    """Return the lines of an answer without what differs each time; ids are numbered as they come, and kept."""
    for found in ID.findall(text):
        if found not in ids:
            ids.append(found)
    text = ID.sub(lambda match: f"ID {ids.index(match[0])}", text)
    for pattern, word in VARYING.items():
        text = re.sub(pattern, word, text)
    return [line.strip() for line in text.splitlines()]


async def test_each_command_of_the_walk_answers_what_stands_there(target: str, tmp_path: Path) -> None:
    told, seen = list[str](), list[str]()
    with serving_prices() as prices:
        (tmp_path / "quote.yaml").write_text(
            (CLIENTS / "examples/control/quote.yaml").read_text().replace(PRICES, prices)
        )
        text = (CLIENTS / "CONTROL.md").read_text().replace(PRICES, prices)
        for command, given, answer in typed(text.replace("clients/examples/control", str(tmp_path))):
            known = ID.sub(lambda match: seen[told.index(match[0])], command)
            program, *arguments = shlex.split(known)
            assert program == "flowkeep"
            outcome = await flowkeep(*arguments, target=target, settings={"COLUMNS": "100"}, given=given)
            assert steady(outcome.out + outcome.err, seen) == steady("\n".join(answer), told), command
    assert seen

"""What pages and comments refer to is there: ids of promises, pages, headings, files; and examples are right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format, message_factory

from flowkeep.definition import definition
from flowkeep.v1 import (
    bulk_service_pb2,
    execution_service_pb2,
    notification_service_pb2,
    task_service_pb2,
    workflow_service_pb2,
)
from service.api.definitions import document
from service.engine.parsing import parse
from service.engine.slices import in_one_go
from tests.folders import ROOT
from tests.unit.documents import DEFAULTS

FOLDERS = ("clients", "persistence", "protos", "service", "tests")
CLIENTS = ROOT / "clients"
GENERATED = (CLIENTS / "python" / "flowkeep" / "v1", CLIENTS / "typescript" / "src" / "gen", CLIENTS / "go" / "v1")
BUILT = (CLIENTS / "typescript" / "node_modules", CLIENTS / "typescript" / "dist")
SUFFIXES = {".c", ".go", ".java", ".md", ".proto", ".py", ".sql", ".ts", ".yaml", ".yml"}

CITED = {
    "CONTRACT": ROOT / "protos" / "CONTRACT.md",
    "FAULTS": ROOT / "tests" / "FAULTS.md",
    "LIBRARIES": ROOT / "service" / "LIBRARIES.md",
}
"""The pages that hold what is cited, by the word that cites them: `CONTRACT W11`."""
WORDS = (*CITED, "DESIGN", "FEATURES", "STYLE")
"""The last ones are pages of others, which no clone holds."""

ID = r"[A-Z]{1,2}\d+|\d+(?:\.\d+)*"
CITATION = re.compile(
    rf"(?<![\w/])({'|'.join(WORDS)})(?![\w.]*\.md|\w)((?: (?:{ID})\b)(?:(?:,| and| to) (?:{ID})\b)*)?"
)
BARE = re.compile(r"(?<![\w.-])(?:CA|DR|EX|H|I|K|LI|M|RE|ST|W)\d{1,2}(?!\w|\.\w)")
"""The ids that tests name without the word, of CONTRACT and FAULTS."""


@cache
def texts() -> dict[Path, str]:
    """Return what people write, by file; this one, which is about the words themselves, left out."""
    files = [path for path in ROOT.iterdir() if path.is_file() and (path.suffix in SUFFIXES or not path.suffix)]
    files += [path for path in (ROOT / ".ci").iterdir() if path.is_file()]
    for folder in FOLDERS:
        files += [path for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES and path.is_file()]
    left_out = {*GENERATED, *BUILT}
    return {path: path.read_text() for path in files if left_out.isdisjoint(path.parents) and path != Path(__file__)}


def pages() -> list[Path]:
    """Return the pages of the tree."""
    return sorted(path for path in texts() if path.suffix == ".md")


PAGES = [str(path.relative_to(ROOT)) for path in pages()]


@cache
def ids(page: Path) -> frozenset[str]:
    """Return what a page holds under an id: headings, and first cells and first words of rows and items."""
    found = re.findall(rf"^(?:\| |\* \*\*|#+ )({ID})(?: \||\*\* |\.? )", page.read_text(), re.MULTILINE)
    assert len(found) == len(set(found)), f"{page.name} gives an id twice"
    return frozenset(found)


def prose(page: Path) -> str:
    """Return a page without its examples."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def slugs(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def wrong_citations(text: str) -> Iterator[str]:
    """Yield what a text cites that no page holds; a citation may go over the end of a line."""
    for found in CITATION.finditer(re.sub(r"\s*\n\s*(?:#|//|--|\*)?\s*", " ", text)):
        word, cited = found[1], re.findall(ID, found[2] or "")
        page = CITED.get(word)
        yield from [found[0]] if page is None else (f"{word} {each}" for each in cited if each not in ids(page))


def test_what_is_cited_stands_in_a_page() -> None:
    wrong = {str(path.relative_to(ROOT)): list(wrong_citations(text)) for path, text in texts().items()}
    assert {path: found for path, found in wrong.items() if found} == {}
    assert sum(len(CITATION.findall(text)) for text in texts().values()) > 40


@pytest.mark.parametrize(
    "text", ["see DESIGN", "(CONTRACT W99)", "CONTRACT\n    # W99", "FAULTS K1 to K99", "FAULTS H1, H99", "STYLE 3"]
)
def test_a_citation_that_leads_nowhere_is_found(text: str) -> None:
    assert list(wrong_citations(text)) != []


def test_the_ids_that_tests_name_stand_in_a_page() -> None:
    known = ids(CITED["CONTRACT"]) | ids(CITED["FAULTS"])
    named = {
        each: path for path, text in texts().items() if ROOT / "tests" in path.parents for each in BARE.findall(text)
    }
    assert {each: str(path) for each, path in named.items() if each not in known} == {}


def test_each_promise_is_named_by_a_test() -> None:
    named: set[str] = set()
    for path, text in texts().items():
        if ROOT / "tests" in path.parents and path.suffix == ".py":
            named.update(BARE.findall(text))
            for letters, first, last in re.findall(r"\b([A-Z]{1,2})(\d+)(?: to |-)\1(\d+)\b", text):
                named.update(f"{letters}{number}" for number in range(int(first), int(last) + 1))
    assert {each for each in ids(CITED["CONTRACT"]) if each.isalnum() and not each.isdigit()} - named == set()


@pytest.mark.parametrize("name", PAGES)
def test_links_of_a_page_lead_to_something(name: str) -> None:
    page = ROOT / name
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in slugs(found)):
            wrong.append(target)
    assert wrong == []


@pytest.mark.parametrize("name", PAGES)
def test_files_that_a_page_names_are_there(name: str) -> None:
    """What is written as a path from the top, such as `tests/unit/test_pages.py`."""
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w/.]*)`", prose(ROOT / name))
    assert [each for each in named if not (ROOT / each).exists()] == []


@pytest.mark.parametrize("name", ["persistence/README.md", "service/engine/README.md"])
def test_classes_that_a_page_names_are_there(name: str) -> None:
    code = "".join(text for path, text in texts().items() if path.suffix == ".py")
    named = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)*)\b", prose(ROOT / name))) - RPCS
    assert {each for each in named if not re.search(rf"^class {each}\b", code, re.MULTILINE)} == set()


def examples() -> list[tuple[str, str]]:
    """Return the workflows that pages show, in blocks of YAML and in commands that write a file."""
    found = []
    for page in pages():
        for text in re.findall(r"```yaml\n(.*?)```|<<'END'\n(.*?)\nEND", page.read_text(), re.DOTALL):
            found += [(str(page.relative_to(ROOT)), each) for each in text if re.search("^steps:", each, re.MULTILINE)]
    return found


@pytest.mark.parametrize(("page", "text"), examples())
def test_a_workflow_that_a_page_shows_is_right(page: str, text: str) -> None:
    written = definition(yaml.safe_load(text))
    assert parse(in_one_go(document(written)), None, DEFAULTS).root.steps


METHODS = {
    f"{service.full_name}/{method.name}": method
    for file in (
        execution_service_pb2.DESCRIPTOR,
        workflow_service_pb2.DESCRIPTOR,
        notification_service_pb2.DESCRIPTOR,
        task_service_pb2.DESCRIPTOR,
        bulk_service_pb2.DESCRIPTOR,
    )
    for service in file.services_by_name.values()
    for method in service.methods
}

RPCS = {method.name for method in METHODS.values()}


def calls() -> list[tuple[str, str, str]]:
    """Return the calls that pages show with grpcurl: page, request and method."""
    shown = r"-d '(\{.*?\})' *(?:\\\n)? *\S+ (flowkeep\.\S+)"
    return [(str(page.relative_to(ROOT)), *found) for page in pages() for found in re.findall(shown, page.read_text())]


@pytest.mark.parametrize(("page", "request_text", "method"), calls())
def test_a_call_that_a_page_shows_fits_its_method(page: str, request_text: str, method: str) -> None:
    json_format.Parse(request_text, message_factory.GetMessageClass(METHODS[method].input_type)())

"""What the demo's own steps do: real work on the packages that are installed here."""

from __future__ import annotations

from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

from flowkeep.handlers import StepContext, handler

LARGEST_LIST = 300
HEAVIEST = 5


@handler("demo_list_packages", description="Lists the installed Python packages with their versions.")
def list_packages() -> dict[str, Any]:
    """Return the packages by name."""
    found = {d.metadata["Name"]: d.version for d in metadata.distributions() if d.metadata["Name"]}
    names = sorted(found, key=str.lower)[:LARGEST_LIST]
    return {"packages": [{"name": name, "version": found[name]} for name in names]}


@handler("demo_weigh_packages", description="Adds up the sizes of the files of packages.")
def weigh_packages(packages: list[dict[str, str]], context: StepContext) -> dict[str, Any]:
    """Return the sizes in megabytes, all together and of the heaviest."""
    sizes: dict[str, int] = {}
    for index, package in enumerate(packages, start=1):
        files = metadata.files(package["name"]) or []
        sizes[package["name"]] = sum(_size(Path(str(file.locate()))) for file in files)
        context.report(100 * index // len(packages), f"weighed {package['name']}")
    heaviest = sorted(sizes.items(), key=lambda item: -item[1])[:HEAVIEST]
    return {
        "total_megabytes": round(sum(sizes.values()) / 1e6, 1),
        "heaviest": [{"name": name, "megabytes": round(size / 1e6, 1)} for name, size in heaviest],
    }


@handler("demo_count_licences", description="Counts the licences of packages.")
def count_licences(packages: list[dict[str, str]]) -> dict[str, Any]:
    """Return how many packages have which licence, most frequent first."""
    counted = Counter(_licence(package["name"]) for package in packages)
    return {"licences": [{"licence": name, "packages": count} for name, count in counted.most_common()]}


@handler("demo_write_report", description="Writes the report as Markdown.")
def write_report(
    path: str,
    packages: list[dict[str, str]],
    sizes: dict[str, Any],
    licences: list[dict[str, Any]],
    allowed: list[str],
) -> dict[str, Any]:
    """Return where the report is, and which licences somebody should look at."""
    review = [each["licence"] for each in licences if not any(word in each["licence"] for word in allowed)]
    lines = [f"# {len(packages)} Python packages, {sizes['total_megabytes']} MB", "", "## Heaviest", ""]
    lines += [f"- {each['name']}: {each['megabytes']} MB" for each in sizes["heaviest"]]
    lines += ["", "## Licences", ""]
    lines += [
        f"- {each['licence']}: {each['packages']}{' (to review)' if each['licence'] in review else ''}"
        for each in licences
    ]
    lines += ["", "## Packages", "", *(f"- {each['name']} {each['version']}" for each in packages), ""]
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(lines), encoding="utf-8")
    return {"path": str(target), "to_review": review}


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _licence(name: str) -> str:
    about = metadata.metadata(name)
    for classifier in about.get_all("Classifier") or ():
        if classifier.startswith("License ::") and not classifier.endswith("OSI Approved"):
            return str(classifier).rpartition(" :: ")[2]
    for field in ("License-Expression", "License"):
        for text in about.get_all(field) or ():
            if lines := str(text).strip().splitlines():
                return lines[0][:60]
    return "unknown"

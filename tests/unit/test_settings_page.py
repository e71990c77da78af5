"""The page of settings says what the program says."""

from typing import Any

import pytest

from service.config import Config
from tests.folders import ROOT

PAGE = (ROOT / "service" / "SETTINGS.md").read_text(encoding="utf-8")


def _shown(default: Any) -> str:
    if default in (None, "", [], {}):
        return "-"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


@pytest.mark.parametrize("name", Config.model_fields)
def test_each_setting_stands_in_the_page(name: str) -> None:
    field = Config.model_fields[name]
    default = field.get_default(call_default_factory=True)
    assert f"| `FLOWKEEP_{name.upper()}` | {_shown(default)} | {field.description} |" in PAGE


def test_the_page_lists_no_other_settings() -> None:
    assert PAGE.count("\n| `FLOWKEEP_") == len(Config.model_fields)

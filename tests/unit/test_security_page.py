"""SECURITY.md claims nothing whose test, setting or file is not there."""

import re

import yaml

from service.config import Config
from tests.folders import ROOT

PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def test_what_it_names_is_there():
    named = [*re.findall(r"`((?:tests|service)/[\w/.]*)`", PAGE), *re.findall(r"\]\(([\w/]+\.md)", PAGE)]
    assert len(named) > 15
    assert [each for each in named if not (ROOT / each).exists()] == []
    settings = {name.removeprefix("FLOWKEEP_").lower() for name in re.findall(r"FLOWKEEP_\w+", PAGE)}
    assert settings <= Config.model_fields.keys()


def test_its_example_is_yaml():
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert set(yaml.safe_load(text)) == {"overload_manager", "layered_runtime", "static_resources"}

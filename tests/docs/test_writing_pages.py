"""The pages on tasks that write say the same in English and Chinese, and what they show is accepted."""

import re
from pathlib import Path

import pytest
import yaml

from hanlin import registry
from hanlin.config import parse
from hanlin.train import recipe as recipes

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")


@pytest.mark.parametrize("name", ["translate", "summarize", "parse"])
class TestPages:
    """One page and its twin."""

    def test_both_languages_show_the_same(self, name):
        """Guards against a command or an option that is corrected in one language alone."""
        pages = [(DOCS / part / f"{name}.md").read_text(encoding="utf-8") for part in ("", "zh")]
        assert BLOCK.findall(pages[0]) == BLOCK.findall(pages[1])
        bare = [BLOCK.sub("", page) for page in pages]
        assert sorted(CODE.findall(bare[0])) == sorted(CODE.findall(bare[1]))
        assert bare[0].count("\n## ") == bare[1].count("\n## ")

    def test_what_is_shown_is_accepted(self, name):
        """Guards against a recipe on the page that a renamed field has broken, and a recipe that is not shipped."""
        text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
        for kind, block in BLOCK.findall(text):
            if kind == "yaml":
                given = yaml.safe_load(block)
                task = dict(given["task"])
                parse(registry.load("tasks", task.pop("name")).Config, task, "task")
                if {"model", "data", "plan"} <= given.keys():
                    recipes.build(given)
            for shipped in re.findall(r"hanlin train ([\w-]+)$", block, re.MULTILINE):
                recipes.load(shipped)

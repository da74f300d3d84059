"""What is true of every family's file, whatever its shape."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from hanlin import registry
from hanlin.models.contract import ModelConfig

FAMILIES = registry.names("models")


@pytest.mark.parametrize("name", FAMILIES)
def test_families_are_independent_of_each_other(name):
    """A change of one family that breaks another."""
    tree = ast.parse(Path(registry.load("models", name).__file__).read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported.isdisjoint({f"hanlin.models.{other}" for other in FAMILIES})


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_says_what_it_reads_and_refuses(name):
    """A family that bundles cannot find, or whose table of keys names fields it does not have."""
    config: type[ModelConfig] = registry.load("models", name).Config
    assert config.model_types
    assert config.architecture
    assert {*config.keys, *config.needed} <= {*config.model_fields}
    assert not {*config.fixed} & {*config.keys.values()} - {"activation_function"}

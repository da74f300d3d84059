"""Hanlin: from raw text to a language model you own, can trust and can serve.

>>> import hanlin
>>> model = hanlin.load("runs/demo")            # doctest: +SKIP
>>> model.generate("The module", limit=20)      # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hanlin.api import LanguageModel as LanguageModel
    from hanlin.api import load as load
    from hanlin.errors import HanlinError as HanlinError

__version__ = "0.1.0"
__all__ = ["HanlinError", "LanguageModel", "load"]

_HOMES = {"load": "hanlin.api", "LanguageModel": "hanlin.api", "HanlinError": "hanlin.errors"}


def __getattr__(name: str) -> Any:  # noqa: ANN401  # any public name
    """Import a public name when it is first used: `import hanlin` alone costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'hanlin' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)

"""What all tests share: the folder of real data, and one thread for tiny tensors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # toys are too small to share; two threads only wait for each other


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder that holds data/ and models/, or skip."""
    folder = Path(os.environ.get("HANLIN_DATA", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data at {folder}: set HANLIN_DATA to the folder that holds data/ and models/")
    return folder

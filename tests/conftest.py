"""What all tests share: the folder of real data, kept from what is tested, and one thread for tiny tensors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # toys are too small to share; two threads only wait for each other


@pytest.fixture(scope="session", autouse=True)
def data_home() -> Iterator[str | None]:
    """Yield what HANLIN_DATA says, and keep it from recipes and commands: they answer alike wherever tests run."""
    with pytest.MonkeyPatch.context() as patch:
        said = os.environ.get("HANLIN_DATA")
        patch.delenv("HANLIN_DATA", raising=False)
        patch.setenv("OMP_NUM_THREADS", "1")  # of the commands that tests start, two at a time
        yield said


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Take back the threads that a command has set: sums in another order are other sums in the last digits."""
    yield
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data(data_home: str | None) -> Path:
    """Return the folder that holds data/ and models/, or skip."""
    folder = Path(data_home or Path(__file__).parents[2] / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data at {folder}: set HANLIN_DATA to the folder that holds data/ and models/")
    return folder

"""Flat arrays in a safetensors file, read through memory maps; the header is believed in nothing.

8 bytes      header length      from 1 to LONGEST_HEADER, and inside the file
length       JSON               exactly the arrays asked for: {name: {dtype, shape: [n], data_offsets: [from, to]}}
the rest     the arrays         one after another: no gap, no overlap, nothing left over
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hanlin.config import Config, parse
from hanlin.errors import ConfigError, DataError, problem

LONGEST_HEADER = 1 << 16  # bytes; three arrays need some 200
CODES = {"uint16": "U16", "uint32": "U32", "int64": "I64"}  # numpy's names -> safetensors' names


class _Tensor(Config):
    """What a header says of one array."""

    dtype: str
    shape: tuple[int]
    data_offsets: tuple[int, int]


def arrays(path: Path, dtypes: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file under their names, each of the given dtype; DataError when the file is not so."""
    try:
        start, header = _header(path)
        tensors = _tensors(path, header, dtypes)
        size = path.stat().st_size
        if start + max(tensor.data_offsets[1] for tensor in tensors.values()) != size:
            raise DataError(problem(str(path), f"{size:,} bytes", "its header says otherwise"))
        return {name: _map(path, dtypes[name], start, tensor) for name, tensor in tensors.items()}
    except ConfigError as error:
        raise DataError(*error.problems) from None
    except OSError as error:
        raise DataError(problem(str(path), f"not readable: {error.strerror}")) from None


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """Return where the arrays begin, and the header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        room = os.fstat(file.fileno()).st_size - 8
        if not 0 < length <= min(room, LONGEST_HEADER):
            raise DataError(problem(str(path), f"a header of {length} bytes", "not a shard of ours"))
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise DataError(problem(str(path), "a header that is no JSON object", "not a shard of ours"))
    return 8 + length, header


def _tensors(path: Path, header: Mapping[str, Any], dtypes: Mapping[str, str]) -> dict[str, _Tensor]:
    """Return what the header says of each array, once it says something possible."""
    if set(header) != set(dtypes):
        raise DataError(problem(str(path), f"arrays {sorted(header)}"[:200], f"expected {sorted(dtypes)}"))
    tensors = {name: parse(_Tensor, header[name], f"{path}: {name}") for name in dtypes}
    problems = []
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        code, bytes_each = CODES[dtypes[name]], np.dtype(dtypes[name]).itemsize
        (count,), (start, stop) = tensor.shape, tensor.data_offsets
        if tensor.dtype != code:
            problems.append(problem(f"{path}: {name}", f"dtype {tensor.dtype}", f"expected {code}"))
        elif count < 0 or start != end or stop - start != count * bytes_each:
            problems.append(problem(f"{path}: {name}", f"{count} numbers at bytes {start} to {stop}", "impossible"))
        end = stop
    if problems:
        raise DataError(*problems)
    return tensors


def _map(path: Path, dtype: str, start: int, tensor: _Tensor) -> NDArray[Any]:
    """Return one array as a view of the file; an empty one cannot be mapped."""
    if not tensor.shape[0]:
        return np.empty(0, dtype)
    little = np.dtype(dtype).newbyteorder("<")
    return np.asarray(np.memmap(path, little, "r", offset=start + tensor.data_offsets[0], shape=tensor.shape))

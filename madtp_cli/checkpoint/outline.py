"""What the files of a checkpoint tell about its size without torch, to estimate a time before torch is imported."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from madtp_cli.checkpoint.files import read_json
from madtp_cli.checkpoint.locating import locate
from madtp_cli.errors import CheckpointError

#: Entry of a zip file of torch that has the numbers of one tensor.
TORCH_TENSOR = re.compile(r"[^/]+/data/\d+")
#: Longest header of a safetensors file that is read, in bytes; the format allows no longer one.
LONGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class Outline:
    """The size of a checkpoint.

    Attributes:
        tensors: Number of tensors.
        bytes: Size of the files that contain them.
        pruned_blocks: Number of blocks that prune tokens.
    """

    tensors: int
    bytes: int
    pruned_blocks: int


def outline(checkpoint: Path) -> Outline | None:
    """Return the size of a checkpoint; None if its files do not tell. Faults are left to the reader of the checkpoint.

    Args:
        checkpoint: A file, a folder, or the name of a cached model.
    """
    try:
        path = locate(checkpoint)
        if not path.is_dir():
            return Outline(_tensors(path), path.stat().st_size, 0)
        files = sorted(path.glob("*.safetensors")) or [file for file in path.glob("*.[bp][it]*") if _is_zip(file)]
        config = path / "config.json"
        pruned = _pruned_blocks(read_json(config)) if config.exists() else 0
        return Outline(sum(map(_tensors, files)), sum(file.stat().st_size for file in files), pruned)
    except (CheckpointError, OSError, ValueError, zipfile.BadZipFile):
        return None


def _is_zip(file: Path) -> bool:
    return file.is_file() and zipfile.is_zipfile(file)


def _tensors(file: Path) -> int:
    """Return the number of tensors of a file of torch or safetensors.

    Raises:
        ValueError: The file has another format.
    """
    if _is_zip(file):
        with zipfile.ZipFile(file) as archive:
            return sum(bool(TORCH_TENSOR.fullmatch(name)) for name in archive.namelist())
    if file.suffix != ".safetensors":
        raise ValueError(f"{file} is neither a zip file of torch nor a safetensors file")
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > LONGEST_HEADER:
            raise ValueError(f"{file} has no safetensors header")
        return len(json.loads(stream.read(length)).keys() - {"__metadata__"})


def _pruned_blocks(config: Mapping[str, Any]) -> int:
    """Return how many blocks a config of madtp prunes; 0 for other configs."""
    pruning = config.get("madtp")
    scales = pruning.get("scales") if isinstance(pruning, dict) else None
    if not isinstance(scales, dict):
        return 0
    return sum(bool(scale) for tower in scales.values() if isinstance(tower, list) for scale in tower)

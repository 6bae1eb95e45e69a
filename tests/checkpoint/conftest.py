"""A small checkpoint of the original code, and what is loaded from it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from madtp_cli.checkpoint.loading import LoadedCheckpoint, load
from tests.paths import GOLDEN


@pytest.fixture
def nlvr_file() -> Path:
    """The golden BLIP for NLVR2, with random weights."""
    return GOLDEN / "blip_nlvr_a/checkpoint.pth"


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    """A folder with the vocabulary of the golden checkpoints."""
    folder = tmp_path / "vocabulary"
    folder.mkdir()
    shutil.copy(GOLDEN / "vocab.txt", folder)
    return folder


@pytest.fixture
def loaded(nlvr_file: Path, vocabulary: Path) -> LoadedCheckpoint:
    """The golden BLIP for NLVR2 after loading."""
    return load(nlvr_file, tokenizer=vocabulary, head_width=16)

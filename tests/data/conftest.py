"""Small data sets on disk, in the layouts that users have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


def write_image(path: Path, shade: int = 0) -> None:
    """Write a tiny image file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 3), (shade % 256, 7, 9)).save(path)


def blip_rows(split: str, number: int) -> list[dict[str, Any]]:
    """Return rows in the layout of BLIP; two sentences about each pair of images, as in NLVR2."""
    return [
        {
            "sentence": f"There are {i} dogs.",
            "label": str(i % 2 == 0),
            "images": [f"{split}/{split}-{i // 2}-img{side}.png" for side in (0, 1)],
        }
        for i in range(number)
    ]


@pytest.fixture
def write_blip(tmp_path: Path) -> Callable[..., Path]:
    """Write a data set in the layout of BLIP: `write_blip({"train": rows}, images="images")`."""

    def write(
        splits: dict[str, list[dict[str, Any]]], *, annotation: str = "annotation", images: str = "images"
    ) -> Path:
        (tmp_path / annotation).mkdir(parents=True, exist_ok=True)
        for split, rows in splits.items():
            (tmp_path / annotation / f"nlvr_{split}.json").write_text(json.dumps(rows))
            for row in rows:
                for name in row.get("images", []):
                    write_image(tmp_path / images / name)
        return tmp_path

    return write

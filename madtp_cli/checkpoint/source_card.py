"""What the model card of a source checkpoint states, for the card of the folder that is made of it."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from madtp_cli.checkpoint.locating import locate

#: Longest card that is read, and the names that a licence may have.
MOST_BYTES, LICENCE = 2**16, re.compile(r"[a-z0-9.+-]{1,60}")
#: A name on the Hugging Face hub.
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def base_model(source: Path) -> str | None:
    """Return the name of a source on the Hugging Face hub; None for a file or folder.

    >>> base_model(Path("Salesforce/blip-vqa-base")), base_model(Path("/data/blip.pt"))
    ('Salesforce/blip-vqa-base', None)
    """
    name = source.as_posix()
    return name if HUB_NAME.fullmatch(name) and not source.exists() else None


def licence(source: Path) -> str | None:
    """Return the licence in the front matter of the card next to a checkpoint; None if there is none."""
    found = locate(source)
    card = (found if found.is_dir() else found.parent) / "README.md"
    try:
        with card.open(encoding="utf-8") as stream:
            text = stream.read(MOST_BYTES)
        front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
        fields = yaml.safe_load(front[1]) if front else None
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None
    name = fields.get("license") if isinstance(fields, dict) else None
    return name if isinstance(name, str) and LICENCE.fullmatch(name) else None

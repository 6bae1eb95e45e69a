"""The names of published architectures, from the files `models/<family>/architectures.json`.

They are read without importing the families, because that would load torch.
"""

from __future__ import annotations

import json
from importlib import util
from pathlib import Path


def names() -> tuple[str, ...]:
    """Return the names of all published architectures, by family.

    >>> "clip-vit-b-32" in names()
    True
    """
    spec = util.find_spec("madtp_cli.models")
    folders = (spec.submodule_search_locations if spec else None) or ()
    files = sorted(file for folder in folders for file in Path(folder).glob("*/architectures.json"))
    return tuple(name for file in files for name in json.loads(file.read_text("utf-8")))

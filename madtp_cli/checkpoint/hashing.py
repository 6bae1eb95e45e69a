"""Fingerprints (SHA-256) of files and folders."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

#: Files of a checkpoint folder that a fingerprint covers: weights, settings and tokenizers.
PATTERNS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.json", "*.txt", "*.model")


def sha256(path: Path, patterns: Iterable[str] = PATTERNS) -> str:
    """Return the fingerprint of a file, as sha256sum prints it, or of a folder.

    The fingerprint of a folder is that of the lines "fingerprint, two spaces, name" of its files, sorted by name.

    Args:
        path: A file, or a folder whose subfolders do not count.
        patterns: Which files of a folder count.
    """
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    files = {file.name: file for pattern in patterns for file in path.glob(pattern) if file.is_file()}
    return of_lines(f"{sha256(file)}  {name}" for name, file in sorted(files.items()))


def of_lines(lines: Iterable[str]) -> str:
    r"""Return the fingerprint of lines of text.

    >>> of_lines(["a", "b"]) == hashlib.sha256(b"a\nb\n").hexdigest()
    True
    """
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()

"""Files that hold data in a form that madtp does not read, each with what makes it readable."""

from __future__ import annotations

from pathlib import Path

from madtp_cli.data.files import listed

_PACKED = "is an archive. Unpack it, and give the folder"
_SHEET = "is a spreadsheet. Save it as CSV in UTF-8"
_STORE = "is a store of another program. Write its rows as JSON lines, and its images as files"
#: What a message states about a file with each ending.
_KINDS = {
    **dict.fromkeys((".zip", ".7z", ".rar", ".gz", ".bz2", ".xz", ".zst"), _PACKED),
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".numbers"), _SHEET),
    **dict.fromkeys((".pkl", ".pickle", ".npz", ".npy", ".h5", ".hdf5", ".lmdb", ".mdb", ".db", ".sqlite"), _STORE),
    **dict.fromkeys((".tfrecord", ".tfrecords", ".arrow", ".feather", ".mat"), _STORE),
    **dict.fromkeys(
        (".xml", ".yaml", ".yml"), "is not an annotation file that madtp reads. Write its rows as JSON lines"
    ),
}


def reason(path: Path) -> str | None:
    """Return why a path, or the first such file in a folder, is not read and what to do; None if nothing is known."""
    files = listed(path, tuple(_KINDS)) if path.is_dir() else [path]
    for file in files:
        if file.name.startswith("._"):
            return f"{file} is a file that macOS writes beside another one. Give that one."
        if file.suffix.lower() in _KINDS:
            return f"{file} {_KINDS[file.suffix.lower()]}."
    return None

"""MADTP's own result files: `{model, epoch, temperature}`, another format's keys plus `space_dict`."""

from __future__ import annotations

import dataclasses

from madtp_cli import formats
from madtp_cli.formats import Recognised, Source, Told

NAME = "MADTP"
DICTIONARY = "space_dict"


def recognise(source: Source, told: Told) -> Recognised | None:
    """A file with a dictionary beside the weights of a model in its own format."""
    if DICTIONARY not in source.weights:
        return None
    weights = dict(source.weights)
    dictionary = weights.pop(DICTIONARY)
    host = formats.recognise(dataclasses.replace(source, weights=weights), told)
    size, width = dictionary.shape
    note = (
        f"Compressed by MADTP at temperature {source.extras.get('temperature', 'unknown')}, whose pruning rule differs "
        "from ours (one keep count for a whole batch, padding scored like words); loaded as dense weights, "
        f"and its dictionary of {size} tokens of width {width} apart."
    )
    name = f"{NAME} ({host.format})"
    return dataclasses.replace(host, format=name, notes=(note, *host.notes), dictionary=dictionary)

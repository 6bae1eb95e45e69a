"""MADTP's own result files: `{model, epoch, temperature}`, another format's keys plus `space_dict`."""

from __future__ import annotations

import dataclasses
import re

from madtp_cli.checkpoint import formats
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source
from madtp_cli.checkpoint.tower_shapes import split_off

NAME = "MADTP"
DICTIONARY = "space_dict"

#: CLIP's files have one map into the dictionary's width for each block; our dictionary has one for each tower.
MAPS = {"each block's own map into the dictionary": re.compile(r"\.query_model\.q_map\.")}


def recognise(source: Source, overrides: CheckpointOverrides) -> Recognised | None:
    """A file with a dictionary beside the weights of a model in its own format."""
    if DICTIONARY not in source.weights:
        return None
    weights, maps = split_off(source.weights, MAPS)
    dictionary = weights.pop(DICTIONARY)
    host = formats.recognise(dataclasses.replace(source, weights=weights), overrides)
    size, width = dictionary.shape
    note = (
        f"Compressed by MADTP at temperature {source.extras.get('temperature', 'unknown')}, whose pruning rule differs "
        "from ours (one keep count for a whole batch, padding scored like words); loaded as dense weights, "
        f"and its dictionary of {size} tokens of width {width} apart."
    )
    return dataclasses.replace(
        host,
        format=f"{NAME} ({host.format})",
        dropped={**host.dropped, **maps},
        notes=(note, *host.notes),
        dictionary=dictionary,
    )

"""Result files of the released MADTP code: `{model, epoch, temperature}`, where the model also has `space_dict`.

Apart from that, the tensors have the names of another format, which recognises them.
"""

from __future__ import annotations

import dataclasses
import re

from madtp_cli.checkpoint import formats
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source
from madtp_cli.checkpoint.tower_shapes import shape, split_dropped

NAME = "MADTP"
#: Key of the dictionary.
DICTIONARY = "space_dict"

#: In CLIP files every block has its own projection to the dictionary; our dictionary has one per tower.
DROPPED = {"projections of single blocks to the dictionary": re.compile(r"\.query_model\.q_map\.")}


def recognise(source: Source, overrides: CheckpointOverrides) -> Recognised | None:
    """Recognise a file with a dictionary and the weights of a model in another format."""
    if DICTIONARY not in source.weights:
        return None
    weights, dropped = split_dropped(source.weights, DROPPED)
    weights.pop(DICTIONARY)
    # The released code changes OpenAI's CLIP, whose activation it keeps.
    overrides = dataclasses.replace(overrides, activation=overrides.activation or "quick_gelu", weights=None)
    host = formats.recognise(dataclasses.replace(source, weights=weights, open_clip=None, notes=()), overrides)
    atoms, width = shape(source.weights, DICTIONARY, 2)
    note = (
        f"The file was compressed by the released MADTP code at temperature "
        f"{source.extras.get('temperature', 'unknown')}. That code prunes by another rule (one number of kept tokens "
        "for the whole batch, padding scored like words), so only the dense weights are loaded, "
        f"not the dictionary of {atoms} atoms of width {width}."
    )
    return dataclasses.replace(
        host,
        format=f"{NAME} ({host.format})",
        dropped={**host.dropped, **dropped},
        notes=(note, *host.notes),
    )

"""Result files of the released MADTP code: `{model, epoch, temperature}`, where the model also has `space_dict`.

Apart from that, the tensors have the names of another format, which recognises them. The dictionary, the projections to
it and the temperature make the model prune as the released code does for one sample without padding.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from madtp_cli import methods, models
from madtp_cli.checkpoint import formats
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source
from madtp_cli.checkpoint.tower_shapes import shape

NAME = "MADTP"
#: Key of the dictionary.
DICTIONARY = "space_dict"
#: The method that prunes as the released code does.
METHOD = "madtp-released"

#: In CLIP files every block has its own projection to the dictionary. These are the keys, and where they go.
PROJECTION = re.compile(r"^(visual\.)?transformer\.resblocks\.(\d+)\.query_model\.q_map\.0\.(weight|bias)$")


def recognise(source: Source, overrides: CheckpointOverrides) -> Recognised | None:
    """Recognise a file with a dictionary and the weights of a model in another format."""
    if DICTIONARY not in source.weights:
        return None
    projections = {key: value for key, value in source.weights.items() if PROJECTION.match(key)}
    weights = {key: value for key, value in source.weights.items() if key not in {DICTIONARY, *projections}}
    # The released code changes OpenAI's CLIP, whose activation it keeps.
    overrides = dataclasses.replace(overrides, activation=overrides.activation or "quick_gelu", weights=None)
    host = formats.recognise(dataclasses.replace(source, weights=weights, open_clip=None, notes=()), overrides)
    host = dataclasses.replace(host, format=f"{NAME} ({host.format})")
    kind = f"{models.family_of(host.config).name}.{host.task}" if host.config else ""
    if host.refusal or kind not in models.kinds():
        return host
    parts, reason = _dictionary(source.weights[DICTIONARY], projections, _tower_sizes(models.get(kind), host.config))
    if reason:
        note = f"The file was compressed by the released MADTP code. Only the dense weights are loaded: {reason}."
        dropped = {**host.dropped, "a dictionary that cannot be used": [DICTIONARY, *projections]}
        return dataclasses.replace(host, dropped=dropped, notes=(note, *host.notes))
    temperature = _temperature(source.extras.get("temperature"))
    atoms, width = shape(source.weights, DICTIONARY, 2)
    pruning = {
        "method": METHOD,
        "threshold_scale": 1.0 if temperature else 0.0,
        "dictionary_size": atoms,
        "dictionary_width": width,
        "block_projections": bool(projections),
        "scales": _scales(models.get(kind), host.config),
        "parameters": {"temperature": temperature} if temperature else {},
    }
    return dataclasses.replace(
        host,
        config={**host.config, "madtp": pruning},
        weights={**host.weights, **parts},
        notes=(_note(temperature, atoms, width), *host.notes),
    )


def _note(temperature: float | None, atoms: int, width: int) -> str:
    dictionary = f"its dictionary of {atoms} atoms of width {width}"
    if temperature is None:
        return (
            f"The file is of the released MADTP code and states no temperature, so nothing is pruned. {METHOD} and "
            f"madtp start from {dictionary}."
        )
    if not temperature:
        return f"The released MADTP code wrote the file at temperature 0, where nothing is pruned. It has {dictionary}."
    return (
        f"The file was compressed by the released MADTP code at temperature {temperature:g} and prunes by its rule "
        f"({METHOD}) with {dictionary}. One sample without padding gives the results of that code; in that code, the "
        "samples of a batch and padding change each other's results."
    )


def _temperature(value: Any) -> float | None:
    """Return the temperature of the file; None if there is no usable one."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _tower_sizes(model: Any, config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return width and number of blocks of each tower that can be pruned."""
    settings = {tower: config[f"{tower}_config"] for tower in model.TOWERS}
    return {tower: (fields["hidden_size"], fields["num_hidden_layers"]) for tower, fields in settings.items()}


def _scales(model: Any, config: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return the factors of all blocks; a causal text tower is not pruned before the end of its text."""
    causal = tuple(tower for tower, read_out in model.READ_OUT.items() if read_out == "last")
    preset = dataclasses.replace(methods.get(METHOD).PRESET, unpruned=causal)
    return {tower: preset.scales(tower, blocks) for tower, (_, blocks) in _tower_sizes(model, config).items()}


def _dictionary(
    dictionary: Tensor, projections: Mapping[str, Tensor], towers: Mapping[str, tuple[int, int]]
) -> tuple[dict[str, Tensor], str | None]:
    """Return the tensors of the dictionary with our names, or why they cannot be used."""
    parts = {"madtp.dictionary": dictionary}
    if projections:
        parts |= {_renamed(key): value for key, value in projections.items()}
        wanted = {f"madtp.projections.{tower}.{block}.weight" for tower, (_, n) in towers.items() for block in range(n)}
        absent = sorted(wanted - set(parts))
        return parts, f"blocks have no projection to its dictionary, such as {absent[0]}" if absent else None
    for tower, (width, _) in towers.items():
        # BLIP files have no projection: the products are those of the tokens themselves.
        parts[f"madtp.projections.{tower}.weight"] = torch.eye(width, device=dictionary.device)
        if width != dictionary.shape[1]:
            return {}, f"its dictionary has the width {dictionary.shape[1]}, but the {tower} tower {width}"
    return parts, None


def _renamed(key: str) -> str:
    """Return our name of a projection.

    >>> _renamed("visual.transformer.resblocks.3.query_model.q_map.0.bias")
    'madtp.projections.vision.3.bias'
    """
    images, block, name = re.fullmatch(PROJECTION, key).groups()  # type: ignore[union-attr]
    return f"madtp.projections.{'vision' if images else 'text'}.{block}.{name}"

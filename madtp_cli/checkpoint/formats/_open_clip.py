"""What both formats of OpenCLIP take from its config."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from madtp_cli.checkpoint.open_clip_settings import Activation, ModelSettings, TextSettings

CONFIG = "open_clip_config.json"
#: Number of disagreements between the config and the weights that a message names.
SHOWN = 3


def activation(settings: ModelSettings, arguments: Activation | None) -> str:
    """Return the activation of a built-in tower, as transformers names it."""
    if settings.quick_gelu:
        return "quick_gelu"
    return "gelu_pytorch_tanh" if arguments and arguments.approximate == "tanh" else "gelu"


def special_tokens(text: TextSettings) -> dict[str, int]:
    """Return the tokens that start, end and pad a text. Without `eos`, a text is read at its largest token number."""
    if text.pool_type == "eos":
        end = 2 if text.eos_id is None else text.eos_id
        return {"bos_token_id": 0, "eos_token_id": end, "pad_token_id": text.pad_id}
    return {
        "bos_token_id": max(text.vocab_size - 2, 0),
        "eos_token_id": text.vocab_size - 1,
        "pad_token_id": text.pad_id,
    }


def text_sizes(text: TextSettings, config: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    """Yield the name of each size of the text tower, the size in the config, and that of the weights."""
    stated = {
        "hidden_size": ("text_cfg.width", text.width),
        "num_hidden_layers": ("text_cfg.layers", text.layers),
        "vocab_size": ("text_cfg.vocab_size", text.vocab_size),
        "max_position_embeddings": ("text_cfg.context_length", text.context_length),
        "intermediate_size": ("text_cfg.width times mlp_ratio", int(text.width * text.mlp_ratio)),
    }
    for field, (name, value) in stated.items():
        yield name, value, config["text_config"][field]


def disagreements(found: Iterable[str]) -> str | None:
    """Return a refusal with the first sizes that the config states otherwise than the shapes; None if all agree."""
    first = list(found)[:SHOWN]
    if not first:
        return None
    return (
        f"an OpenCLIP model whose {CONFIG} and weights disagree: {'; '.join(first)}.\n"
        "Give the config and the weights of one model."
    )

"""A model's forward as one graph of tensors, in which counts of tokens depend on the data."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional

from madtp_cli.execution.padded import counts_of
from madtp_cli.models.prunable import Prunable, PrunedOutput
from madtp_cli.pruning.mag import AlignmentDictionary

#: Inputs by the name of the text whose tokens they are, and by what is free in their shape.
TEXTS = {"tokens": ("input_ids", "attention_mask"), "answer_tokens": ("decoder_input_ids", "decoder_attention_mask")}
#: Fewest tokens that texts are padded to: one, and what BLIP leaves of two when it puts [ENC] before the others,
#: would be traced as a constant.
SHORTEST = 3
#: Samples and tokens to trace with; any sizes that no other size of a model is mistaken for.
TRACED_SAMPLES, TRACED_TOKENS = 2, 7


#: By name; a free size is a name itself.
Shapes = dict[str, list[int | str]]


class Exportable(nn.Module):
    """A model's forward on padded tokens, outputs by name.

    `logits`, `image_embedding` and `text_embedding` where the model has them; of each pruned tower `kept_<tower>`
    [samples, (inputs of a sample,) blocks], the tokens that left each block.
    """

    def __init__(self, model: Prunable) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """By name, since exporters take an input's name from here."""
        answers = {"decoder_input_ids": decoder_input_ids, "decoder_attention_mask": decoder_attention_mask}
        given = {name: value for name, value in answers.items() if value is not None}
        return named(self.model, self.model(pixel_values, input_ids, attention_mask, **given))


class Folded(nn.Module):
    """Stands for a dictionary: all that pruning asks of it is one matrix per tower, made once."""

    def __init__(self, model: Prunable) -> None:
        super().__init__()
        if model.madtp is None:
            raise ValueError("a dense model has no dictionary")
        for tower in model.TOWERS:
            self.register_buffer(tower, model.madtp.folded(tower).detach().clone())

    def folded(self, tower: str) -> Tensor:
        matrix: Tensor = getattr(self, tower)
        return matrix


def named(model: Prunable, output: PrunedOutput) -> dict[str, Tensor]:
    """What an `Exportable` gives, from the forward's output on packed tokens or on padded ones."""
    names = ("logits", "image_embedding", "text_embedding")
    found = {name: getattr(output, name) for name in names if getattr(output, name, None) is not None}
    pruning, trace = model.pruning, output.trace or {}
    for tower, blocks in model.blocks.items():
        if pruning and any(pruning.rule(tower, block) for block in range(blocks)):
            kept = torch.stack([counts_of(block.left) for block in trace[tower]], 1)
            each = model.INPUTS_PER_SAMPLE.get(tower, 1)  # all first inputs come before all second ones
            found[f"kept_{tower}"] = kept.unflatten(0, (each, -1)).transpose(0, 1) if each > 1 else kept
    return found


def traced(model: Prunable) -> ExportedProgram:
    """The graph of a model in float32 and evaluation mode, which is left as it was.

    Batch and text lengths are free, texts at least `SHORTEST` wide.
    """
    example = drawn(model, TRACED_SAMPLES, TRACED_TOKENS, seed=0)
    with torch.no_grad(), quiet(), _exportable(model) as whole:
        return torch.export.export(whole, (), example, dynamic_shapes=_free(model, example))


def drawn(model: Prunable, samples: int, tokens: int, seed: int) -> dict[str, Tensor]:
    """Inputs of unlike samples: pictures of coarse and fine noise, partly blank; texts of up to `tokens` words."""
    generator = torch.Generator().manual_seed(seed)
    dummy_inputs = model.dummy_inputs(tokens)
    shape = dummy_inputs["pixel_values"].shape[1:]
    drawn = {"pixel_values": torch.stack([_picture(shape, generator) for _ in range(samples)])}
    for words, mask in TEXTS.values():
        if words not in dummy_inputs:
            continue
        lengths = [tokens, *torch.randint(2, tokens + 1, (samples - 1,), generator=generator).tolist()]
        rows = [
            _text(dummy_inputs[words][0], length, model.config.text_config.vocab_size, generator) for length in lengths
        ]
        drawn[words] = torch.stack([functional.pad(row, (0, tokens - len(row))) for row in rows])
        drawn[mask] = torch.stack([torch.arange(tokens) < length for length in lengths]).long()
    return drawn


def _picture(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """One input of pixels, its strength, grain and blank part drawn."""
    images = []
    for _ in range(shape[:-3].numel()):
        strength, grain, edge = torch.rand(3, generator=generator).tolist()
        cells = 2 + int(6 * grain)
        coarse = torch.randn(1, 3, cells, cells, generator=generator) * (0.5 + 2 * strength)
        image = functional.interpolate(coarse, size=shape[-2:])[0] + 0.5 * torch.randn(shape[-3:], generator=generator)
        image[:, int(shape[-2] * (0.3 + 0.7 * edge)) :] = 0.0
        images.append(image)
    return torch.stack(images).view(shape)


def _text(dummy_inputs: Tensor, length: int, vocabulary: int, generator: torch.Generator) -> Tensor:
    """Random words between the first and the last token of an empty text."""
    words = torch.randint(0, vocabulary, (length,), generator=generator)
    words[words == dummy_inputs[-1]] = dummy_inputs[0]  # else a text might end early
    words[0], words[-1] = dummy_inputs[0], dummy_inputs[-1]
    return words


def _free(model: Prunable, example: dict[str, Tensor]) -> dict[str, dict[int, Any]]:
    """The free sizes of each input, by axis."""
    samples = Dim("images" if model.ALL_PAIRS else "samples")
    texts = Dim("texts") if model.ALL_PAIRS else samples
    free: dict[str, dict[int, Any]] = {"pixel_values": {0: samples}}
    for name, inputs in TEXTS.items():
        tokens = Dim(name, min=SHORTEST, max=model.config.text_config.max_position_embeddings)
        free |= {own: {0: texts, 1: tokens} for own in inputs if own in example}
    return free


def shapes(program: ExportedProgram) -> tuple[Shapes, Shapes]:
    """Shapes of a graph's inputs and of its outputs, free sizes by name; "?" for what only a run tells."""
    known, signature = free_names(program), program.graph_signature
    nodes = {node.name: node for node in program.graph.nodes}

    def shape(node: str) -> list[int | str]:
        return [size if isinstance(size, int) else known.get(str(size), "?") for size in nodes[node].meta["val"].shape]

    inputs = {name: shape(name) for name in signature.user_inputs}
    return inputs, {name: shape(node) for name, node in zip(output_names(program), signature.user_outputs, strict=True)}


def free_names(program: ExportedProgram) -> dict[str, str]:
    """What the graph's symbols stand for: {"s43": "samples", "s53": "tokens"}."""
    nodes = {node.name: node for node in program.graph.nodes}
    sizes = {name: nodes[name].meta["val"].shape for name in program.graph_signature.user_inputs}
    found = {str(sizes["pixel_values"][0]): "images", str(sizes["input_ids"][0]): "texts"}
    if len(found) == 1:
        found = dict.fromkeys(found, "samples")
    return found | {str(sizes[own[0]][1]): tokens for tokens, own in TEXTS.items() if own[0] in sizes}


def output_names(program: ExportedProgram) -> list[str]:
    """Names of the graph's outputs, in its order."""
    spec = program.call_spec.out_spec
    numbered = torch.utils._pytree.tree_unflatten(range(spec.num_leaves), spec)
    return sorted(numbered, key=numbered.__getitem__)


@contextlib.contextmanager
def _exportable(model: Prunable) -> Iterator[Exportable]:
    """The model, on padded tokens and with its dictionary folded, until the block ends."""
    dictionary, wanted = model.madtp, [value for value in model.parameters() if value.requires_grad]
    if dictionary is not None:
        model.madtp = cast(AlignmentDictionary, Folded(model))
    model.padded = True
    try:
        yield Exportable(model.requires_grad_(False)).eval()
    finally:
        model.madtp, model.padded = dictionary, False
        for value in wanted:
            value.requires_grad_(True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' own remarks, which are about torch and not about the model."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

"""Trace the forward pass of a model into one graph of tensor operations.

In the graph, the number of kept tokens depends on the data. The batch size and the lengths of the texts are free.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from madtp_cli.execution.padded import counts_of
from madtp_cli.exporters._random_inputs import MIN_TEXT_TOKENS, TEXT_INPUTS, random_inputs
from madtp_cli.models.prunable import Prunable, PrunedOutput
from madtp_cli.pruning.mag import AlignmentDictionary

#: Samples and tokens of the example that is traced. They differ from every other size of a model, so that torch does
#: not confuse a free size with a fixed one.
TRACED_SAMPLES, TRACED_TOKENS = 2, 7

#: Shapes of tensors by name; a free size has a name instead of a number.
Shapes = dict[str, list[int | str]]


class ExportableModel(nn.Module):
    """The forward pass of a model on padded tokens, with outputs by name.

    The outputs are `logits`, `image_embedding` and `text_embedding` as far as the model has them, and for each pruned
    tower `kept_<tower>`, the number of tokens after each block: [samples, blocks], or [samples, inputs per sample,
    blocks] where a sample has several inputs.
    """

    def __init__(self, model: Prunable) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Run the model. Every input is a named parameter, since exporters take the input names from here."""
        texts = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "decoder_input_ids": decoder_input_ids,
            "decoder_attention_mask": decoder_attention_mask,
        }
        given = {name: value for name, value in texts.items() if value is not None}
        return named_outputs(self.model, self.model(pixel_values, **given))


class FoldedDictionary(nn.Module):
    """Replaces a dictionary in the graph by the one matrix per tower or block that pruning needs, computed once."""

    def __init__(self, model: Prunable) -> None:
        super().__init__()
        if model.madtp is None:
            raise ValueError("a dense model has no dictionary")
        self.width, self.per_block = model.madtp.width, model.madtp.per_block
        for tower, blocks in model.blocks.items():
            for block in range(blocks if self.per_block else 1):
                self.register_buffer(f"{tower}_{block}", model.madtp.folded(tower, block).detach().clone())
                bias = model.madtp.folded_bias(tower, block)
                self.register_buffer(f"{tower}_{block}_bias", None if bias is None else bias.detach().clone())

    def folded(self, tower: str, block: int = 0) -> Tensor:
        """Return the matrix of a block, as `AlignmentDictionary.folded` does."""
        matrix: Tensor = getattr(self, f"{tower}_{block if self.per_block else 0}")
        return matrix

    def folded_bias(self, tower: str, block: int = 0) -> Tensor | None:
        """Return the bias of a block's logits, as `AlignmentDictionary.folded_bias` does."""
        bias: Tensor | None = getattr(self, f"{tower}_{block if self.per_block else 0}_bias")
        return bias


def named_outputs(model: Prunable, output: PrunedOutput) -> dict[str, Tensor]:
    """Return the outputs of `ExportableModel` from the output of a forward pass, packed or padded."""
    names = ("logits", "image_embedding", "text_embedding")
    outputs = {name: getattr(output, name) for name in names if getattr(output, name, None) is not None}
    pruning, trace = model.pruning, output.trace or {}
    for tower, blocks in model.blocks.items():
        if pruning and any(pruning.rule(tower, block) for block in range(blocks)):
            kept = torch.stack([counts_of(block.left) for block in trace[tower]], 1)
            inputs = model.INPUTS_PER_SAMPLE.get(tower, 1)  # the first inputs of all samples come before the second
            outputs[f"kept_{tower}"] = kept.unflatten(0, (inputs, -1)).transpose(0, 1) if inputs > 1 else kept
    return outputs


class _TinyModel(nn.Module):
    """A model with one operation."""

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Return the mean of each sample."""
        return {"logits": pixel_values.mean(1)}


def trace_tiny_model() -> ExportedProgram:
    """Trace a model with one operation. The first time, this loads what tracing needs."""
    inputs = {"pixel_values": torch.zeros(TRACED_SAMPLES, TRACED_TOKENS)}
    with torch.no_grad(), without_exporter_warnings():
        return torch.export.export(_TinyModel(), (), inputs, dynamic_shapes={"pixel_values": {0: Dim("samples")}})


def trace(model: Prunable) -> ExportedProgram:
    """Trace the graph of a model in float32 and evaluation mode.

    The batch size is free, and so are the lengths of the texts from `MIN_TEXT_TOKENS` on. The model itself is left as
    it was.
    """
    example = random_inputs(model, TRACED_SAMPLES, TRACED_TOKENS, seed=0)
    with torch.no_grad(), without_exporter_warnings(), _exportable(model) as exportable:
        return torch.export.export(exportable, (), example, dynamic_shapes=_dynamic_shapes(model, example))


def _dynamic_shapes(model: Prunable, example: dict[str, Tensor]) -> dict[str, dict[int, Any]]:
    """Return the free sizes of each input by axis, as torch.export expects them."""
    samples = Dim("images" if model.ALL_PAIRS else "samples")
    texts = Dim("texts") if model.ALL_PAIRS else samples
    dynamic: dict[str, dict[int, Any]] = {"pixel_values": {0: samples}}
    for size_name, inputs in TEXT_INPUTS.items():
        tokens = Dim(size_name, min=MIN_TEXT_TOKENS, max=model.config.text_config.max_position_embeddings)
        dynamic |= {name: {0: texts, 1: tokens} for name in inputs if name in example}
    return dynamic


def input_and_output_shapes(program: ExportedProgram) -> tuple[Shapes, Shapes]:
    """Return the shapes of the inputs and of the outputs; a size that only a run shows is "?"."""
    names, signature = size_names(program), program.graph_signature
    nodes = {node.name: node for node in program.graph.nodes}

    def shape(node: str) -> list[int | str]:
        return [size if isinstance(size, int) else names.get(str(size), "?") for size in nodes[node].meta["val"].shape]

    inputs = {name: shape(name) for name in signature.user_inputs}
    outputs = zip(output_names(program), signature.user_outputs, strict=True)
    return inputs, {name: shape(node) for name, node in outputs}


def size_names(program: ExportedProgram) -> dict[str, str]:
    """Return the names of the symbols that torch uses for free sizes: {"s43": "samples", "s53": "tokens"}."""
    nodes = {node.name: node for node in program.graph.nodes}
    sizes = {name: nodes[name].meta["val"].shape for name in program.graph_signature.user_inputs}
    names = {str(sizes["pixel_values"][0]): "images"}
    if "input_ids" in sizes:
        names |= {str(sizes["input_ids"][0]): "texts"}
    if len(names) == 1:
        names = dict.fromkeys(names, "samples")
    tokens = {str(sizes[ids][1]): size_name for size_name, (ids, _) in TEXT_INPUTS.items() if ids in sizes}
    return names | tokens


def output_names(program: ExportedProgram) -> list[str]:
    """Return the names of the outputs, in the order of the graph."""
    spec = program.call_spec.out_spec
    numbered = torch.utils._pytree.tree_unflatten(range(spec.num_leaves), spec)
    return sorted(numbered, key=numbered.__getitem__)


@contextlib.contextmanager
def _exportable(model: Prunable) -> Iterator[ExportableModel]:
    """Run the model on padded tokens and with a folded dictionary until the block ends."""
    dictionary, trainable = model.madtp, [value for value in model.parameters() if value.requires_grad]
    if dictionary is not None:
        model.madtp = cast(AlignmentDictionary, FoldedDictionary(model))
    model.padded = True
    try:
        yield ExportableModel(model.requires_grad_(False)).eval()
    finally:
        model.madtp, model.padded = dictionary, False
        for value in trainable:
            value.requires_grad_(True)


@contextlib.contextmanager
def without_exporter_warnings() -> Iterator[None]:
    """Hide the warnings of torch's exporters, which are about torch and not about the model."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

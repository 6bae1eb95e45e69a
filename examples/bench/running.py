"""Full-size models with random weights, batches of scenes for them, and every way in which a batch is run."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPModel

from examples.bench import counts
from examples.pretrain import draw_weights
from madtp_cli import models, tasks
from madtp_cli.checkpoint import processors
from madtp_cli.checkpoint.formats import resize_positions
from madtp_cli.evaluation import run, sample_costs
from madtp_cli.evaluation.run import Batch, ComputeConfig
from madtp_cli.execution.block_pruner import PruningSettings
from madtp_cli.execution.packed import Packed, pack
from madtp_cli.flops.counts import TokenCounts
from madtp_cli.models.prunable import Prunable
from madtp_cli.scenes import splits

#: Folders of the examples' tokenizers by family. A sentence has about as many tokens as with a full vocabulary.
TOKENIZERS = {"blip": "tokenizer", "clip": "clip-tokenizer"}
#: Standard deviation of random image embeddings. transformers' default for BLIP is 1e-10, which makes all tokens equal.
EMBEDDING_STD = 0.02
#: A knob above 0, so that everything is scored; what stays is imposed.
SCORED = 1.0


@dataclass(frozen=True)
class Variant:
    """A way to run a model: "dense", "stock", or with the prunable tokens that are to be left, see `counts`.

    It is called as the model is, so that `madtp_cli.timing` times it as it times models. Each call takes the next of
    `lefts`, and the first again after the last: no two batches of a user's data keep the same numbers of tokens.
    """

    model: Prunable
    name: str
    budget: float = 1.0
    lefts: Sequence[np.ndarray] = ()
    _calls: Iterator[int] = field(default_factory=itertools.count)

    def __str__(self) -> str:
        return f"{self.name} {self.budget:g}"

    def __call__(self, **batch: Tensor) -> Any:
        """The model's output for a batch, or transformers'."""
        run.set_threshold_scale(self.model, SCORED if self.lefts else 0.0)
        if self.lefts:
            with counts.imposed(self.model, self.lefts[next(self._calls) % len(self.lefts)]):
                return self.model(**batch)
        if self.name == "stock":
            with stock(self.model) as model:
                return model(**batch)
        return self.model(**batch)

    def parameters(self) -> Iterator[Tensor]:
        return self.model.parameters()

    def buffers(self) -> Iterator[Tensor]:
        return self.model.buffers()


def drawn(architecture: str, layers: int | None = None) -> Prunable:
    """A published architecture with random weights and a dictionary; where told, the first few layers of each tower."""
    config: Any = models.architectures()[architecture]()
    config.text_config.update(processors.special_ids(config, _tokenizer(config)))
    for tower in (config.vision_config, config.text_config):
        tower.num_hidden_layers = min(layers or tower.num_hidden_layers, tower.num_hidden_layers)
    config.vision_config.initializer_range = EMBEDDING_STD
    torch.manual_seed(0)
    model: Prunable = models.get(models.kind_of(config))(config).eval()
    draw_weights(model)
    model.attach(PruningSettings.preset("madtp", model.widths, model.blocks))
    return model.requires_grad_(False)


def resized(model: Any, image_size: int) -> None:
    """Give a BLIP another image size, in place; its position embeddings are resized."""
    vision, embeddings = model.config.vision_config, model.vision_model.embeddings
    new = resize_positions(embeddings.position_embedding.data, image_size, vision.patch_size)
    embeddings.position_embedding = nn.Parameter(new.to(embeddings.position_embedding.dtype), requires_grad=False)
    vision.image_size = image_size


def _tokenizer(config: Any) -> Any:
    family = models.family_of(config)
    return family.tokenizer.read(Path(__file__).parent.parent / TOKENIZERS[family.name])


def batch_of(model: Prunable, samples: int, text_tokens: int | None = None) -> Batch:
    """Scenes, drawn up to the model's image size by its own processor, and what is said of them, or so many words."""
    config = model.config
    prepare = processors.build(config, _tokenizer(config))
    rows = splits.rows(config.task, "val", samples)
    batch = run.inputs_of(tasks.get(config.task).collate(list(rows), prepare))
    batch.pop("labels", None)
    if text_tokens is not None:
        words = model.dummy_inputs(text_tokens)["input_ids"].expand(samples, -1).contiguous()
        batch |= {"input_ids": words, "attention_mask": torch.ones_like(words)}
    return batch


def traced(model: Prunable, batch: Batch, compute: ComputeConfig) -> dict[str, TokenCounts]:
    """Token counts of a dense run."""
    with torch.inference_mode(), compute.precision():
        return sample_costs.counts_of(model, Variant(model, "dense")(**batch).trace)


@contextlib.contextmanager
def stock(model: Any) -> Iterator[Callable[..., Any]]:
    """Yield transformers' own execution with the same weights."""
    with STOCK[models.family_of(model.config).name](model) as run_stock:
        yield run_stock


@contextlib.contextmanager
def _stock_clip(model: Any) -> Iterator[Callable[..., Any]]:
    """Yield a CLIPModel."""
    with torch.device("meta"):
        twin = CLIPModel(model.config).eval()
    for name in ("vision_model", "text_model", "visual_projection", "text_projection", "logit_scale"):
        setattr(twin, name, getattr(model, name))
    yield twin


@contextlib.contextmanager
def _stock_blip(model: Any) -> Iterator[Callable[..., Any]]:
    """Yield the model with transformers' BlipVisionModel as image tower, whose attention is eager.

    transformers has no class for NLVR2, so the text tower with its twin cross-attention is ours.
    """

    def tower(pixel_values: Tensor, pruner: Any) -> Packed:
        return pack(model.vision_model(pixel_values=pixel_values).last_hidden_state)

    with mock.patch.object(model, "encode_images", tower):
        yield model


#: transformers' execution of each family.
STOCK: dict[str, Callable[[Any], contextlib.AbstractContextManager[Callable[..., Any]]]] = {
    "blip": _stock_blip,
    "clip": _stock_clip,
}

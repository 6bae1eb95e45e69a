"""Full-size models with random weights, batches of scenes for them, and the ways to run a batch."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPModel

from examples.bench import token_plans
from examples.training.checkpoints import draw_weights
from madtp_cli import models, tasks
from madtp_cli.checkpoint import processors
from madtp_cli.checkpoint.position_embeddings import resize_positions
from madtp_cli.evaluation import run, sample_costs
from madtp_cli.evaluation.compute import Batch, ComputeConfig, inputs_of
from madtp_cli.execution.packed import Packed, pack
from madtp_cli.execution.pruning_settings import PruningSettings
from madtp_cli.flops.counts import TokenCounts
from madtp_cli.methods import IMAGES
from madtp_cli.models.prunable import Prunable
from madtp_cli.scenes import splits

#: Tokenizers of the examples. A statement has about as many tokens as with the published vocabulary.
TOKENIZERS = {"blip": "tokenizer", "clip": "clip-tokenizer"}
#: Standard deviation of random image embeddings. With transformers' default for BLIP, 1e-10, all tokens would be equal.
EMBEDDING_STD = 0.02
#: A threshold scale above 0, so that tokens are scored. Which tokens are kept is decided by the plan.
SCORING_SCALE = 1.0


@dataclass(frozen=True)
class Variant:
    """A way to run a model: "dense", "stock", or pruned with the tokens of a plan, see `token_plans`.

    A variant is called like the model, so that `madtp_cli.evaluation.timing` can time it. Each call uses the next
    plan of `plans`, and the first one again after the last one, because no two batches of real data keep the same
    numbers of tokens.
    """

    model: Prunable
    name: str
    budget: float = 1.0
    plans: Sequence[np.ndarray] = ()
    _calls: Iterator[int] = field(default_factory=itertools.count)

    def __str__(self) -> str:
        return f"{self.name} {self.budget:g}"

    def __call__(self, **batch: Tensor) -> Any:
        """Return the output of the model, or of transformers' model, for a batch."""
        run.set_threshold_scale(self.model, SCORING_SCALE if self.plans else 0.0)
        if self.plans:
            with token_plans.follow_plan(self.model, self.plans[next(self._calls) % len(self.plans)]):
                return self.model(**batch)
        if self.name == "stock":
            with stock_model(self.model) as model:
                return model(**batch)
        return self.model(**batch)

    def parameters(self) -> Iterator[Tensor]:
        """Yield the parameters of the model, like `nn.Module.parameters`."""
        return self.model.parameters()

    def buffers(self) -> Iterator[Tensor]:
        """Yield the buffers of the model, like `nn.Module.buffers`."""
        return self.model.buffers()


def variants(
    model: Prunable, dense: dict[str, TokenCounts], shares: dict[float, np.ndarray], batches: int, *, compare: bool
) -> list[Variant]:
    """Return the dense variant and one pruned variant per budget.

    Args:
        model: Model with a dictionary.
        dense: Token counts of the dense forward pass.
        shares: By budget, from `token_plans.example_shares`.
        batches: Number of plans; all variants of a budget use them in the same order.
        compare: Also return stock, and for each budget padded and uniform token counts.
    """
    result = [Variant(model, "dense"), *([Variant(model, "stock")] if compare else [])]
    for budget, curves in shares.items():
        plans = token_plans.plans(model, dense, curves, budget, batches)
        result.append(Variant(model, "pruned", budget, plans))
        if compare:
            result.append(Variant(model, "padded", budget, [token_plans.padded_plan(left) for left in plans]))
            result.append(Variant(model, "uniform", budget, [token_plans.uniform_plan(left) for left in plans]))
    return result


def build_model(architecture: str, layers: int | None = None) -> Prunable:
    """Build a published architecture with random weights and a dictionary. Texts are not pruned: a plan is of images.

    Args:
        architecture: A name of `models.architectures()`.
        layers: Keep only this many layers of each tower; all layers if None.
    """
    config: Any = models.architectures()[architecture]()
    config.text_config.update(processors.special_ids(config, _tokenizer(config)))
    for tower in (config.vision_config, config.text_config):
        tower.num_hidden_layers = min(layers or tower.num_hidden_layers, tower.num_hidden_layers)
    config.vision_config.initializer_range = EMBEDDING_STD
    torch.manual_seed(0)
    model: Prunable = models.get(models.kind_of(config))(config).eval()
    draw_weights(model)
    preset = PruningSettings.preset("madtp", model.widths, model.blocks)
    images = {IMAGES: preset.scales[IMAGES]}
    model.attach(replace(preset, scales={tower: [0.0] * number for tower, number in model.blocks.items()} | images))
    return model.requires_grad_(False)


def resize_images(model: Any, image_size: int) -> None:
    """Change the image size of a BLIP in place; the position embeddings are interpolated."""
    vision, embeddings = model.config.vision_config, model.vision_model.embeddings
    new = resize_positions(embeddings.position_embedding.data, image_size, vision.patch_size)
    embeddings.position_embedding = nn.Parameter(new.to(embeddings.position_embedding.dtype), requires_grad=False)
    vision.image_size = image_size


def _tokenizer(config: Any) -> Any:
    family = models.family_of(config)
    return family.tokenizer.read(Path(__file__).parent.parent / TOKENIZERS[family.name])


def scene_batch(model: Prunable, samples: int, text_tokens: int | None = None) -> Batch:
    """Return a batch of validation scenes at the image size of the model.

    Args:
        model: The model whose processor prepares the scenes.
        samples: Size of the batch.
        text_tokens: Replace the texts by dummy texts of this length.
    """
    config = model.config
    processor = processors.build(config, _tokenizer(config))
    rows = splits.rows(config.task, "val", samples)
    batch = inputs_of(tasks.get(config.task).collate(list(rows), processor))
    batch.pop("labels", None)
    if text_tokens is not None:
        ids = model.dummy_inputs(text_tokens)["input_ids"].expand(samples, -1).contiguous()
        batch |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return batch


def dense_counts(model: Prunable, batch: Batch, compute: ComputeConfig) -> dict[str, TokenCounts]:
    """Return the token counts of a dense forward pass."""
    with torch.inference_mode(), compute.precision():
        return sample_costs.counts_of(model, Variant(model, "dense")(**batch).trace)


@contextlib.contextmanager
def stock_model(model: Any) -> Iterator[Callable[..., Any]]:
    """Provide the execution of transformers with the weights of a model."""
    with STOCK[models.family_of(model.config).name](model) as run_stock:
        yield run_stock


@contextlib.contextmanager
def _stock_clip(model: Any) -> Iterator[Callable[..., Any]]:
    """Provide a CLIPModel."""
    with torch.device("meta"):
        stock = CLIPModel(model.config).eval()
    for name in ("vision_model", "text_model", "visual_projection", "text_projection", "logit_scale"):
        setattr(stock, name, getattr(model, name))
    yield stock


@contextlib.contextmanager
def _stock_blip(model: Any) -> Iterator[Callable[..., Any]]:
    """Provide the model with BlipVisionModel, whose attention is always eager, as image tower.

    transformers has no class for NLVR2. So the text side with its two cross-attentions is ours.
    """

    def encode_images(pixel_values: Tensor, pruner: Any) -> Packed:
        return pack(model.vision_model(pixel_values=pixel_values).last_hidden_state)

    with mock.patch.object(model, "encode_images", encode_images):
        yield model


#: The execution of transformers, by the name of the family.
STOCK: dict[str, Callable[[Any], contextlib.AbstractContextManager[Callable[..., Any]]]] = {
    "blip": _stock_blip,
    "clip": _stock_clip,
}

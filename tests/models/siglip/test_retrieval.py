"""SigLIP equals transformers' own class, and its pruning, pooling and cost are right."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from transformers import SiglipConfig, SiglipModel

from madtp_cli import models
from madtp_cli.compression import distillation
from madtp_cli.evaluation import sample_costs
from madtp_cli.execution.packed import Packed, pack
from madtp_cli.flops import fvcore_check
from madtp_cli.models.siglip.retrieval import MadtpSiglipForRetrieval
from tests import drawing, siglips

Batch = dict[str, Tensor]


@pytest.fixture(scope="module")
def siglip() -> MadtpSiglipForRetrieval:
    """A dense model; tests must not change it."""
    return siglips.dense()


@pytest.fixture(scope="module")
def published(siglip: MadtpSiglipForRetrieval) -> Any:
    """transformers' own model with the same weights."""
    model = SiglipModel(SiglipConfig(vision_config=dict(siglips.VISION), text_config=dict(siglips.TEXT))).eval()
    model.load_state_dict(siglip.state_dict())
    model.set_attn_implementation("eager")
    return model


@pytest.fixture(scope="module")
def singles(captioned: list[Batch]) -> list[Batch]:
    """Images with their texts, each in a batch of its own."""
    return [siglips.padded(sample) for sample in captioned]


def forward(model: nn.Module, batch: Batch, **settings: Any) -> Any:
    """Run a model without gradients."""
    with torch.no_grad():
        return model(**batch, **settings)


def test_outputs_equal_those_of_transformers(siglip, published, singles) -> None:
    """Logits, features and loss. All parameters have values that matter."""
    batch = siglips.collate(singles)
    ours = forward(siglip, batch, labels=torch.arange(5))
    inputs = {name: batch[name] for name in ("pixel_values", "input_ids")}
    theirs = forward(published, inputs, return_loss=True)
    torch.testing.assert_close(ours.logits, theirs.logits_per_image, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.image_embeds, theirs.image_embeds, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.text_embeds, theirs.text_embeds, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.loss, theirs.loss)
    features = forward(siglip.get_image_features, {"pixel_values": batch["pixel_values"]}).pooler_output
    torch.testing.assert_close(features, theirs.vision_model_output.pooler_output, rtol=0, atol=1e-5)


def test_the_mask_is_not_used(siglip, singles) -> None:
    """SigLIP was trained to read padding, and transformers' tokenizer returns a mask all the same."""
    batch = siglips.collate(singles)
    masked = {**batch, "attention_mask": (batch["input_ids"] != 1).long()}
    assert torch.equal(forward(siglip, masked).logits, forward(siglip, batch).logits)


def test_the_formula_equals_fvcore_on_transformers_own_model(siglip, published, singles) -> None:
    """The dense cost is that of the model that people run today."""

    class ByPosition(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = published

        def forward(self, pixel_values: Tensor, input_ids: Tensor) -> Tensor:
            return self.model(pixel_values=pixel_values, input_ids=input_ids).logits_per_image

    analysis = FlopCountAnalysis(ByPosition(), (singles[0]["pixel_values"], singles[0]["input_ids"]))
    analysis.set_op_handle("aten::_convolution_mode", fvcore_check._convolution_flops)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    counts = sample_costs.dense_counts(siglip.config, {"text": [16]})
    assert sample_costs.per_sample(siglip.config, counts).tolist() == [analysis.total()]


@pytest.mark.parametrize(
    ("method", "scale"),
    [
        ("madtp", 1.0),
        ("madtp-paper", 1e9),
    ],
)
def test_pruned_models(siglip, singles, method, scale) -> None:
    """The formula equals fvcore, padded tokens give the same result, and no sample depends on its batch."""
    model, batch = drawing.attached(siglip, scale, method=method), siglips.collate(singles)
    alone = [forward(model, sample) for sample in singles]
    counts = sample_costs.counts_of(model, alone[1].trace)
    formula = sample_costs.per_sample(model.config, counts).tolist()
    assert formula == [fvcore_check.count_with_fvcore(model, singles[1])]
    together = forward(model, batch)
    diagonal = torch.stack([output.logits[0, 0] for output in alone])
    torch.testing.assert_close(together.logits.diagonal(), diagonal, rtol=0, atol=1e-5)
    assert min(together.trace["vision"][-1].left) < 36
    model.padded = True
    torch.testing.assert_close(forward(model, batch).logits, together.logits, rtol=0, atol=1e-5)


def test_merged_tokens_are_pooled_in_proportion_to_their_size(siglip) -> None:
    """A token that stands for three equal tokens counts as these three."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(5, 48, generator=generator)
    sizes = torch.tensor([1.0, 3.0, 1.0, 2.0, 1.0])
    repeated = pack(rows.repeat_interleave(sizes.long(), 0)[None])
    merged = Packed(rows, [5], sizes=sizes)
    with torch.no_grad():
        torch.testing.assert_close(siglip.pool(merged), siglip.pool(repeated), rtol=0, atol=1e-5)
        assert not torch.allclose(siglip.pool(replace(merged, sizes=None)), siglip.pool(repeated), atol=1e-3)


def test_the_importance_has_the_attention_of_the_probe(siglip, published) -> None:
    """At the end of the tower it is the attention weights of transformers' pooling, averaged over the heads."""
    tokens = pack(torch.randn(2, 7, 48, generator=torch.Generator().manual_seed(1)))
    head, normed = published.vision_model.head, siglip.vision_model.post_layernorm(tokens.data).unflatten(0, (2, 7))
    with torch.no_grad():
        _, expected = head.attention(head.probe.repeat(2, 1, 1), normed, normed)
        found = siglip._attention_of_pooling(tokens, siglip._folded_probe())
    torch.testing.assert_close(found.unflatten(0, (2, 7))[..., 0], expected[:, 0], rtol=0, atol=1e-6)


def test_distillation_and_gradients(siglip, singles) -> None:
    """Every weight that is used learns, and the teacher's own targets cost nothing."""
    batch = siglips.collate(singles)
    teacher = forward(siglip, batch, return_targets=True).targets
    model = drawing.attached(siglip, 1.0, scales={"text": [0.0] * 4}).train()
    losses = distillation.step_losses(model(**batch, labels=torch.arange(5)), teacher)
    assert losses.keys() == {"state", "embedding", "tokens", "words", "contrast", "task", "alignment"}
    torch.stack(list(losses.values())).sum().backward()
    unused = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum()]
    assert unused == []
    own = distillation.step_losses(forward(copy.deepcopy(siglip), batch, return_targets=True), teacher)
    assert all(abs(float(loss)) < 1e-5 for loss in own.values())


@pytest.mark.parametrize(
    ("name", "millions"),
    [("siglip-base-224", 203.16), ("siglip2-base-224", 375.19), ("siglip-so400m-384", 877.96)],
)
def test_published_architectures_have_the_published_size(name, millions) -> None:
    """As OpenCLIP lists them, in millions of parameters."""
    config = models.architectures()[name]()
    with torch.device("meta"):
        model = models.get(models.kind_of(config))(config)
    assert round(sum(value.numel() for value in model.parameters()) / 1e6, 2) == millions

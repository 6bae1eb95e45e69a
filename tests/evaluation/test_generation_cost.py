"""The generation cost: the formula equals a counter in the operators that really run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.blip.modeling_blip_text import BlipTextEmbeddings

from madtp_cli.evaluation import sample_costs
from madtp_cli.execution.text_runs import TextRun
from madtp_cli.flops.parts import NORM
from madtp_cli.models.prunable import Prunable
from tests import decoding, retrieving
from tests.drawing import attached

DENSE_MODELS = {"vqa": decoding.vqa, "caption": decoding.captioner, "retrieval": retrieving.dense}
#: Token ids of answers: [DEC] first, [SEP] last, then padding.
ANSWERS = torch.tensor([[68, 9, 2, 0, 0], [68, 11, 7, 2, 0], [68, 9, 20, 21, 2], [68, 30, 2, 0, 0]])
PADDING = 0
PROMPT = torch.tensor([[68, 12, 13]])


def counted(model: nn.Module, run: Callable[[], Any]) -> int:
    """Return the multiply-adds of a call: matrix products by torch's counter, which counts each twice, and layer norms.

    Padding is not counted; only its embeddings are computed.
    """
    norms: list[int] = []

    def subtract_padding(module: Any, inputs: Any, named: dict[str, Tensor], output: Tensor) -> None:
        ids = inputs[0] if inputs else named["input_ids"]
        norms.append(NORM * (int((ids != PADDING).sum()) * output.shape[-1] - output.numel()))

    hooks = [module.register_forward_hook(lambda _, __, output: norms.append(NORM * output.numel()))
             for module in model.modules() if isinstance(module, nn.LayerNorm)]  # fmt: skip
    hooks += [module.register_forward_hook(subtract_padding, with_kwargs=True)
              for module in model.modules() if isinstance(module, BlipTextEmbeddings)]  # fmt: skip
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    return counter.get_total_flops() // 2 + sum(norms)


def collated(task: str) -> dict[str, Tensor]:
    """Return a batch of five samples without labels."""
    if task == "retrieval":
        return retrieving.collate(retrieving.samples(), padding=PADDING)
    batch = decoding.collate(decoding.questions() if task == "vqa" else decoding.captions(), padding=PADDING)
    return {name: value for name, value in batch.items() if name != "labels"}


def ways(task: str, model: Any, output: Any, batch: dict[str, Tensor]) -> dict[str, Callable[..., Any]]:
    """Return the ways to find answers, by name; each takes a function that is called with each text run."""
    if task == "vqa":
        mask = (ANSWERS != PADDING).long()
        return {"rank": lambda on_text_run: model.rank(output.memory, ANSWERS, mask, 2, on_text_run),
                "write": lambda on_text_run: model.generate_from(output.memory, on_text_run=on_text_run)}  # fmt: skip
    if task == "caption":
        return {"write": lambda on_text_run: model.generate_from(output.memory, PROMPT, on_text_run=on_text_run),
                "one beam": lambda on_text_run: model.generate_from(output.memory, PROMPT, on_text_run=on_text_run,
                                                            num_beams=1)}  # fmt: skip
    with torch.no_grad():
        _, images = model.embed_images(batch["pixel_values"])
    ids, mask = (torch.cat([batch[name], batch[name][:2]]) for name in ("input_ids", "attention_mask"))
    texts = [2, 1, 1, 2, 1]
    return {"match": lambda on_text_run: model.match(images, ids, mask, texts, on_text_run),
            "match one": lambda on_text_run: model.match(images, ids[:5], mask[:5],
                                                         on_text_run=on_text_run)}  # fmt: skip


def pairs() -> list[tuple[str, str]]:
    """Return each task with each of its ways."""
    return [("vqa", "rank"), ("vqa", "write"), ("caption", "write"), ("caption", "one beam"), ("retrieval", "match"),
            ("retrieval", "match one")]  # fmt: skip


def prepared(task: str, settings: dict[str, Any] | None) -> tuple[Any, Any, dict[str, Tensor]]:
    """Return a model that computes nothing on padding, the output of its forward pass, and the batch."""
    model: Any = DENSE_MODELS[task]()
    if settings is not None:
        model = attached(model, **settings)
    model.backend, batch = "loop", collated(task)
    if task != "retrieval":
        model.generation_config.max_length = PROMPT.shape[1] + 4
    with torch.no_grad():
        return model, model(**batch), batch


def measured(
    task: str, way: str, settings: dict[str, Any] | None
) -> tuple[sample_costs.GenerationCost, int, list[TextRun]]:
    """Return the generation cost by the formula, the counted multiply-adds, and the text runs."""
    model, output, batch = prepared(task, settings)
    cost, runs = sample_costs.GenerationCost(model.config), []
    record = cost.recorder(sample_costs.counts_of(model, output.trace))

    def both(text_run: TextRun) -> None:
        runs.append(text_run)
        record(text_run)

    run = ways(task, model, output, batch)[way]
    return cost, counted(model, lambda: run(both)), runs


@pytest.mark.parametrize(
    "settings", [None, {"threshold_scale": 0.5}, {"threshold_scale": 3.0, "method": "madtp-paper"}]
)
@pytest.mark.parametrize(("task", "way"), pairs())
def test_the_formula_equals_the_count_of_the_operators(task, way, settings) -> None:
    """It is exact for each step of beam search, for keys computed once per image, and for pruned texts."""
    cost, products, _ = measured(task, way, settings)
    assert cost.total == products > 0
    assert (cost.dense == cost.total) == (settings is None)


@pytest.mark.parametrize(("task", "way"), pairs())
def test_the_dense_figure_is_the_cost_of_the_same_runs_without_pruning(task, way) -> None:
    """It is for a pruned model without a run of the dense model."""
    model, output, batch = prepared(task, {"threshold_scale": 0.5})
    cost, unpruned_cost = sample_costs.GenerationCost(model.config), sample_costs.GenerationCost(model.config)
    counts = sample_costs.counts_of(model, output.trace)
    unpruned = {tower: replace(one, left=one.entered[:1].repeat(len(one.left), 0)) for tower, one in counts.items()}
    record, record_unpruned = cost.recorder(counts), unpruned_cost.recorder(unpruned)

    def both(text_run: TextRun) -> None:
        record(text_run)
        record_unpruned(text_run.unpruned())

    with torch.no_grad():
        ways(task, model, output, batch)[way](both)
    assert cost.dense == unpruned_cost.total > cost.total


def test_each_step_of_beam_search_is_one_text_run() -> None:
    """Three beams of five samples get one token per step; keys of the image are computed in the first step only."""
    _, _, runs = measured("caption", "write", None)
    assert [run.blocks[0].entered[0] for run in runs] == [3, *[1] * (len(runs) - 1)]
    assert [run.cached for run in runs] == [0, *range(3, 2 + len(runs))]
    assert [run.new_keys for run in runs] == [True, *[False] * (len(runs) - 1)]
    assert all(list(run.texts) == [3] * 5 and run.read_out == 15 for run in runs)
    assert 2 <= len(runs) <= 4


def test_a_decoder_without_a_cache_computes_all_tokens_in_each_step() -> None:
    """A generation config may turn the cache off."""
    model, output, _ = prepared("vqa", None)
    cost = sample_costs.GenerationCost(model.config)
    record = cost.recorder(sample_costs.counts_of(model, output.trace))
    assert counted(model, lambda: model.generate_from(output.memory, on_text_run=record, use_cache=False)) == cost.total


def test_models_without_generation_have_no_such_cost(blip: Prunable, clip: Prunable) -> None:
    """NLVR2 is answered by the forward pass, and CLIP does not re-rank."""
    for model in (blip, clip):
        assert not hasattr(sample_costs.formula(model.config), "MEMORY")


def test_more_candidates_cost_more() -> None:
    """k_test limits the cost of ranking."""
    model, output, _ = prepared("vqa", None)
    costs = []
    for most in (1, 2, 4):
        cost = sample_costs.GenerationCost(model.config)
        with torch.no_grad():
            record = cost.recorder(sample_costs.counts_of(model, output.trace))
            model.rank(output.memory, ANSWERS, (ANSWERS != PADDING).long(), most, record)
        costs.append(cost.total)
    assert costs[0] < costs[1] < costs[2]

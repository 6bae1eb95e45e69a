"""What finding answers costs beside the forward: the formula against counters in the operators that really run."""

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
#: Of three lengths, the first tokens [DEC], the last [SEP].
ANSWERS = torch.tensor([[68, 9, 2, 0, 0], [68, 11, 7, 2, 0], [68, 9, 20, 21, 2], [68, 30, 2, 0, 0]])
PADDING = 0
PROMPT = torch.tensor([[68, 12, 13]])


def counted(model: nn.Module, run: Callable[[], Any]) -> int:
    """Multiply-adds of what runs: torch's counter of products, which takes each for two, and the layer norms'.

    Padding, of which nothing but the embeddings is computed, is no part of anyone's cost.
    """
    norms: list[int] = []

    def embedded(module: Any, given: Any, named: dict[str, Tensor], found: Tensor) -> None:
        ids = given[0] if given else named["input_ids"]
        norms.append(NORM * (int((ids != PADDING).sum()) * found.shape[-1] - found.numel()))

    hooks = [module.register_forward_hook(lambda _, __, normed: norms.append(NORM * normed.numel()))
             for module in model.modules() if isinstance(module, nn.LayerNorm)]  # fmt: skip
    hooks += [module.register_forward_hook(embedded, with_kwargs=True)
              for module in model.modules() if isinstance(module, BlipTextEmbeddings)]  # fmt: skip
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    return counter.get_total_flops() // 2 + sum(norms)


def collated(task: str) -> dict[str, Tensor]:
    """Five samples without labels."""
    if task == "retrieval":
        return retrieving.collate(retrieving.samples(), padding=PADDING)
    batch = decoding.collate(decoding.questions() if task == "vqa" else decoding.captions(), padding=PADDING)
    return {name: value for name, value in batch.items() if name != "labels"}


def searches(task: str, model: Any, output: Any, batch: dict[str, Tensor]) -> dict[str, Callable[..., Any]]:
    """The ways in which a task's answers are found; each takes who is to hear of it."""
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
            "match one": lambda on_text_run: model.match(images, ids[:5], mask[:5], None, on_text_run)}  # fmt: skip


def pairs() -> list[tuple[str, str]]:
    """Every task and its ways."""
    return [("vqa", "rank"), ("vqa", "write"), ("caption", "write"), ("caption", "one beam"), ("retrieval", "match"),
            ("retrieval", "match one")]  # fmt: skip


def prepared(task: str, settings: dict[str, Any] | None) -> tuple[Any, Any, dict[str, Tensor]]:
    """A model that spends nothing on padding, its forward's output, and the batch."""
    model: Any = DENSE_MODELS[task]()
    if settings is not None:
        model = attached(model, **settings)
    model.backend, batch = "loop", collated(task)
    if task != "retrieval":
        model.generation_config.max_length = PROMPT.shape[1] + 4
    with torch.no_grad():
        return model, model(**batch), batch


def on_text_run(
    task: str, way: str, settings: dict[str, Any] | None
) -> tuple[sample_costs.GenerationCost, int, list[TextRun]]:
    """What the formula makes of a search, what was counted in it, and its runs."""
    model, output, batch = prepared(task, settings)
    search, runs = sample_costs.GenerationCost(model.config), []
    hear = search.about(sample_costs.counts_of(model, output.trace))

    def both(read: TextRun) -> None:
        runs.append(read)
        hear(read)

    run = searches(task, model, output, batch)[way]
    return search, counted(model, lambda: run(both)), runs


@pytest.mark.parametrize(
    "settings", [None, {"threshold_scale": 0.5}, {"threshold_scale": 3.0, "method": "madtp-paper"}]
)
@pytest.mark.parametrize(("task", "way"), pairs())
def test_the_formula_is_what_the_operators_count(task, way, settings) -> None:
    """Of the real calls, to the digit: every step of beam search, keys once per image, words that are pruned."""
    search, products, _ = on_text_run(task, way, settings)
    assert search.own == products > 0
    assert (search.dense == search.own) == (settings is None)


@pytest.mark.parametrize(("task", "way"), pairs())
def test_dense_is_the_same_runs_on_all_tokens(task, way) -> None:
    """For a pruned model that is alone: what its own search would cost if nothing had been pruned."""
    model, output, batch = prepared(task, {"threshold_scale": 0.5})
    search, whole = sample_costs.GenerationCost(model.config), sample_costs.GenerationCost(model.config)
    counts = sample_costs.counts_of(model, output.trace)
    unpruned = {tower: replace(one, left=one.entered[:1].repeat(len(one.left), 0)) for tower, one in counts.items()}
    hear, compare = search.about(counts), whole.about(unpruned)

    def both(read: TextRun) -> None:
        hear(read)
        compare(read.unpruned())

    with torch.no_grad():
        searches(task, model, output, batch)[way](both)
    assert search.dense == whole.own > search.own


def test_every_step_of_a_search_is_told_once() -> None:
    """Three beams of five samples go on by one word a step; keys are made in the first alone."""
    _, _, runs = on_text_run("caption", "write", None)
    assert [run.blocks[0].entered[0] for run in runs] == [3, *[1] * (len(runs) - 1)]
    assert [run.cached for run in runs] == [0, *range(3, 2 + len(runs))]
    assert [run.new_keys for run in runs] == [True, *[False] * (len(runs) - 1)]
    assert all(list(run.texts) == [3] * 5 and run.read_out == 15 for run in runs)
    assert 2 <= len(runs) <= 4


def test_a_decoder_without_a_cache_costs_what_it_runs() -> None:
    """Somebody's generation config may say so; then every step reads all words again."""
    model, output, _ = prepared("vqa", None)
    search = sample_costs.GenerationCost(model.config)
    hear = search.about(sample_costs.counts_of(model, output.trace))
    assert counted(model, lambda: model.generate_from(output.memory, on_text_run=hear, use_cache=False)) == search.own


def test_models_that_search_nothing_have_no_such_cost(blip: Prunable, clip: Prunable) -> None:
    """NLVR2's answer is the forward's, and CLIP's similarity needs no second look."""
    for model in (blip, clip):
        assert not hasattr(sample_costs.formula(model.config), "MEMORY")


def test_more_answers_in_full_cost_more() -> None:
    """What k_test is there to hold down, in proportion to the answers' tokens."""
    model, output, _ = prepared("vqa", None)
    costs = []
    for most in (1, 2, 4):
        search = sample_costs.GenerationCost(model.config)
        with torch.no_grad():
            hear = search.about(sample_costs.counts_of(model, output.trace))
            model.rank(output.memory, ANSWERS, (ANSWERS != PADDING).long(), most, hear)
        costs.append(search.own)
    assert costs[0] < costs[1] < costs[2]

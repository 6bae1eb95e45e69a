"""The bench imposes the counts it says, its arithmetic is right, and it runs from end to end at toy size."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from examples import bench_speed
from examples.bench import counts, page, parts, running
from examples.bench.page import Case, Timed
from examples.bench.running import Variant
from madtp_cli.evaluation import run, sample_costs, timing
from madtp_cli.evaluation.run import ComputeConfig
from madtp_cli.execution import attention
from madtp_cli.models import architectures
from madtp_cli.models.clip.retrieval import MadtpClipForRetrieval
from tests import drawing

CPU = ComputeConfig(torch.device("cpu"), torch.float32)
#: Of three images, their tokens' shares after each of two blocks.
SHARES = np.array([[0.9, 0.6], [0.5, 0.4], [0.7, 0.1]])


@pytest.fixture
def model(blip) -> Any:
    """Prunes its image tower's three blocks."""
    return drawing.attached(blip, 1.0, scales={"text": [0.0] * 3})


@pytest.fixture
def batch(samples, collate) -> dict[str, torch.Tensor]:
    """Five pairs."""
    return run.inputs_of(collate(samples))


def test_every_image_keeps_as_many_tokens_as_planned(model, batch) -> None:
    """Packed, all left images come first, so counts that are laid out otherwise would go to the wrong image."""
    left = np.random.default_rng(1).integers(2, 30, (3, 5, 2))
    left = np.sort(left, 0)[::-1]
    with torch.inference_mode():
        trace = Variant(model, "pruned", 0.5, [left])(**batch).trace
    assert np.array_equal(sample_costs.counts_of(model, trace)["vision"].left, left + 1)


def test_counts_that_nobody_asked_for_are_an_error(model, batch) -> None:
    """Else a change of the rule would silently time something else than the table says."""
    with pytest.raises(RuntimeError, match="did not ask"), counts.imposed(model, np.full((3, 5, 2), 4)):
        pass


@pytest.mark.parametrize("budget", [0.6, 0.4])
def test_planned_counts_meet_the_budget_with_the_shares_spread(model, batch, budget) -> None:
    """At most the budget, one token's worth below it, and images of smaller shares keep fewer."""
    dense = running.traced(model, batch, CPU)
    left = counts.planned(model, dense, SHARES, budget)
    cost = sample_costs.per_sample(model.config, counts.with_left(model, dense, left)).mean()
    share = cost / sample_costs.per_sample(model.config, dense).mean()
    assert 0.93 * budget < share <= budget
    first = left[0].ravel()
    assert first[0] > first[2] > first[1]
    assert np.array_equal(first[:3], first[3:6])
    assert (np.diff(left, axis=0) <= 0).all()


def test_each_run_has_counts_of_its_own(model, batch) -> None:
    """Repeated, a batch would find every shape compiled; all variants of a budget must take the same ones in turn."""
    dense = running.traced(model, batch, CPU)
    pruned, padded, even = bench_speed.variants_of(model, dense, {0.6: SHARES}, 3, against_all=True)[2:]
    lefts = list(pruned.lefts)
    assert len({left.tobytes() for left in lefts}) == 3
    for other, make in ((padded, counts.padded), (even, counts.even)):
        assert all(np.array_equal(one, make(left)) for one, left in zip(other.lefts, lefts, strict=True))
    for left in [*lefts, lefts[0]]:
        with torch.inference_mode():
            trace = pruned(**batch).trace
        assert np.array_equal(sample_costs.counts_of(model, trace)["vision"].left, left + 1)


def test_a_block_that_does_not_prune_leaves_all_it_was_given(blip, batch) -> None:
    """Where every second block is scored, those between would else be planned to prune."""
    every_second = drawing.attached(blip, 1.0, scales={"text": [0.0] * 3, "vision": [1.0, 0.0, 1.0]})
    dense = running.traced(every_second, batch, CPU)
    left = counts.planned(every_second, dense, SHARES, 0.6)
    assert np.array_equal(left[0], left[1])
    with torch.inference_mode():
        trace = Variant(every_second, "pruned", 0.6, [left])(**batch).trace
    assert np.array_equal(sample_costs.counts_of(every_second, trace)["vision"].left, left + 1)


def test_shares_of_few_blocks_are_stretched_over_more() -> None:
    """Between blocks of the example, and between its input and its first block, shares fall evenly."""
    np.testing.assert_allclose(counts.deeper(np.array([[0.6, 0.2]]), 4), [[0.8, 0.6, 0.4, 0.2]])


def test_padding_executes_the_most_and_no_spread_the_mean() -> None:
    """One block, two pairs: 1, 3, 5 and 7 prunable tokens, and [CLS] with each."""
    left = np.array([[[1, 3], [5, 7]]])
    assert counts.padded(left).ravel().tolist() == [7, 7, 7, 7]
    assert counts.even(left).ravel().tolist() == [4, 4, 4, 4]
    # Nine prunable tokens enter: 10 of each image in attention, then 8 of each, or 2, 4, 6 and 8, in the feed-forward.
    assert counts.over_mean(np.full((2, 2), 9), [left]) == ((40 + 32) / (40 + 20), 32 / 20)
    both = counts.over_mean(np.full((2, 2), 9), [left, counts.even(left)])
    assert both == ((40 + 32 + 40 + 20) / (2 * (40 + 20)), (32 + 20) / (20 + 20))
    assert counts.spread(left) == [(5.0, 2, 8, 5**0.5)]


def test_the_rule_left_to_itself_is_told_at_the_budget(model, batch) -> None:
    """Beside the imposed counts it must stand at the same cost; the model is left at the knob it was told at."""
    told = counts.own_spread(model, batch, CPU, 0.6)
    found = run.counted(model, [batch], CPU)
    dense = sample_costs.per_sample(model.config, running.traced(model, batch, CPU)).mean()
    assert 0.5 < sample_costs.per_sample(model.config, found).mean() / dense <= 0.6
    assert told == counts.spread(found["vision"].left - 1)


def test_images_of_random_weights_have_unlike_tokens(monkeypatch) -> None:
    """As transformers starts BLIP's image embeddings, all tokens but [CLS] are alike and no rule can choose."""
    monkeypatch.setitem(architectures.ARCHITECTURES, bench_speed.BLIP, _toy)
    drawn: Any = running.drawn(bench_speed.BLIP)
    tokens = drawn.vision_model.embeddings(running.batch_of(drawn, 1)["pixel_values"][0])
    assert tokens[:, 1:].std(1).mean() > 0.01


def test_stock_execution_answers_as_ours_does(model, batch) -> None:
    """It would be no comparison if it ran another model."""
    with torch.inference_mode():
        ours, stock = (Variant(model, name)(**batch).logits for name in ("dense", "stock"))
        again = Variant(model, "dense")(**batch).logits
    torch.testing.assert_close(stock, ours, rtol=0, atol=1e-4)
    assert torch.equal(again, ours)


def test_a_variant_is_measured_as_a_model_is(model, batch, monkeypatch) -> None:
    """The product's own clock and memory count stand behind the bench; padded images hold more than ragged ones."""
    monkeypatch.setattr(attention, "START_COST", 0)  # small samples would be padded for attention
    left = np.stack([np.array([[30, 2]] * 5)] * 3)
    ragged, padded = Variant(model, "pruned", 0.5, [left]), Variant(model, "padded", 0.5, [counts.padded(left)])
    runs: Any = {str(variant): variant for variant in (ragged, padded)}
    assert {name: len(one) for name, one in timing.in_turns(runs, [batch], CPU, 2).items()} == dict.fromkeys(runs, 2)
    peaks = [timing.peak_memory(variant, batch, CPU) or 0 for variant in runs.values()]
    assert sum(weight.nbytes for weight in model.parameters()) < peaks[0] <= peaks[1]


def test_stock_clip_is_transformers_own(
    attached_clip: Callable[..., MadtpClipForRetrieval], captioned, collate
) -> None:
    """Its class, with our weights."""
    clip, batch = attached_clip("madtp", 0.4), run.inputs_of(collate(captioned))
    with torch.inference_mode():
        ours, stock = Variant(clip, "dense")(**batch), Variant(clip, "stock")(**batch)
    assert type(stock).__module__.startswith("transformers")
    torch.testing.assert_close(stock.logits_per_image, ours.logits, rtol=0, atol=1e-4)


def case(**fields: Any) -> Case:
    """Dense: 8 s for 4 samples at 100 GFLOPs; pruned 2 s at 20, as others tell."""
    variants = [
        Timed("dense", 1.0, [9.0, 8.0, 1.0], 100.0, 400.0),
        Timed("stock", 1.0, [12.0, 12.0, 2.0], 100.0),
        Timed("pruned", 0.2, [3.0, 2.0, 0.25], 20.0, 300.0),
        Timed("padded", 0.2, [3.0, 3.0, 1.0], 30.0),
        Timed("even", 0.2, [1.8, 1.6, 0.5], 20.0),
    ]
    usual: dict[str, Any] = dict(architecture="toy", device="cpu", dtype="float32", threads=2, samples=4)
    usual |= dict(image_size=32, text_tokens=7, timed=variants)
    usual |= dict(over_mean={"0.2": (1.5, 1.6)}, spread={"0.2": [(5.0, 2, 8, 2.2)]})
    return Case(**usual | fields)


def test_the_table_says_what_the_times_say() -> None:
    """4 times faster of 5 times fewer FLOPs is an efficiency of 0.8; 1.5 times the tokens promise 1.35."""
    (row,) = page.rows(case())
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "cpu", "float32", "4", "0.2", "2,000", "3,000", "500", "5.00x", "4.00x", "**0.80**", "6.00x",
        "1.50x (1.35x; 1.44x)", "1.00", "300 of 400 MB",
    ]  # fmt: skip
    assert page.HEAD.splitlines()[0].count("|") == row.count("|") == page.empty("cuda", "half", 1, [0.5])[0].count("|")


def test_the_page_says_how_many_runs_a_median_is_of() -> None:
    """Three runs are less to go by than five."""
    many = replace(case(dtype="bfloat16", samples=8), timed=[Timed("dense", 1.0, [2.0] * 5, 10.0)])
    assert page.runs([case(), many]) == "Runs of each variant: 3 (float32, batch 4), 5 (bfloat16, batch 8)."


def test_growth_is_told_per_batch_in_order() -> None:
    """The longer text is the later line, whatever was timed first."""
    lines = page.growth([case(grows="text", text_tokens=40), case(grows="text", text_tokens=5)])
    assert [line.split("|")[1].strip() for line in lines[3:]] == ["5", "40"]
    assert "| 8,000 | 400 | 2,000 | 300 | 0.80 |" in lines[3]


def test_a_case_that_is_there_is_not_timed_again(tmp_path) -> None:
    """A run of hours goes on where it broke off, with the same figures."""
    file = tmp_path / "deep" / "case.json"
    first = bench_speed.kept(file, case)
    assert bench_speed.kept(file, lambda: pytest.fail("timed again")) == first
    assert page.rows(first) == page.rows(case())


def test_parts_take_the_time_of_their_calls() -> None:
    """Each watched event is one tick: what a part's callee does is its own, until another part begins."""
    ticks = itertools.count()
    norm, linear = torch.nn.LayerNorm(3), torch.nn.Linear(3, 3)
    taken = parts.profiled(lambda: linear(norm(torch.ones(3))), lambda: float(next(ticks)))
    assert taken["norms"] > 0
    assert taken["projections"] > 0
    assert set(taken) == {"other", "norms", "projections"}
    assert sys.getprofile() is None


@pytest.mark.parametrize(
    ("name", "calling", "part"),
    [
        ("transformers.models.blip.modeling_blip.BlipMLP.forward", "other", "feed forward"),
        ("torch.nn.modules.linear.Linear.forward", "other", "projections"),
        ("torch.nn.modules.linear.Linear.forward", "feed forward", "feed forward"),
        ("madtp_cli.execution.attention.attend", "additions", "attention"),
        ("madtp_cli.execution.grouped_attention.attend_in_groups", "additions", "attention"),
        ("madtp_cli.execution.grouped_attention._group_statistics", "attention", "statistics"),
        ("madtp_cli.execution.statistics.sampled_attention_stats", "attention", "statistics"),
        ("madtp_cli.pruning.segments.pad", "leaders", "leaders"),
        ("madtp_cli.pruning.density_peaks.nearest_more_important", "join", "leaders"),
    ],
)
def test_functions_belong_to_the_part_they_work_for(name, calling, part) -> None:
    """A feed-forward keeps its linear layers; helpers work for whoever calls them."""
    assert parts.part_of(name, calling) == part


def test_shares_of_parts_are_of_the_dense_total() -> None:
    """A part's figure must compare across columns."""
    lines = parts.told({"dense": {"attention": 3.0, "norms": 1.0}, "scored": {"attention": 3.0, "leaders": 0.5}})
    assert "| attention | 3.0 (75.0%) | 3.0 (75.0%) |" in lines
    assert "| pruning alone | 0.0 (0.0%) | 0.5 (12.5%) |" in lines


def test_without_matplotlib_the_bench_ends_before_it_times(monkeypatch) -> None:
    """Not after hours."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit, match=r"pip install 'madtp\[bench\]'"):
        bench_speed.main(["--batch-sizes", "1"])


def _toy() -> Any:
    """BLIP for NLVR2 with three narrow layers at 48 pixels."""
    config: Any = architectures._blip(32, 3, 2, 48)
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    config.text_config.update(text | {"encoder_hidden_size": 32, "vocab_size": 200})
    config.merge_from = 2
    return config


def test_the_bench_writes_its_page_and_its_plot(monkeypatch, tmp_path, capsys) -> None:
    """From end to end: every variant, how cost grows, cells left empty for want of a GPU, and a figure."""
    monkeypatch.setitem(architectures.ARCHITECTURES, bench_speed.BLIP, _toy)
    monkeypatch.setattr(counts, "example_shares", lambda *given: SHARES)
    monkeypatch.setattr(bench_speed, "GROWTH", {"batch": (1,), "image": (48, 64), "text": (6,)})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(timing, "peak_memory", lambda *given: 3e6)  # the profiler takes longer than all else
    monkeypatch.setattr(bench_speed, "TRAIN_SAMPLES", 2)
    words = [
        "--grow",
        "--train",
        "--budgets",
        "0.5",
        "--batch-sizes",
        "2",
        "--dtypes",
        "float32",
        "bfloat16",
        "--turns",
        "1",
    ]
    bench_speed.main([*words, "--folder", str(tmp_path / "records"), "--output", str(tmp_path)])
    text = (tmp_path / "bench.md").read_text("utf-8")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    timed = [cells for cells in lines if cells[0] == "cpu"]
    assert [cells[:4] for cells in timed] == [["cpu", dtype, "2", "0.5"] for dtype in ("float32", "bfloat16")]
    assert all(all(cells) for cells in timed)
    assert [cells[2] for cells in lines if cells[0] == "cuda" and not any(cells[4:])] == ["32", "128"]
    assert "There was no GPU" in text
    assert [cells[0] for cells in lines if len(cells) == 6 and cells[0].isdigit()] == ["1", "48", "64", "6"]
    assert (tmp_path / "bench.png").stat().st_size > 10_000
    assert "medians of 1 runs" in text
    assert "Medians of 1 steps" in text
    steps = [cells for cells in lines if cells[0].startswith(("dense,", "budget 0.5,"))]
    assert [cells[0] for cells in steps[:3]] == [
        "dense, labels alone",
        "budget 0.5, the dense model asked",
        "budget 0.5, its answer kept",
    ]
    assert len(steps) == 6
    assert len(list((tmp_path / "records").iterdir())) == 9
    recorded = ["--recorded", "--folder", str(tmp_path / "records"), "--output", str(tmp_path)]
    monkeypatch.setattr(timing, "in_turns", lambda *given: pytest.fail("--recorded times nothing"))
    bench_speed.main([*words, "--batch-sizes", "2", "8", *recorded])
    assert (tmp_path / "bench.md").read_text("utf-8") == text


def test_a_page_of_no_records_is_not_written(monkeypatch, tmp_path) -> None:
    """An empty one would replace what is there."""
    monkeypatch.setitem(architectures.ARCHITECTURES, bench_speed.BLIP, _toy)
    with pytest.raises(SystemExit, match="leave out --recorded"):
        bench_speed.main(["--recorded", "--folder", str(tmp_path / "none"), "--output", str(tmp_path)])
    assert not (tmp_path / "bench.md").exists()


def test_the_parts_of_a_toy_are_told(monkeypatch, capsys) -> None:
    """Every part that the layer has takes time; pruning takes none in the dense column."""
    monkeypatch.setitem(architectures.ARCHITECTURES, bench_speed.BLIP, _toy)
    monkeypatch.setattr(counts, "example_shares", lambda *given: SHARES)
    bench_speed.main(["--parts", "--dtypes", "float32", "--turns", "1"])
    told = capsys.readouterr().out
    for part in ("projections", "attention", "statistics", "dictionary", "leaders", "join", "feed forward", "norms"):
        assert f"| {part} |" in told
    share = re.search(r"by the clock: ([\d.]+)% of a dense layer", told)
    assert share
    assert float(share[1]) > 0

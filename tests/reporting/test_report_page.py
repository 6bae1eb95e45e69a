"""The page of `madtp report`: its sections, its plots, and its size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from madtp_cli.cli.results import compress
from madtp_cli.pipelines.report_samples import choose
from madtp_cli.reporting import plots
from madtp_cli.reporting.card import CardFacts, model_card
from madtp_cli.reporting.html.report_page import Card, Gallery, report_page
from madtp_cli.reporting.parts import CurvePoint, Interval, LayerPart
from madtp_cli.reporting.plots import Run
from madtp_cli.reporting.pruned_sample import Group, ImageInput, PrunedBlock
from madtp_cli.reporting.run_parts import BudgetPoint, TrainingPoint
from madtp_cli.reporting.samples import BothGflops, BothPredictions, BothScores, SampleRecord
from tests.reporting.test_html import HOSTILE, Reader, forbidden, sample
from tests.reports import compress_report

#: What every folder with a pruned image tower has.
TOKENS = {
    "vision": [
        LayerPart(tower="vision", layer=f"layer {n}", gflops=0.1, tokens_in=5 - n, tokens_out=4 - n) for n in range(2)
    ]
}
CURVE = [CurvePoint(threshold_scale=1.0, share=0.5), CurvePoint(threshold_scale=0.5, share=0.7)]
FIELDS: dict[str, Any] = {"tokens": TOKENS, "curve": CURVE, "settings": {"gflops_budget": "0.5"}}


def records(scores: Sequence[tuple[float, float]]) -> list[SampleRecord]:
    """Samples with these scores, dense and pruned; each costs more than the one before."""
    return [
        SampleRecord(
            id=f"sample {number}",
            tokens={"vision": [[5, 3]]},
            gflops=BothGflops(dense=1.0, pruned=0.1 + 0.001 * number),
            prediction=BothPredictions(dense=1, pruned=0),
            score=BothScores(dense=dense, pruned=pruned),
        )
        for number, (dense, pruned) in enumerate(scores)
    ]


def run(name: str = "half", **fields: Any) -> Run:
    """A folder with all that the page can show."""
    steps = [TrainingPoint(step=n, loss=1 / n, gflops=0.1, threshold_scale=1.0) for n in (1, 2, 3)]
    return Run(name, compress_report(**FIELDS, training=steps, **fields), records([(1, 1), (1, 0), (0, 1)]))


def test_every_text_is_escaped_and_every_plot_has_words() -> None:
    """Names of folders, notes, metrics and data come from files."""
    hostile = run(HOSTILE, notes=[HOSTILE], data=HOSTILE, checkpoint=HOSTILE, method=HOSTILE)
    card = Card(sample(HOSTILE), "score 1 dense, 0 pruned", "bad")
    page = report_page([hostile, run()], [Gallery(HOSTILE, HOSTILE, [card])], [HOSTILE])
    reader = Reader(page)
    assert forbidden(reader) == []
    assert reader.text.count("<script>alert(1)</script>") > 10
    descriptions = [value for name, value in reader.attributes if name == "alt"]
    assert len(descriptions) == 7 + 2  # plots, and the importance of two images
    assert all(descriptions)


def test_the_page_has_what_the_data_allow() -> None:
    """A folder without records and fine-tune has fewer plots, and no samples."""
    titles = [plot.title for plot in plots.all_plots([run()])]
    assert titles == [
        "Quality against GFLOPs",
        "Quality against time",
        "Cost against threshold scale",
        "Tokens of the image tower",
        "GFLOPs of the samples",
        "Loss of the fine-tune",
        "Cost during the fine-tune",
    ]
    bare = Run("half", compress_report(**FIELDS))
    assert len(plots.all_plots([bare])) == 4
    assert len(plots.all_plots([Run("half", compress_report())])) == 2
    reader = Reader(report_page([bare], [], []))
    assert "Samples" not in reader.text
    assert "settings.gflops_budget" in reader.text


def test_other_budgets_of_a_range_are_drawn_and_listed() -> None:
    """A checkpoint for a range has its quality at several budgets, in the page, on its card and at the terminal."""
    point = BudgetPoint(
        requested=0.8, threshold_scale=0.1, gflops=0.79, share=0.79, pruned=97.75, change=-0.25,
        interval95=Interval(low=-0.6, high=0.1), pruned_interval95=None, pruned_ms=8.5,
    )  # fmt: skip
    drawn = run(budgets=[point])
    by_title = {plot.title: plot for plot in plots.all_plots([drawn])}
    assert "97.75 at 0.79" in by_title["Quality against GFLOPs"].description
    assert "97.75 at 8.5" in by_title["Quality against time"].description
    assert by_title["Quality against GFLOPs"].light != plots.all_plots([run()])[0].light
    text = Reader(report_page([drawn], [], [])).text
    assert "other budgets of the range" in text
    assert "-0.25 (-0.60 to +0.10)" in text
    card = model_card(drawn.report, CardFacts(pipeline_tag="image-classification", title="x", command="madtp"))
    assert "| 0.800 | 0.79 | 97.75 | -0.25 (-0.60 to +0.10) |" in card
    assert any(
        line.startswith("Budget 0.800, set without another training: ") for line in compress._lines(drawn.report)
    )


def test_times_of_different_machines_are_not_joined() -> None:
    """A line between them would be no trade-off; GFLOPs do not depend on the machine."""
    here = run()
    there = run("other", latency=here.report.latency.model_copy(update={"threads": 7}))
    by_title = {plot.title: plot.description for plot in plots.all_plots([here, there])}
    assert "are not joined" in by_title["Quality against time"]
    assert "are not joined" not in by_title["Quality against GFLOPs"]
    assert "are not joined" not in plots.all_plots([here, run("same")])[1].description


def test_drawing_keeps_the_settings_of_matplotlib() -> None:
    """A notebook draws in its own style afterwards; the same plot is drawn the same each time."""
    import matplotlib

    before = dict(matplotlib.rcParams)
    first, second = (plots.all_plots([run()]) for _ in range(2))
    assert dict(matplotlib.rcParams) == before
    assert first == second


def test_each_sample_is_shown_once() -> None:
    """The changed ones first; the cheapest and the dearest share what is left."""
    scores = [(1, 1)] * 6 + [(1, 0)] * 3 + [(0, 1)] + [(0, 0)] * 6
    found = {title: [record.id for record in chosen] for title, _, chosen in choose(records(scores), 12)}
    assert found == {
        "Right before, wrong now": ["sample 6", "sample 7", "sample 8"],
        "Wrong before, right now": ["sample 9"],
        "The cheapest samples": ["sample 0", "sample 1", "sample 2", "sample 3"],
        "The dearest samples": ["sample 15", "sample 14", "sample 13", "sample 12"],
    }
    assert all(not chosen for _, _, chosen in choose(records(scores), 0))


def wide_image(seed: int, side: int = 24) -> ImageInput:
    """An image of 384 pixels with `side` x `side` patches, of which six blocks keep fewer and fewer."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)).resize((384, 384))
    places = np.stack(np.divmod(np.arange(side * side), side), 1)
    blocks, order = [], rng.permutation(side * side)
    for number, count in enumerate((220, 160, 110, 80, 50, 30), 1):
        kept = order[:count]
        nearest = kept[((places[:, None] - places[None, kept]) ** 2).sum(-1).argmin(1)]
        groups = tuple(Group(int(patch), tuple(np.flatnonzero(nearest == patch).tolist())) for patch in kept)
        blocks.append(PrunedBlock(number, groups, tuple(rng.random(side * side).tolist()), count + 1))
    return ImageInput(coarse, side, side, blocks)


@pytest.mark.slow
def test_fifty_samples_with_two_images_of_384_pixels_take_less_than_five_megabytes() -> None:
    """So a page can be sent by mail. Ten of them are drawn, each the same size as the others."""
    from dataclasses import replace

    drawn = replace(sample("a cat"), images=[wide_image(1), wide_image(2)])
    one = report_page([run()], [Gallery("a", "b", [Card(drawn)])], [])
    two = report_page([run()], [Gallery("a", "b", [Card(drawn)] * 2)], [])
    assert len(one) + 49 * (len(two) - len(one)) < 5e6

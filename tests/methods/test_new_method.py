"""A new method is one file: it is found, priced, batch-invariant and exportable without being named elsewhere."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from madtp_cli import methods
from madtp_cli.evaluation import sample_costs
from madtp_cli.execution.block_pruner import PruningSettings
from madtp_cli.exporters import _checking, _tracing, torch_export
from madtp_cli.flops import fvcore_check, parts
from tests import drawing

#: The whole method.
SOURCE = '''
"""`--method scattered`: keep random tokens, merge the others into one."""

from __future__ import annotations

import numpy as np

from madtp_cli.methods import BlockInputs, Parameters, Preset, PruneDecision, Rule, TokenSizes
from madtp_cli.pruning import merging, thresholds

NEEDS = frozenset[str]()
PARAMETERS = Parameters
PRESET = Preset()
MERGED_TOKENS = 1


def keep(inputs: BlockInputs, rule: Rule) -> PruneDecision:
    """Keep tokens whose random number, drawn from their index, exceeds the threshold."""
    index = inputs.mask.long().cumsum(1)
    score = (index * 40_503 % 65_536).float() / 65_536
    threshold = rule.threshold_scale * score.new_ones(score.shape[0])
    kept = thresholds.keep_above(score, threshold, inputs.mask, rule.min_keep)
    return merging.merge_into_one(kept, score, inputs.mask)


def cost(tokens: np.ndarray, sizes: TokenSizes, parameters: Parameters) -> np.ndarray:
    """Drawing numbers needs no multiply-adds."""
    return np.zeros_like(tokens)
'''


@pytest.fixture(scope="module", autouse=True)
def _scattered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Add the method's file to the folder of methods."""
    folder: Path = tmp_path_factory.mktemp("methods")
    (folder / "scattered.py").write_text(SOURCE, encoding="utf-8")
    methods.__path__.append(str(folder))
    yield
    methods.__path__.remove(str(folder))
    sys.modules.pop("madtp_cli.methods.scattered", None)


def inputs_of(sample: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a sample without its labels."""
    return {name: value for name, value in sample.items() if name != "labels"}


def test_the_method_is_short_and_found() -> None:
    """It is named nowhere else."""
    assert SOURCE.count("\n") < 40
    assert "scattered" in methods.names()


def test_a_method_without_a_dictionary_gets_none(attached, collate, samples) -> None:
    """The model has no dictionary and still prunes; a method that needs one gets it back."""
    model = attached(0.5, method="scattered")
    assert model.madtp is None
    with torch.no_grad():
        trace = model(**collate(samples)).trace
    assert trace["vision"][-1].left[0] < 37
    model.attach(PruningSettings("madtp", 0.5, dictionary_size=5, dictionary_width=12))
    assert model.madtp is not None


def test_training_needs_no_dictionary(attached, collate, samples) -> None:
    """There is no alignment loss, and the task's loss passes gradients."""
    model = attached(0.5, method="scattered").train()
    output = model(**collate(samples))
    assert output.alignment is None
    output.loss.backward()


@pytest.mark.parametrize("threshold_scale", [0.3, 0.6, 1e9])
@pytest.mark.parametrize("number", [0, 2])
def test_it_is_priced_without_scores(attached, samples, threshold_scale: float, number: int) -> None:
    """The closed formula equals fvcore's count; what pruning itself costs is what `cost` says, here nothing."""
    model, sample = attached(threshold_scale, method="scattered"), inputs_of(samples[number])
    with torch.no_grad():
        counts = sample_costs.counts_of(model, model(**sample).trace)
    cost = sample_costs.per_sample(model.config, counts)
    assert cost.tolist() == [fvcore_check.count_with_fvcore(model, sample)]
    dense = copy.deepcopy(model.config)
    dense.madtp = None
    assert sample_costs.per_sample(dense, counts).tolist() == cost.tolist()
    assert not parts.pruning(np.array([9]), model.config.vision_config, model.config.madtp).any()


@pytest.mark.parametrize("method", methods.names())
def test_a_method_is_charged_for_its_needs(method: str, clip) -> None:
    """Two of 9 queries, the read-out one, and the dictionary, if it needs them; then comes its own cost."""
    vision = clip.config.vision_config
    width, sizes = vision.hidden_size, methods.TokenSizes(vision.hidden_size, 16, 5)
    settings = PruningSettings(method, 1.0, dictionary_size=5, parameters={"queries": 2})
    needs = settings.needs
    rows = bool(needs & {methods.CLASS_ATTENTION, methods.MEAN_CLASS_ATTENTION}) + 2 * (
        methods.RECEIVED_ATTENTION in needs
    )
    scores = rows * 10 * width + (methods.DICTIONARY in needs) * 10 * width * 5
    own = methods.get(method).cost(np.array([9]), sizes, settings.parameters)
    assert parts.pruning(np.array([10]), vision, asdict(settings)).tolist() == (scores + own).tolist()


def test_a_sample_does_not_depend_on_its_batch(attached, collate, samples) -> None:
    """Each sample alone gives what it gives in the batch."""
    model = attached(0.5, method="scattered")
    with torch.no_grad():
        together = model(**collate(samples)).logits
        alone = torch.cat([model(**sample).logits for sample in samples])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_fewer_tokens_are_left_at_a_larger_threshold_scale(attached, collate, samples) -> None:
    """So the calibration can find the scale that meets a budget."""
    left = []
    for threshold_scale in (0.1, 0.3, 0.6, 0.9):
        with torch.no_grad():
            trace = attached(threshold_scale, method="scattered")(**collate(samples)).trace
        left.append(sum(trace["vision"][-1].left))
    assert left == sorted(set(left), reverse=True)


def test_padded_tokens_give_what_packed_ones_give(attached, samples, collate) -> None:
    """The forward that exporters trace keeps the same tokens and gives the same logits."""
    model, batch = attached(0.5, method="scattered"), inputs_of(collate(samples))
    with torch.no_grad():
        packed = _tracing.named_outputs(model, model(**batch))
        model.padded = True
        padded = _tracing.named_outputs(model, model(**batch))
    assert torch.equal(packed["kept_vision"], padded["kept_vision"])
    torch.testing.assert_close(packed["logits"], padded["logits"], rtol=1e-4, atol=1e-4)


def test_it_is_exported(blip, tmp_path: Path) -> None:
    """A .pt2 file of a model with one block per tower passes the exporter's own check."""
    config: Any = copy.deepcopy(blip.config)
    config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers = 1
    config.merge_from = 0
    shallow = type(blip)(config).eval()
    drawing.draw(shallow, seed=1)
    model = drawing.attached(shallow, 0.5, method="scattered")
    torch_export.write(_tracing.trace(model), tmp_path / "model.pt2")
    check = _checking.compare_outputs(model, torch_export.runner(tmp_path / "model.pt2"))
    assert check.max_difference <= 1e-4
    assert check.kept_image_tokens is not None


def test_settings_are_saved_and_read() -> None:
    """`config.json` has the method's own parameters; defaults fill what is missing."""
    settings = PruningSettings("madtp", 0.5, parameters={"temperature": 0.3})
    assert PruningSettings(**asdict(settings)) == settings
    assert (settings.parameters.temperature, settings.parameters.queries) == (0.3, 32)
    with pytest.raises(TypeError, match="unknown"):
        PruningSettings("scattered", parameters={"unknown": 1})

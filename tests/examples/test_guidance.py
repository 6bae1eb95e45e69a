"""The text, or a prior, weights the atoms of the dictionary, and the method is as before afterwards."""

from __future__ import annotations

import pytest
import torch

from examples import guidance, mag_ablation, seeds
from madtp_cli.compression import compress_model
from madtp_cli.config import BudgetRequest
from madtp_cli.evaluation.session import Session
from madtp_cli.execution.block_pruner import BlockPruner
from madtp_cli.models.blip.nlvr2 import MadtpBlipForNLVR2
from madtp_cli.pruning import importance, mag
from tests.paths import EXAMPLES

LIMIT = 16


@pytest.fixture(scope="module")
def session() -> Session:
    """Return the example of the NLVR2 task with few samples."""
    settings = {"steps": 0, "limit": LIMIT, "gflops_budget": BudgetRequest.parse("0.3")}
    return seeds.open_session(EXAMPLES / "blip.pt", "val", settings)


def test_a_profile_has_the_share_of_each_atom_in_the_words(session: Session) -> None:
    """Padding has no share, and the weights of a text sum to one."""
    student = compress_model.prunable_student(session.model, "madtp")
    ids, mask = torch.tensor([[5, 6, 7, 0], [5, 6, 7, 9]]), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    with torch.no_grad():
        profile = guidance.word_profile(student, ids, mask)
        alone = guidance.word_profile(student, ids[:1, :3], None)
    assert torch.allclose(profile.sum(1), torch.ones(2))
    assert torch.allclose(profile[:1], alone)
    assert not torch.allclose(profile[0], profile[1])


def test_patches_get_the_weighted_attention(session: Session) -> None:
    """An image whose text weights the second atom keeps what this atom attends to; texts have no weights."""
    guided = guidance.Guidance(session, by_text=True)
    guided.weights, guided.tower = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), "vision"
    attention = torch.tensor([[0.9, 0.2], [0.1, 0.8]]).expand(4, 2, 2)
    mask = torch.ones(4, 2, dtype=torch.bool)
    expected = torch.tensor([[0.2, 0.8], [0.9, 0.1]]).repeat(2, 1)  # left images, then right images
    assert torch.allclose(guided._score(attention, mask), expected)
    guided.tower = "text"
    assert torch.allclose(guided._score(attention, mask), importance.dictionary_score(attention, mask))


def test_the_contrastive_loss_is_lower_if_each_image_is_nearest_to_its_text() -> None:
    """The same features in another order are a loss."""
    torch.manual_seed(0)
    features = torch.randn(4, 3, 8)
    matching = guidance.contrastive_loss(features, features + 0.01 * torch.randn(4, 3, 8))
    assert matching < 0.1 < guidance.contrastive_loss(features, features.flip(0))


@pytest.mark.parametrize("form", ["text", "prior", "aligned", "aligned-text", "contrastive"])
def test_each_form_gives_other_scores_and_leaves_the_method_as_it_was(
    session: Session, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The allocation, calibration and validation run with the changed score. Without training no loss is used."""
    monkeypatch.setattr(guidance, "ALIGNMENT_STEPS", 2)
    before = BlockPruner._inputs, MadtpBlipForNLVR2.forward, importance.dictionary_score, mag.alignment_loss
    kept = {}
    for name in ("default", form):
        _, change = mag_ablation.FORMS[name]
        torch.manual_seed(0)
        if change is None:
            kept[name] = kept_tokens(session)
        else:
            with change(session):
                kept[name] = kept_tokens(session)
    assert (kept[form] != kept["default"]) == (form != "contrastive")
    after = BlockPruner._inputs, MadtpBlipForNLVR2.forward, importance.dictionary_score, mag.alignment_loss
    assert after == before
    assert compress_model.prunable_student.__module__ == "madtp_cli.compression.student"


def kept_tokens(session: Session) -> list[int]:
    """Return how many tokens of some images each block keeps, with a fixed threshold scale."""
    student = compress_model.prunable_student(session.model, "madtp").eval()
    compress_model.run.set_threshold_scale(student, 0.02)
    batch = next(iter(compress_model.batching.batches(session, "val", 8)))
    with torch.no_grad():
        output = student(**{name: batch[name] for name in ("pixel_values", "input_ids", "attention_mask")})
    return [length for block in output.trace["vision"] for length in block.left]

"""Image tokens of retrieval are kept exactly, and only a limited part of them in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch

from madtp_cli.errors import OutputError
from madtp_cli.tasks._kept_tokens import TokenMemory
from madtp_cli.tasks.retrieval import Retrieval
from tests import retrieving


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("limit", [1, 10**9])
def test_tokens_keep_their_values_and_their_format(
    dtype: torch.dtype, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Matching them later must give the same score, and no file stays behind."""
    monkeypatch.setenv("MADTP_LIMIT_TOKEN_BYTES", str(limit))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    memory, tokens = TokenMemory(), torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    kept = memory.keep(tokens)
    assert (kept.dtype, torch.equal(kept, tokens), list(tmp_path.iterdir())) == (dtype, True, [])
    assert memory.used == (tokens.nbytes if limit > 1 else 0)


def test_the_memory_of_a_pass_is_free_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dense model is evaluated before the pruned one."""
    monkeypatch.setenv("MADTP_LIMIT_TOKEN_BYTES", "40")
    memory = TokenMemory()
    memory.keep(torch.zeros(10))
    memory.keep(torch.zeros(10))
    assert memory.used == 40
    memory.release()
    assert memory.used == 0


def test_a_full_disk_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the folder and the limit."""
    monkeypatch.setenv("MADTP_LIMIT_TOKEN_BYTES", "1")
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(OutputError, match=r"MADTP_LIMIT_TOKEN_BYTES(.|\n)*/nowhere(.|\n)*TMPDIR"):
        TokenMemory().keep(torch.zeros(10))


def test_scores_do_not_depend_on_where_the_tokens_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ranking of a split is the same with and without temporary files."""
    model, batch = retrieving.dense(), retrieving.collate(retrieving.samples())
    captions = {f"captions.{name}": batch[name] for name in ("input_ids", "attention_mask")}
    captions["captions.sample"] = torch.arange(len(batch["pixel_values"]))

    def ranking() -> torch.Tensor:
        with torch.inference_mode():
            predictions = Retrieval().predict(model, model(**batch), {**batch, **captions})
            return Retrieval(k_test=3).candidates(model, predictions)[0]

    in_memory = ranking()
    monkeypatch.setenv("MADTP_LIMIT_TOKEN_BYTES", "1")
    assert torch.equal(ranking(), in_memory)

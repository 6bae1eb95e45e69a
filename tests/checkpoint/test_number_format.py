"""The number format of saved weights: files stay as small as their source, and the numbers stay those measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoModel

from madtp_cli.checkpoint import number_format
from madtp_cli.checkpoint.loading import LoadedCheckpoint, load
from madtp_cli.checkpoint.save import save
from madtp_cli.errors import UsageError
from tests import decoding
from tests.tasks import words


def _dtypes(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {str(file.get_tensor(name).dtype) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounded_weights_are_read_exactly_and_computed_in_float32(
    loaded: LoadedCheckpoint, tmp_path: Path, dtype: torch.dtype
) -> None:
    """Both readers give the measured model: the file is half as large, the computation is the same."""
    assert number_format.round_weights(loaded.model, dtype)
    assert not number_format.round_weights(loaded.model, dtype), "rounding twice changes nothing"
    save(loaded.model, loaded.processor, tmp_path / "out", dtype=dtype)
    assert _dtypes(tmp_path / "out") == {str(dtype)}
    again = load(tmp_path / "out")
    assert again.stored == dtype
    for model in (again.model, AutoModel.from_pretrained(tmp_path / "out")):
        assert model.dtype == torch.float32
        state = model.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in loaded.model.state_dict().items())


def test_tied_weights_are_written_once(tmp_path: Path) -> None:
    """A caption model ties its output layer to its word embeddings; a copy of each would make the file larger."""
    model = decoding.captioner()
    for name, dtype in (("own", None), ("half", torch.float16)):
        save(model, words.processor(), tmp_path / name, dtype=dtype)
    own, half = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("own", "half"))
    size = number_format.weight_bytes(model, torch.float16)
    assert size <= half < size + 50_000
    assert half < 0.7 * own


def test_the_main_format_is_that_of_most_numbers() -> None:
    """OpenAI's archives have half-precision matrices and some tensors in float32. Exotic formats become float32."""
    half, single, double = torch.zeros(5).half(), torch.zeros(4), torch.zeros(9).double()
    assert number_format.main_format([half, single, torch.arange(20)]) == torch.float16
    assert number_format.main_format([half, single, single]) == torch.float32
    assert number_format.main_format([half, double]) == torch.float32
    assert number_format.main_format([]) == torch.float32


def test_a_weight_beyond_the_format_is_an_error() -> None:
    """It would become infinite."""
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 1e6)
    with pytest.raises(UsageError, match=r"weight has the value 1e\+06.*\n.*--save-dtype float32"):
        number_format.round_weights(model, torch.float16)
    number_format.round_weights(model, torch.bfloat16)

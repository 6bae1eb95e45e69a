"""A budget is parsed once, and a value that is not a budget is refused."""

from __future__ import annotations

import pytest

from madtp_cli.config import BudgetRequest, CompressSettings, resolve
from madtp_cli.errors import UsageError


@pytest.mark.parametrize(
    ("text", "number", "unit"),
    [
        ("0.2", 0.2, "share"),
        (" 0.2 ", 0.2, "share"),
        (".2", 0.2, "share"),
        ("20%", 0.2, "share"),
        ("20 %", 0.2, "share"),
        ("1", 1.0, "share"),
        ("100%", 1.0, "share"),
        ("2e-1", 0.2, "share"),
        ("26.5G", 26.5, "gflops"),
        ("26.5g", 26.5, "gflops"),
        ("0.9G", 0.9, "gflops"),
    ],
)
def test_a_budget_is_a_share_or_gflops(text, number, unit) -> None:
    """All forms that people write on a command line."""
    request = BudgetRequest.parse(text)
    assert (request.text, request.unit) == (text.strip(), unit)
    assert request.number == pytest.approx(number)


@pytest.mark.parametrize("value", [0.2, 1])
def test_a_number_is_a_share(value) -> None:
    """Python code gives numbers."""
    request = BudgetRequest.parse(value)
    assert (request.text, request.number, request.unit) == (str(value), value, "share")


def refusal(text: object) -> str:
    """Return the message with which a budget is refused."""
    with pytest.raises(UsageError) as caught:
        resolve({"gflops_budget": text}, None, {})
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["0", "0%", "0G", "0.0", "-1", "-20%", "abc", "nan", "inf", "1e999", "0x1", "1,5", "20%G", "G", "20 GB"],
)
def test_a_value_that_is_no_budget_is_refused_with_the_possible_forms(text) -> None:
    """The message says where the value was given and how to write a budget."""
    message = refusal(text)
    assert message.startswith("--gflops-budget: ")
    assert "Write 0.2 or 20% for a share of the dense GFLOPs, or 26.5G for GFLOPs per sample." in message


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_budget_is_refused(text) -> None:
    """An empty text is a mistake in a script."""
    assert "it is empty" in refusal(text)


@pytest.mark.parametrize("value", ["1.5", 1.5])
def test_a_bare_number_above_one_is_refused_with_both_readings(value) -> None:
    """1.5 can mean GFLOPs or percent; a wrong guess would compress to the wrong budget."""
    assert "1.5G (1.5 GFLOPs per sample) or 1.5% (0.015 of the dense GFLOPs)" in refusal(value)


def test_more_than_the_dense_model_is_refused() -> None:
    """150 % is no compression."""
    assert "150% is more than the dense model" in refusal("150%")


def test_json_has_the_text_as_it_was_written() -> None:
    """The report shows the budget as the user wrote it, and the settings can be read again."""
    settings = resolve({"gflops_budget": " 20% "}, None, {})
    assert settings.model_dump(mode="json")["gflops_budget"] == "20%"
    assert CompressSettings.model_validate_json(settings.model_dump_json()).gflops_budget == settings.gflops_budget

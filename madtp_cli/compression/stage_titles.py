"""The names of the stages of a compression. Stages that run several times have different names."""

from __future__ import annotations

ESTIMATING = "Estimating the time"
#: Of the outputs before the training, for the learning rate.
COMPARING = "Comparing with the dense model"
FINE_TUNING = "Fine-tuning"
#: The calibration between the rough one and the one on all samples.
CALIBRATING = "Calibrating the threshold scale"
#: Of the dense and of the pruned model.
EVALUATING = ("Evaluating the dense model", "Evaluating the pruned model")
MATCHING = ("Matching pairs with the dense model", "Matching pairs with the pruned model")
SAVING = "Saving"
#: For a range of budgets: before the training, and after it.
UPPER_END_ROUGHLY = "Calibrating the upper end roughly"
UPPER_END = "Calibrating the upper end"
CURVE = "Calibrating the curve"


def rough_calibration(samples: int) -> str:
    """Return the name of the calibration before any training."""
    return f"Calibrating roughly on {samples} samples"


def allocation(trial: int, trials: int) -> str:
    """Return the name of the calibration of an allocation."""
    return f"Trying allocation {trial} of {trials}"


def calibration_after(step: int) -> str:
    """Return the name of the calibration of the state after a step."""
    return f"Calibrating after step {step}"


def validation_after(step: int) -> str:
    """Return the name of the evaluation of the state after a step."""
    return f"Validating after step {step}"


def share_in_words(share: float) -> str:
    """Return the words for a budget of a range.

    >>> share_in_words(0.317)
    'at 31.7 % of the dense GFLOPs'
    """
    return f"at {100 * share:.3g} % of the dense GFLOPs"


def evaluation_at(share: float) -> tuple[str, str]:
    """Return the names of the evaluation at a budget of a range, and of the matching of pairs after it."""
    return f"Evaluating {share_in_words(share)}", f"Matching pairs {share_in_words(share)}"


def full_calibration(samples: int) -> str:
    """Return the name of the last calibration."""
    return f"Calibrating on all {samples} samples"

"""The settings that cannot change the weights."""

from __future__ import annotations

from pathlib import Path

from madtp_cli.config import CompressSettings, resolve
from madtp_cli.config.command_line import compress_command
from madtp_cli.config.effects import INPUT_PATHS, WITHOUT_EFFECT


def test_a_card_and_a_record_ignore_what_cannot_change_the_weights() -> None:
    """The card's command is for another machine; a run continues although another program records it."""
    given = {"gflops_budget": "0.2", "junit": "gates.xml", "max_drop": 1, "tracker": "wandb", "resume": True, "seed": 3}
    command = compress_command(Path("blip.pt"), resolve(given, None, {}))
    assert command == "madtp compress blip.pt --gflops-budget 0.2 --seed 3"
    assert CompressSettings.model_fields.keys() >= WITHOUT_EFFECT | INPUT_PATHS

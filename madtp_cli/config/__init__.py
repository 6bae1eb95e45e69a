"""The settings of a run and where each value comes from.

`settings` lists every setting once, `budget_request` parses a FLOPs budget, `yaml_file` reads config files, `sources`
combines command-line options, `MADTP_*` variables, a config file and the defaults, and `keywords` has the same
settings as typed keyword arguments for Python code.
"""

from __future__ import annotations

from madtp_cli.config.budget_request import BudgetRequest
from madtp_cli.config.compare_settings import CompareSettings
from madtp_cli.config.settings import DEFAULT_STEPS, CompressSettings, EvalSettings, PointSettings, RunSettings
from madtp_cli.config.sources import flag, resolve
from madtp_cli.config.yaml_file import BLIP_KEYS

__all__ = [
    "BLIP_KEYS",
    "DEFAULT_STEPS",
    "BudgetRequest",
    "CompareSettings",
    "CompressSettings",
    "EvalSettings",
    "PointSettings",
    "RunSettings",
    "flag",
    "resolve",
]

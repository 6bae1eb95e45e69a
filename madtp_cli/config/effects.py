"""The settings of a run that cannot change its weights. A record, a command line and a comparison read them here."""

from __future__ import annotations

from madtp_cli.config.gates import GateSettings

#: Paths of inputs: not the path but the content counts, which has a fingerprint.
INPUT_PATHS = frozenset({"data", "image_root", "tokenizer"})
#: How a run is done, what it writes, and its gates.
WITHOUT_EFFECT = frozenset(
    {"output", "overwrite", "resume", "save_every", "samples_out", "tracker", "workers", *GateSettings.model_fields}
)

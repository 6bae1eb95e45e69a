"""transformers folders of other models: recognised, so that they can be refused with a reason."""

from __future__ import annotations

from madtp_cli.formats import Recognised, Source, Told

NAME = "transformers folder"
OURS = "madtp_"


def recognise(source: Source, told: Told) -> Recognised | None:
    """A folder whose config.json names a model type that is not ours."""
    if source.config is None or str(source.config.get("model_type")).startswith(OURS):
        return None
    kind = source.config.get("model_type", "unknown")
    architecture = ", ".join(map(str, source.config.get("architectures") or [])) or "no architecture named"
    refusal = (
        f"a transformers folder of model type {kind} ({architecture}); this version reads BLIP for NLVR2, which "
        "transformers lacks.\nGive Salesforce's own file, such as model_base_nlvr.pth, or a folder that madtp wrote."
    )
    return Recognised(NAME, str(kind), refusal=refusal)

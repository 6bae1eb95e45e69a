"""The model card of a compressed checkpoint, with its picture."""

from __future__ import annotations

from pathlib import Path

from madtp_cli.checkpoint import source_card
from madtp_cli.compression.compress_model import CompressedModel
from madtp_cli.config import CompressSettings
from madtp_cli.config.command_line import compress_command
from madtp_cli.evaluation import batching
from madtp_cli.evaluation.pruned_samples import Viewer
from madtp_cli.evaluation.session import Session
from madtp_cli.reporting import contact_sheet
from madtp_cli.reporting.card import CardFacts, model_card
from madtp_cli.reporting.schema import CompressReport

#: Name of the picture in the folder.
PICTURE = "pruning.png"


def card_files(
    source: Path, session: Session, compressed: CompressedModel, report: CompressReport
) -> dict[str, str | bytes]:
    """Return the card and its picture by name. The picture is of the first reported sample."""
    student, teacher, settings = compressed.student, compressed.teacher, session.settings
    viewer = Viewer(student, session.processor, session.task, session.compute, teacher)
    sample = viewer.view(batching.rows(session, settings.split, 1)[0])
    facts = CardFacts(
        pipeline_tag=session.task.pipeline_tag,
        title=session.task.title,
        command=compress_command(source, settings) if isinstance(settings, CompressSettings) else "",
        example=session.task.example,
        base_model=source_card.base_model(source),
        licence=source_card.licence(source),
        picture=PICTURE,
        picture_text=contact_sheet.description(sample),
    )
    return {"README.md": model_card(report, facts), PICTURE: contact_sheet.contact_sheet(sample)}

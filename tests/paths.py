"""Where the tests find what they read."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
GOLDEN = ROOT / "tests" / "golden"
PACKAGE = ROOT / "madtp_cli"

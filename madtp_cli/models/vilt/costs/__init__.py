"""FLOPs formulas of ViLT, one file per task."""

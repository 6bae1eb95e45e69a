"""FLOPs formulas of BLIP-2, one file per task."""

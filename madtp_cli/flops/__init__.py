"""Closed FLOPs formulas on token counts, and the check that fvcore counts the same."""

"""Scores of answers, computed from texts and numbers alone: one kind of answer per file."""

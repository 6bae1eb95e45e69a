"""Layouts of data on disk, one per file; `madtp_cli.data` says what a reader offers."""

"""One module per layout of data on disk; `madtp_cli.data` describes what a reader offers."""

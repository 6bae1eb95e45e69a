"""`python -m madtp_cli` is `madtp`."""

from madtp_cli.cli import main

if __name__ == "__main__":
    main()

"""`python -m madtp_cli` is `madtp`."""

from madtp_cli.cli.app import main

if __name__ == "__main__":
    main()

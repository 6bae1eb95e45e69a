"""Run the command line with `python -m madtp_cli`."""

from madtp_cli.cli.app import main

if __name__ == "__main__":
    main()

"""One entry for all commands: `python scripts COMMAND OPTIONS` is `seg COMMAND OPTIONS`."""

from seg.cli import main

if __name__ == "__main__":
    main()

"""``python -m noumena`` is the command line, for launchers that start a module: ``torchrun -m noumena fit ...``."""

from noumena.cli.main import main

if __name__ == "__main__":
    main()

"""The command line as ``python -m septa``, also for ``torchrun -m septa``."""

from septa.cli import main

if __name__ == "__main__":
    main()

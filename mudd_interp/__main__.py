"""``python -m mudd_interp``: the command line."""

from mudd_interp.cli import main

if __name__ == "__main__":
    main()

"""`python -m rsdiff` and the command `rsdiff`: the same as run.py, with the configs of the package."""

from rsdiff.app.main import main

if __name__ == "__main__":
    main()

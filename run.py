"""Entry point of every rsdiff command: `python run.py --help` lists the groups and examples."""

from pathlib import Path

from rsdiff.app.main import main

if __name__ == "__main__":
    main(repository=Path(__file__).resolve().parent)

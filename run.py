"""Entry point of every rsdiff command: `python run.py --help` lists the groups and examples."""

from pathlib import Path

from rsdiff.__main__ import command

if __name__ == "__main__":
    command(repository=Path(__file__).resolve().parent)

"""The Hydra application: composition of settings, checks, help, launchers. The work itself is in `rsdiff.tasks`."""

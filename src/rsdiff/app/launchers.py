"""What rsdiff adds to Hydra's launchers."""


def prepare_launcher(launcher: str) -> None:
    """Let the launcher (its class), where it is submitit's for Slurm, wait for the cells by asking squeue."""
    if launcher.endswith(".SlurmLauncher"):
        from rsdiff.app import slurm_queue  # submitit is imported only for those who use it

        slurm_queue.install()

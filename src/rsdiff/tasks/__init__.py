"""What a user can ask for, one task per module."""

from rsdiff.config.kinds import Kinds

TASKS = Kinds(
    {
        "train": "rsdiff.tasks.options:TrainTask",
        "evaluate": "rsdiff.tasks.options:EvaluateTask",
        "score": "rsdiff.tasks.options:ScoreTask",
        "calibrate": "rsdiff.tasks.options:CalibrateTask",
        "downstream": "rsdiff.tasks.options:DownstreamTask",
        "restore": "rsdiff.tasks.options:RestoreTask",
        "check": "rsdiff.tasks.options:CheckTask",
        "prepare": "rsdiff.tasks.options:PrepareTask",
        "preview": "rsdiff.tasks.options:PreviewTask",
        "import": "rsdiff.tasks.options:ImportTask",
        "export": "rsdiff.tasks.options:ExportTask",
        "zoo": "rsdiff.tasks.options:ZooTask",
        "publish": "rsdiff.tasks.options:PublishTask",
        "board": "rsdiff.tasks.options:BoardTask",
        "status": "rsdiff.tasks.options:StatusTask",
        "fit-cmsr": "rsdiff.tasks.options:FitCmsrTask",
        "fit-levels": "rsdiff.tasks.options:FitLevelsTask",
        "fit-niqe": "rsdiff.tasks.options:FitNiqeTask",
    }
)
"""Config class of every task by `kind`."""

__all__ = ["TASKS"]

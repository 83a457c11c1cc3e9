"""What a user can ask for, one task per module, and the way from the command line to it."""

from rsdiff.tasks.options import (
    CheckTask,
    EvaluateTask,
    FitNiqeTask,
    ImportTask,
    PrepareTask,
    PreviewTask,
    RestoreTask,
    StatusTask,
    TablesTask,
    TrainTask,
)

TASKS: dict[str, type] = {
    "train": TrainTask,
    "evaluate": EvaluateTask,
    "restore": RestoreTask,
    "check": CheckTask,
    "prepare": PrepareTask,
    "preview": PreviewTask,
    "import": ImportTask,
    "status": StatusTask,
    "fit-niqe": FitNiqeTask,
    "tables": TablesTask,
}
"""Config class of every task by `kind`."""

__all__ = [
    "TASKS",
    "CheckTask",
    "EvaluateTask",
    "FitNiqeTask",
    "ImportTask",
    "PrepareTask",
    "PreviewTask",
    "RestoreTask",
    "StatusTask",
    "TablesTask",
    "TrainTask",
]

"""What a user can ask for, one task per module, and the way from the command line to it."""

from rsdiff.tasks.options import EvaluateTask, ImportTask, PrepareTask, PreviewTask, RestoreTask, StatusTask, TrainTask

TASKS: dict[str, type] = {
    "train": TrainTask,
    "evaluate": EvaluateTask,
    "restore": RestoreTask,
    "prepare": PrepareTask,
    "preview": PreviewTask,
    "import": ImportTask,
    "status": StatusTask,
}
"""Config class of every task by `kind`."""

__all__ = ["TASKS", "EvaluateTask", "ImportTask", "PrepareTask", "PreviewTask", "RestoreTask", "StatusTask", "TrainTask"]

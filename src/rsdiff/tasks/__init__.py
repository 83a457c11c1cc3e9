"""What a user can ask for, one task per module, and the way from the command line to it."""

from rsdiff.tasks.options import EvaluateTask, FitNiqeTask, ImportTask, PrepareTask, PreviewTask, RestoreTask, TablesTask, TrainTask

TASKS: dict[str, type] = {
    "train": TrainTask,
    "evaluate": EvaluateTask,
    "restore": RestoreTask,
    "prepare": PrepareTask,
    "preview": PreviewTask,
    "import": ImportTask,
    "tables": TablesTask,
    "fit-niqe": FitNiqeTask,
}
"""Config class of every task by `kind`."""

__all__ = ["TASKS", "EvaluateTask", "FitNiqeTask", "ImportTask", "PrepareTask", "PreviewTask", "RestoreTask", "TablesTask", "TrainTask"]

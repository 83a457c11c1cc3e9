"""Every golden case is run by the runner of its (folder, kind); a case without a runner fails."""

from . import runners
from .case import RUNNERS, Case

runners.load()


def test_equals_published(case: Case) -> None:
    run = RUNNERS.get((case.folder, case.kind))
    assert run is not None, f"no runner for folder '{case.folder}', kind '{case.kind}' (case {case.name})"
    case.check(run(case))

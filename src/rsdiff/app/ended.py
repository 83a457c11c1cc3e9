"""How errors of a run come through Hydra."""


class RunEnded(BaseException):
    """Carries the error of a run through Hydra, which would announce an Exception in its own words before passing it on."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error

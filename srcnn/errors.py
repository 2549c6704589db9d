"""What ends in one sentence on stderr instead of a traceback."""


class UserError(ValueError):
    """Something that the user can put right: one sentence that names the file or key and what to do."""

    code = 2  # of the process


class RunError(UserError):
    """A run that had to end before its time; what it had done stands."""

    code = 1


class DivergenceError(RunError):
    """A loss that is no number any more."""

    code = 3

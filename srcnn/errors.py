"""The one exception that is not our fault."""


class UserError(ValueError):
    """The user's mistake: one sentence that names the file or key, and what to do.

    Commands print it on stderr without a traceback and exit with code 2.
    """

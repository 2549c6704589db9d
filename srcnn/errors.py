"""Errors that end in one sentence on stderr instead of a traceback."""


class UserError(ValueError):
    """A mistake in settings or files: one sentence that names the file or key and the remedy.

    A constructor that refuses an argument begins with it, as "decay=2: must be between 0 and 1"; the command line puts
    the group of settings in front.
    """

    code = 2  # of the process


class RunError(UserError):
    """A run that had to end early; its checkpoints are kept."""

    code = 1


class DivergenceError(RunError):
    """A loss or weights that became NaN or infinite."""

    code = 3


def check_range(name: str, value: float, least: float, most: float = float("inf")) -> None:
    """UserError unless `value` is a number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        allowed = f"at least {least:g}" if most == float("inf") else f"between {least:g} and {most:g}"
        raise UserError(f"{name}={value}: must be a number, {allowed}")


def check_choice(name: str, value: object, choices: tuple) -> None:
    """UserError unless `value` is one of `choices`."""
    if value not in choices:
        raise UserError(f"{name}={value}: choose {', '.join(map(str, choices[:-1]))} or {choices[-1]}")

"""Errors that a user can act on. Their text is one sentence: the place, the value and what to do."""


class RunError(Exception):
    """The job cannot go on; shown without a traceback, exit code 1."""

    exit_code = 1


class UsageError(RunError):
    """The command or its settings are wrong; nothing was started, exit code 2."""

    exit_code = 2


class DamagedError(RunError):
    """A file of the run directory is damaged or gone; what it held can be made again."""


class UnscorableError(RunError):
    """Some of the rows at hand cannot be scored, others perhaps can; a row alone becomes a reject with this reason."""

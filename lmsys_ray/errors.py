"""Errors that a user can act on. Their text is one sentence: the place, the value and what to do."""


class RunError(Exception):
    """The job cannot go on; shown without a traceback, exit code 1."""

    exit_code = 1


class UsageError(RunError):
    """The command or its settings are wrong; nothing was started, exit code 2."""

    exit_code = 2

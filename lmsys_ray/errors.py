"""Errors that a user can act on. Their text is one sentence: the place, the value and what to do."""


class RunError(Exception):
    """The job cannot continue; shown without a traceback, exit code 1."""

    exit_code = 1


class UsageError(RunError):
    """The command or its settings are wrong; nothing was started, exit code 2."""

    exit_code = 2


class DamagedError(RunError):
    """A file of the run directory is damaged or missing; its content can be made again."""


class ExcludedNodeError(RunError):
    """A node does not see what the driver sees; the others can do its work."""


class DamagedManifestError(RunError):
    """A run directory's manifest is damaged or missing; it can be rebuilt from files that describe themselves."""


class ReplacedError(RunError):
    """A file was replaced since the run began; `place` is its place among the files of the input."""

    def __init__(self, text: str, place: int = 0) -> None:
        super().__init__(text, place)
        self.place = place

    def __str__(self) -> str:
        return str(self.args[0])


class UnscorableError(RunError):
    """Some of these rows cannot be scored; a single row becomes a reject with this reason."""


def first_line(error: BaseException, most: int | None = None) -> str:
    """Returns the first line of an error's text, cut to `most` characters, for a sentence that quotes it."""
    return str(error).strip().partition("\n")[0][:most]


class Stopped(BaseException):
    """SIGINT, SIGTERM or SIGHUP asked the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.exit_code = 128 + number

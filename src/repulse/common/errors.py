"""The exceptions that users are meant to read, and what the command line exits with."""


class RepulseError(Exception):
    """A mistake that the user can mend.

    The message is one line: what was wrong, and what to do. The command line prints it and exits with `exit_code`;
    anything else that is raised is a defect of this package and keeps its traceback.
    """

    exit_code = 2


class MissedBarError(RepulseError):
    """A model is less robust, or a figure less sure, than was asked for (`--fail-under`, `--fail-on`)."""

    exit_code = 3


class BrokenCertificateError(RepulseError):
    """An attack refuted what was proved."""

    exit_code = 4


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something; its type if none does."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def one_line(error: BaseException) -> str:
    """The type of an error and the first line of its message: `KeyError: 'weight'`."""
    said = first_line(error)
    return said if said == type(error).__name__ else f"{type(error).__name__}: {said}"


def with_article(value: object) -> str:
    """What kind of thing a value is, in words: 'a list', 'an OrderedDict'."""
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"

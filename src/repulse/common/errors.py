"""The one exception that users are meant to read."""


class RepulseError(Exception):
    """A mistake that the user can mend.

    The message is one line: what was wrong, and what to do. The command line prints it and exits with code 2;
    anything else that is raised is a defect of this package and keeps its traceback.
    """

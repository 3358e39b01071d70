"""The one exception a user causes."""


class InputError(ValueError):
    """Bad input. Its message is one or two sentences: what was wrong, what was expected, what to do.

    The commands print the message without a traceback and exit with 1; anything else that is raised is a bug.
    """

"""What ends a command with a sentence instead of a traceback."""


class InputError(ValueError):
    """Bad input. Its message is one or two sentences: what was wrong, what was expected, what to do.

    The commands print the message without a traceback and exit with 1; anything else that is raised is a bug.
    """


class RunError(RuntimeError):
    """A training that cannot go on: why, what is left of it, and what to do, in a sentence or two."""


class PastHydra(BaseException):
    """An error on its way through Hydra, which would print words of its own before it, or make it a warning."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def yaml_problem(error: Exception) -> str:
    """Where in a YAML file and what, on one line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    where = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return where + (problem or str(error).partition("\n")[0])

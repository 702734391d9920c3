"""The exception for errors in the user's input."""


class BadInputError(ValueError):
    """Invalid input: an unknown id, a ragged payoff, a game that an algorithm cannot play, and the like.

    The message is one line that says what is wrong and what would be right. Command-line scripts
    print it and exit with status 2.
    """

"""The one exception for input that a person can put right."""


class BadInputError(ValueError):
    """Input that cannot work: an unknown id, a ragged payoff, an impossible pair, an unwritable folder.

    The message is one line that says what is wrong and what would be right. Command-line scripts
    print it and exit with status 2.
    """

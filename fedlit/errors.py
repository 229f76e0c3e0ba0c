"""The one exception that stands for a user's mistake: the door prints its line and exits with code 2."""


class UserError(ValueError):
    """A mistake the user can mend. The message is one line: fact, value, remedy."""


class DivergenceError(ArithmeticError):
    """A client's loss or update is not finite. The message names the round, the client and the tensor."""

"""The wanted differences from Hydra, each a named test of one case. README.md explains them."""

import re

TESTS = []


def name(case, hydra, kiln):
    """The name of the difference that explains this case, if one does."""
    for title, test in TESTS:
        if test(case, hydra, kiln):
            return title
    return None


NAMES = [title for title, _ in TESTS]

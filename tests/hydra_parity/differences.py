"""The wanted differences from Hydra, each a named test of one case. README.md explains them."""

import re

from trees import same_tree

LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
# `*x: 1`, without a space before the colon.
ALIAS_KEY = re.compile(r"^ *(- +)*\*[\w-]+:(\s|$)", re.MULTILINE)
PYTHON_TAG = re.compile(r"!!(omap|pairs|binary)\b")
# What Kiln has beyond Hydra.
OWN_RESOLVERS = re.compile(r"\$\{(mul|add|sub|div|min|max|round):")


def refuses(hydra, text):
    return text in hydra.get("refused", "")


def breaks_differ(case, hydra, kiln):
    """PyYAML folds the U+0085 that it printed: one reads back as a space."""
    folded = re.sub(r"(\\N)+", lambda found: "\\n" * (len(found[0]) // 2 - 1) or " ", kiln.get("yaml", ""))
    return folded != kiln.get("yaml", "") and same_tree(hydra.get("yaml", ""), folded)


TESTS = [
    ("tabs between YAML tokens", lambda case, hydra, kiln: refuses(hydra, "found character '\\t' that cannot start any token")),
    ("half characters", lambda case, hydra, kiln: "refused" in kiln and "escape" in kiln["refused"] and LONE_SURROGATE.search("".join(case["files"].values()))),
    ("line breaks of YAML 1.1", breaks_differ),
    ("tags for what Python has", lambda case, hydra, kiln: "the tag '" in kiln.get("refused", "") and PYTHON_TAG.search("".join(case["files"].values()))),
    ("sort of quoted strings", lambda case, hydra, kiln: refuses(hydra, "between instances of 'QuotedString'")),
    ("an alias as a key", lambda case, hydra, kiln: "not valid YAML" in kiln.get("refused", "") and ALIAS_KEY.search("".join(case["files"].values()))),
    ("more resolvers", lambda case, hydra, kiln: refuses(hydra, "Unsupported interpolation type") and OWN_RESOLVERS.search(str(case))),
]


def name(case, hydra, kiln):
    """The name of the difference that explains this case, if one does."""
    return next((title for title, test in TESTS if test(case, hydra, kiln)), None)

"""When two printed configs say the same."""

import math
import re

from generate import PLACE


def comparable(text):
    """Without what each program says of itself: its help texts, its version, the second in which it
    ran, and whether a search path is written in full."""
    if text.startswith("hydra:\n"):
        text = re.sub(r"(?m)^  (hydra_)?help:\n(    .*\n|\n)*", "", text)
        text = re.sub(r"(?m)^(    version: ).*$", r"\1VERSION", text)
        text = text.replace(f"    - path: {PLACE}/", "    - path: ")
    return re.sub(r"\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d", "TIME", text)


def same(left, right):
    """Equality that tells 1 from 1.0 and true, and minds the order of keys."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        pairs = zip(left.items(), right.items())
        return len(left) == len(right) and all(same(a, c) and same(b, d) for (a, b), (c, d) in pairs)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return left == right and math.copysign(1, left) == math.copysign(1, right) or left != left and right != right
    return left == right


def same_tree(left, right):
    """Whether OmegaConf reads the same from both texts. Without it in this Python: no."""
    try:
        import yaml
        from omegaconf._utils import get_yaml_loader
    except ImportError:
        return False
    try:
        return same(*(yaml.load(comparable(text), Loader=get_yaml_loader()) for text in (left, right)))
    except (yaml.YAMLError, ValueError):
        return False


def agree(hydra, kiln):
    """`same`, `layout` (the same tree in other words), or nothing, for two answers."""
    if "refused" in hydra and "refused" in kiln:
        return "same"
    if "yaml" in hydra and "yaml" in kiln:
        if comparable(hydra["yaml"]) == comparable(kiln["yaml"]):
            return "same"
        if same_tree(hydra["yaml"], kiln["yaml"]):
            return "layout"
    return None

"""Exact match and F1 by the rule of SQuAD v1.1, written from its description, on random
answers: python tests/python/squad_metric.py > tests/fixtures/squad_metric.json

A case is [prediction, references, exact match, F1]. src/evaluate/metrics.rs compares."""

import json
import random
import re
import string
from collections import Counter

PIECES = (
    "the a an The AN Oslo oslo Rome river river's 1874 1,874 3.5 % U.S. US re-entry theatre "
    "another thean a.m. (a) \"the\" “the” l'eau Ångström straße STRASSE İzmir naïve 東京 № ½ "
    "– — ... ?! - _a_ a_b $5 the-end an\u00a0apple tab\tbed new\nline"
).split(" ")


def words(text):
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def exact(prediction, reference):
    return float(words(prediction) == words(reference))


def f1(prediction, reference):
    found, wanted = words(prediction), words(reference)
    same = sum((Counter(found) & Counter(wanted)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(found), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


def text(rng):
    blank = rng.choice([" ", " ", "  "])
    return blank.join(rng.choices(PIECES, k=rng.randrange(7)))


def variant(rng, reference):
    """An answer near a reference, so that scores between 0 and 1 are common."""
    kept = [w for w in reference.split(" ") if rng.random() < 0.8]
    if rng.random() < 0.5:
        rng.shuffle(kept)
    return " ".join(kept + rng.choices(PIECES, k=rng.randrange(2)))


def main():
    rng = random.Random(11)
    cases = []
    for _ in range(1000):
        references = [text(rng) for _ in range(rng.randrange(1, 4))]
        near = rng.random() < 0.7
        prediction = variant(rng, rng.choice(references)) if near else text(rng)
        best = [max(score(prediction, r) for r in references) for score in (exact, f1)]
        cases.append([prediction, references, *best])
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    print(f"[\n{lines}\n]")


main()

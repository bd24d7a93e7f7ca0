#!/usr/bin/env python3
"""Compares `run compose` with hydra-core 1.3.8 on random configs and command lines.

check.py RUN_BINARY [--cases N] [--seed S] [--report FILE]

Needs hydra-core==1.3.8 in the Python that runs it, unless `--replay` gives a file that
`--keep` wrote before. Prints the rate of agreement and exits with 1 where it is under
99.5 %. Every disagreement goes to the report: files, command line, both outputs. What
README.md lists as a wanted difference is recognised and counted apart.
"""

import argparse
import collections
import concurrent.futures
import difflib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import differences
from generate import ENVIRONMENT, PLACE, case, write_files
from trees import agree, comparable

HERE = os.path.dirname(os.path.abspath(__file__))
ENOUGH = 0.995
# Limits of the cases that are checked in: bytes of one and of all, and how many that Hydra refuses.
MOST_BYTES, FROZEN_BYTES, FROZEN_REFUSALS = 3_000, 700_000, 100
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
        return {"yaml": done.stdout.decode().replace(directory, PLACE)}
    answer = {"refused": done.stderr.decode().strip()}
    if done.returncode != 1 or "panicked" in answer["refused"]:
        answer["crash"] = done.returncode
    return answer


class Oracle:
    """hydra-core in a process of its own, begun when it is first asked."""

    def __init__(self):
        self.process = None

    def ask(self, case, directory, readings=False):
        if self.process is None:
            command = [sys.executable, os.path.join(HERE, "oracle.py")]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        self.process.stdin.write(json.dumps({"case": case, "directory": directory, "readings": readings}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit("the oracle ended; does this Python have hydra-core==1.3.8?")
        return json.loads(line)

    def close(self):
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()


class Found:
    """One case with both answers and what they come to."""

    def __init__(self, binary, oracle, row, directory):
        self.case = row["case"]
        write_files(self.case, directory)
        self.hydra = row.get("hydra") or oracle.ask(self.case, directory)
        self.kiln = ours(binary, self.case, directory)
        self.verdict = "differs" if "crash" in self.kiln else agree(self.hydra, self.kiln)
        self.verdict = self.verdict or differences.name(self.case, self.hydra, self.kiln) or self.reading(oracle, directory)
        shutil.rmtree(directory)

    def reading(self, oracle, directory):
        """Which accidents of Hydra make the difference; `differs` if none does."""
        for name, hydra in oracle.ask(self.case, directory, readings=True).items():
            if agree(hydra, self.kiln):
                return name
            if other := differences.name(self.case, hydra, self.kiln):
                return f"{name}, {other}"
        return "differs"


def compared(binary, rows, work):
    """Asks both sides about each case."""
    oracle = Oracle()
    found = [Found(binary, oracle, row, os.path.join(work, str(number))) for number, row in enumerate(rows)]
    oracle.close()
    return found


def in_parallel(binary, rows, jobs):
    with tempfile.TemporaryDirectory() as work, concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        tasks = []
        for job in range(jobs):
            place = os.path.join(os.path.realpath(work), str(job))
            os.mkdir(place)
            tasks.append(pool.submit(compared, binary, rows[job::jobs], place))
        parts = [task.result() for task in tasks]
    return [parts[index % jobs][index // jobs] for index in range(len(rows))]


def shown(answer):
    return answer["yaml"] if "yaml" in answer else "REFUSED: " + answer["refused"] + "\n"


def described(found):
    """One disagreement for the report."""
    case, hydra, kiln = found.case, found.hydra, found.kiln
    title = "" if found.verdict == "differs" else " (other words)"
    lines = [f"==== {case['id']}{title}  --config-name {case['config']} --cfg {case['cfg']}{' --resolve' if case['resolve'] else ''}"]
    lines += ["override: " + text for text in case["overrides"]]
    for path, text in case["files"].items():
        lines += [f"---- {path}", text.rstrip("\n")]
    if "yaml" in hydra and "yaml" in kiln:
        lines += ["---- hydra (-), kiln (+)"]
        texts = [comparable(answer["yaml"]).splitlines() for answer in (hydra, kiln)]
        lines += difflib.unified_diff(*texts, lineterm="", n=2)
    else:
        lines += ["---- hydra", shown(hydra), "---- kiln", shown(kiln)]
    return "\n".join(lines) + "\n\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", help="the built `run`")
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--report", default="target/hydra_parity.txt", help="where disagreements are written")
    parser.add_argument("--keep", help="write the cases with Hydra's answers to this file")
    parser.add_argument("--replay", help="take cases and Hydra's answers from this file")
    parser.add_argument("--freeze", help="write some of the cases that agree to this file, for tests/compose/hydra_parity.rs")
    parser.add_argument("--jobs", type=int, default=min(8, os.cpu_count() or 1))
    args = parser.parse_args()
    binary = os.path.abspath(args.binary)
    if args.replay:
        with open(args.replay, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
    else:
        rows = [{"case": case(args.seed, index)} for index in range(args.cases)]
    found = in_parallel(binary, rows, args.jobs)
    for path, lines in [(args.keep, map(kept, found)), (args.freeze, frozen(found))]:
        if path:
            with open(path, "w", encoding="utf-8") as file:
                file.writelines(lines)
    sys.exit(0 if report(found, args.report) >= ENOUGH else 1)


def kept(found):
    return json.dumps({"case": found.case, "hydra": found.hydra}) + "\n"


def frozen(all_found):
    """Small cases that need no environment and no clock; of those refused, one for each reason."""
    rows, reasons, size = [], set(), 0
    for found in all_found:
        why = found.hydra.get("refused", "")[:120]
        reason = re.sub(r"[^A-Za-z ]", "", why)[:40]
        if reason and (reason in reasons or len(reasons) == FROZEN_REFUSALS):
            continue
        row = json.dumps({"case": found.case, "hydra": {"refused": why} if why else found.hydra}) + "\n"
        tied = re.search(r"PARITY_(SET|EMPTY|NUM|LIST)|now:|/DIR", row) or found.case["cfg"] != "job"
        if found.verdict != "same" or tied or len(row) > MOST_BYTES:
            continue
        if reason:
            reasons.add(reason)
        size += len(row)
        if size > FROZEN_BYTES:
            break
        rows.append(row)
    return rows


def report(all_found, path):
    """Prints the counts, writes the disagreements, gives the rate."""
    counts = collections.Counter(found.verdict for found in all_found)
    with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
        for verdict in ("differs", "layout"):
            file.writelines(described(found) for found in all_found if found.verdict == verdict)
    refused = sum("refused" in found.hydra for found in all_found)
    agreed = counts["same"] + counts["layout"]
    rate = agreed / max(1, agreed + counts["differs"])
    print(f"{len(all_found)} cases, Hydra composes {len(all_found) - refused} and refuses {refused}")
    print(f"agreement {100 * rate:.2f} %: {counts['same']} alike, {counts['layout']} the same tree in other words, {counts['differs']} differ")
    for name, count in sorted(counts.items()):
        if name not in ("same", "layout", "differs"):
            print(f"wanted difference, {name}: {count}")
    if counts["differs"]:
        print(f"disagreements: {path}")
    return rate


if __name__ == "__main__":
    main()

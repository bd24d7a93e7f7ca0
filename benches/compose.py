#!/usr/bin/env python3
"""Composition beside Hydra: whole processes over one config tree, and the cells of a sweep.

    benches/compose.py --run target/release/run [--cells target/release/examples/sweep_cells]
                       [--python PYTHON] [--runs 20]

PYTHON has hydra-core 1.3.8 (this one by default). The tree is made in a temporary
directory: 40 files, of which a composition reads all. Both sides print it
(`run compose --config-dir TREE`, `app.py --cfg job`), in rounds that alternate them;
the outputs are compared once. Times are wall clock and user + system of the child.
The cells: a program that expands `a=range(10) b=range(10) c=range(10)` and prints the
seconds it took, beside Hydra's BasicSweeper doing the same.
"""

import argparse
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

GROUPS = ["model", "data", "optim", "schedule", "loss", "metric", "logger", "device", "trainer"]
OPTIONS = 4  # files a group; with config.yaml, the experiment and its two parts that is 40

APP = """
import hydra

@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg):
    pass

main()
"""

SPLIT = """
import sys, time
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
texts = ["a=range(10)", "b=range(10)", "c=range(10)"]
parser = OverridesParser.create()
start = time.perf_counter()
batches = BasicSweeper.split_arguments(parser.parse_overrides(texts), None)
seconds = time.perf_counter() - start
assert sum(len(batch) for batch in batches) == 1000
print(seconds)
"""


def make_tree(root):
    """Writes the tree: each option of a group includes the next one in a package of its own."""
    conf = root / "conf"
    count = 0

    def write(name, text):
        nonlocal count
        path = conf / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        count += 1

    for group in GROUPS:
        for index in range(OPTIONS):
            lines = []
            if index + 1 < OPTIONS:
                lines += ["defaults:", f"- option{index + 1}@next", "- _self_"]
            lines += [f"name: {group}_{index}", f"rate: {index + 1}e-4", "enabled: true"]
            lines += [f"layers: [{', '.join(str(n) for n in range(8))}]"]
            lines += ["nested:", "  width: 64", "  depth: ${..rate}", "  path: ${root}/data"]
            lines += [f"  value_{n}: text {n}" for n in range(8)]
            write(f"{group}/option{index}.yaml", "\n".join(lines) + "\n")
    write("parts/one.yaml", "# @package _global_\none: {a: 1, b: [1, 2]}\n")
    write("parts/two.yaml", "# @package _global_\ntwo: {a: '${one.a}', c: null}\n")
    write(
        "experiment/fast.yaml",
        "# @package _global_\ndefaults:\n- /parts/one\n- /parts/two\n- _self_\n"
        "seed: 7\noptim: {rate: 0.5}\n",
    )
    defaults = "".join(f"- {group}: option0\n" for group in GROUPS)
    write("config.yaml", f"defaults:\n{defaults}- _self_\n- experiment: fast\nroot: /tmp\nseed: 1\n")
    (root / "app.py").write_text(APP)
    (root / "split.py").write_text(SPLIT)
    return count


def timed(command, cwd):
    """Wall seconds, user + system seconds and output of one child."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, done.stdout


def measure(sides, cwd, runs):
    """Medians of (wall, cpu) a side; the sides take turns, after one round that does not count."""
    times = {name: [] for name in sides}
    outputs = {}
    for round_ in range(runs + 1):
        for name, command in sides.items():
            wall, cpu, outputs[name] = timed(command, cwd)
            if round_ > 0:
                times[name].append((wall, cpu))
    return {n: [statistics.median(t) for t in zip(*v)] for n, v in times.items()}, outputs


def row(cells):
    print("| " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, type=pathlib.Path, help="the binary, release build")
    parser.add_argument("--cells", type=pathlib.Path, help="the program that expands a sweep")
    parser.add_argument("--python", default=sys.executable, help="has hydra-core")
    parser.add_argument("--runs", type=int, default=20)
    args = parser.parse_args()
    run = args.run.absolute()
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        count = make_tree(root)
        plain = {
            "Kiln": [run, "compose", "--config-dir", "conf"],
            "Hydra": [args.python, "app.py", "--cfg", "job"],
            "floor: run --version": [run, "--version"],
            "floor: python -c pass": [args.python, "-c", "pass"],
        }
        changed = ["seed=3", "model.nested.width=128", "+new.key=[1,2]", "data=option1"]
        with_overrides = {n: plain[n] + changed for n in ("Kiln", "Hydra")}
        print(f"{count} files, medians of {args.runs} runs, load {os.getloadavg()[0]:.1f}\n")
        row(["what", "side", "wall, ms", "CPU, ms"])
        row(["---"] * 4)
        ratios = []
        for what, sides in (("the tree", plain), ("with 4 overrides", with_overrides)):
            medians, outputs = measure(sides, root, args.runs)
            if outputs["Kiln"] != outputs["Hydra"].rstrip("\n") + "\n":
                sys.exit(f"{what}: the outputs differ")
            for name, (wall, cpu) in medians.items():
                row([what, name, f"{wall * 1e3:.1f}", f"{cpu * 1e3:.1f}"])
            ours, theirs = medians["Kiln"], medians["Hydra"]
            ratios.append(f"{what}: wall {theirs[0] / ours[0]:.0f} x, CPU {theirs[1] / ours[1]:.0f} x")
        if args.cells:
            sides = {
                "Kiln": [args.cells.absolute()],
                "Hydra, BasicSweeper": [args.python, "split.py"],
            }
            seconds = {name: [] for name in sides}
            for _ in range(args.runs):
                for name, command in sides.items():
                    seconds[name].append(float(timed(command, root)[2]))
            medians = {name: statistics.median(times) for name, times in seconds.items()}
            for name, median in medians.items():
                row(["1,000 cells, in the process", name, f"{median * 1e3:.2f}", ""])
            ours, theirs = medians.values()
            ratios.append(f"1,000 cells: {theirs / ours:.0f} x")
        print("\nHydra / Kiln: " + "; ".join(ratios))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Composition, completion and sweeps beside Hydra: whole processes over one config tree.

    benches/compose.py --run target/release/run [--cells target/release/examples/sweep_cells]
                       [--python PYTHON] [--runs 20] [--sweep-runs 1]

PYTHON has hydra-core 1.3.8 (this one by default). The tree is made in a temporary
directory: 40 files, of which a composition reads all. Both sides print it
(`run compose --config-dir TREE`, `app.py --cfg job`), in rounds that alternate them;
the outputs are compared once. Times are wall clock and user + system of the child.
Completion: what a shell asks at each TAB (`-sc query=bash` with the line in COMP_LINE),
over the same tree, and for `run train`, whose keys Hydra would not know.
The cells: a program that expands `a=range(10) b=range(10) c=range(10)` and prints the
seconds it took, beside Hydra's BasicSweeper doing the same. The sweep: the whole process
`run train -m seed=range(1000) --dry-run`, which expands, composes, checks and lists 1,000
cells; beside it BasicSweeper over the same configs, which expands and composes them
(`validate_batch_is_legal`). That takes minutes: `--sweep-runs` says how often.
"""

import argparse
import os
import pathlib
import resource
import shutil
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


# Hydra's steps from `-m seed=range(1000)` to configs that are known to compose.
SWEEP = """
import os
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra._internal.callbacks import Callbacks
from hydra.types import HydraContext, RunMode
texts = ["seed=range(1000)"]
with initialize_config_dir(config_dir=os.path.abspath("job"), version_base=None):
    hydra = GlobalHydra.instance().hydra
    config = hydra.compose_config("config", texts, RunMode.MULTIRUN)
    # Only now: Hydra's search for plugins loads it anew.
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    sweeper = BasicSweeper(max_batch_size=None)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
    sweeper.setup(config=config, hydra_context=context, task_function=None)
    parsed = OverridesParser.create(hydra.config_loader).parse_overrides(texts)
    batches = BasicSweeper.split_arguments(parsed, None)
    assert sum(len(batch) for batch in batches) == 1000
    for batch in batches:
        sweeper.validate_batch_is_legal(batch)
"""

# What is typed before the TAB, after the command.
TREE_LINES = ["mod", "model=", "model.nested.val", "optim.rate=", "hydra/l"]
JOB_LINES = ["", "model=ti", "lora.", "training.scheduler=co", "lora.r=", "seed=1 hydra.sw"]

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


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
    (root / "sweep.py").write_text(SWEEP)
    # The configs of jobs, which Kiln has within; `experiments` is a group there.
    shutil.copytree(REPOSITORY / "configs", root / "job")
    shutil.copytree(REPOSITORY / "experiments", root / "job" / "experiment")
    return count


def timed(command, cwd, line=None):
    """Wall seconds, user + system seconds and output of one child; `line` is what is completed."""
    env = dict(os.environ) if line is None else {**os.environ, "COMP_LINE": line, "COMP_WORDBREAKS": " \t\n\"'@><=;|&(:"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, done.stdout


def measure(sides, cwd, runs, lines=None):
    """Medians of (wall, cpu) a side; the sides take turns, after one round that does not count."""
    lines = lines or {}
    times = {name: [] for name in sides}
    outputs = {}
    for round_ in range(runs + 1):
        for name, command in sides.items():
            wall, cpu, outputs[name] = timed(command, cwd, lines.get(name))
            if round_ > 0:
                times[name].append((wall, cpu))
    return {n: [statistics.median(t) for t in zip(*v)] for n, v in times.items()}, outputs


def row(cells):
    print("| " + " | ".join(cells) + " |", flush=True)


def complete(args, root):
    """Times completion; gives the ratios of the tree's lines."""
    ratios = []
    query = {"Kiln": [args.run.absolute(), "-sc", "query=bash"], "Hydra": [args.python, "app.py", "-sc", "query=bash"]}
    for text in TREE_LINES:
        lines = {"Kiln": f"run compose -cd conf {text}", "Hydra": f"app.py {text}"}
        medians, outputs = measure(query, root, args.runs, lines)
        if not all(outputs.values()):
            sys.exit(f"TAB after {text}: nothing is offered: {outputs}")
        for name, (wall, cpu) in medians.items():
            row([f"TAB after `{lines[name]}`", name, f"{wall * 1e3:.1f}", f"{cpu * 1e3:.1f}"])
        ratios.append(medians["Hydra"][1] / medians["Kiln"][1])
    for text in JOB_LINES:
        lines = {"Kiln": f"run train {text}"}
        medians, outputs = measure({"Kiln": query["Kiln"]}, root, args.runs, lines)
        if not all(outputs.values()):
            sys.exit(f"TAB after {text}: nothing is offered")
        wall, cpu = medians["Kiln"]
        row([f"TAB after `{lines['Kiln']}`", "Kiln", f"{wall * 1e3:.1f}", f"{cpu * 1e3:.1f}"])
    return f"TAB: CPU {min(ratios):.0f} to {max(ratios):.0f} x"


def sweep(args, root):
    """Times a sweep of 1,000 cells from the command line to configs known to be right."""
    sides = {
        "Kiln": ([args.run.absolute(), "train", "-m", "seed=range(1000)", "--dry-run"], args.runs),
        "Hydra": ([args.python, "sweep.py"], args.sweep_runs),
    }
    medians = {}
    for name, (command, runs) in sides.items():
        times = [timed(command, root)[:2] for _ in range(runs)]
        if times:
            wall, cpu = medians[name] = [statistics.median(t) for t in zip(*times)]
            row(["1,000 cells composed", name, f"{wall * 1e3:.1f}", f"{cpu * 1e3:.1f}"])
    if len(medians) < 2:
        return "1,000 cells composed: Kiln alone"
    ours, theirs = medians.values()
    return f"1,000 cells composed: wall {theirs[0] / ours[0]:.0f} x, CPU {theirs[1] / ours[1]:.0f} x"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, type=pathlib.Path, help="the binary, release build")
    parser.add_argument("--cells", type=pathlib.Path, help="the program that expands a sweep")
    parser.add_argument("--python", default=sys.executable, help="has hydra-core")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--sweep-runs", type=int, default=1, help="of Hydra's side of the sweep")
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
        ratios.append(complete(args, root))
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
                row(["1,000 cells expanded, in the process", name, f"{median * 1e3:.2f}", ""])
            ours, theirs = medians.values()
            ratios.append(f"1,000 cells expanded: {theirs / ours:.0f} x")
        ratios.append(sweep(args, root))
        print("\nHydra / Kiln: " + "; ".join(ratios))


if __name__ == "__main__":
    main()

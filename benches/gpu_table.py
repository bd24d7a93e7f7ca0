#!/usr/bin/env python3
"""The closing table of scripts/gpu.sh, from the folder of its steps' outputs.

usage: gpu_table.py table LOGS        everything, as text
       gpu_table.py doctor LOGS       what `run doctor` found in the way
       gpu_table.py ceilings LOGS     flags of `gpu kernels` for the card's measured ceilings
"""

import json
import os
import sys

GIB = 1 << 30
# Goals: tokens/s at first landing, tokens/s aimed at, floor on an H200, memory in GiB.
GOALS = {True: ("small", 6000, 11000, 16000, 6.8), False: ("fast", 9000, 15000, 24000, None)}
PEER_FACTOR = 1.5
# Runs without some of the kernels: for comparison, not towards the goals.
LESSER = ("mma", "portable")
FIRST_STEP_S = {"warm": 30, "cold": 60}
PLAN_TOLERANCE = 0.05
# Between kernels in bf16 that add up in another order: losses, gradient norms.
ALIKE = (0.005, 0.05)
WORST = 14


def lines(folder, name):
    try:
        with open(os.path.join(folder, name), errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def objects(folder, name):
    """The JSON objects that stand on lines of their own."""
    found = []
    for line in lines(folder, name):
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def document(folder, name):
    """A whole file that is one JSON object, as `plan --json` prints it."""
    try:
        return json.loads("\n".join(lines(folder, name)))
    except ValueError:
        return {}


def table(rows):
    """Columns side by side; the first flush left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        print("  " + "  ".join(cells).rstrip())


def gib(n):
    return "-" if n is None else f"{n / GIB:.2f}"


def number(value, form):
    return "-" if value is None else format(value, form)


def verdict(reached):
    return "yes" if reached else "NO"


def outcomes(logs):
    """Of each step that came to an end: seconds, and how."""
    told = (line.split("\t", 2) for line in lines(logs, "steps.tsv"))
    # What a step wrote last may break its line.
    return {parts[0]: (parts[1], parts[2]) for parts in told if len(parts) == 3}


def ended(outcome):
    """Whether a step said all it had to say; 1 is its exit code for comparisons that failed."""
    return outcome == "ok" or outcome.startswith(("left out", "failed with exit code 1:"))


def correctness(logs):
    how = outcomes(logs)
    for name in ("ops", "shapes", "training"):
        found = lines(logs, name + ".out")
        if name == "training":
            start = next((i for i, l in enumerate(found) if l.startswith("type ")), None)
            told = found[start:] if start is not None else found[-3:]
        else:
            told = [l for l in found if "comparisons" in l or "left out" in l]
            told += [l for l in found if l.startswith("FAILED")][:8]
        ran = os.path.exists(os.path.join(logs, name + ".out"))
        if ran and not ended(how.get(name, ("", "killed"))[1]):
            last = [l for l in lines(logs, name + ".err") if l.strip()][-1:] or ["nothing on stderr"]
            told.append(f"NOT ENDED, last at: {last[0][:160]}")
        for line in told or ["no result"]:
            print(f"{name}: {line.removeprefix(name + ': ')}")


def doctor(logs):
    """What keeps Kiln from the card, and what to do."""
    for p in document(logs, "doctor.out").get("problems", []):
        print(f"doctor: {p['problem']}: {p['remedy']}")


def machine(logs):
    """The card, and the compiler that Kiln found for it."""
    card = "; ".join(lines(logs, "facts.out")) or "no answer from nvidia-smi"
    if card.count(", ") == 4:
        card = ", persistence mode ".join(card.rsplit(", ", 1))
    print(f"== Kiln on one GPU: {card}")
    cuda = document(logs, "doctor.out").get("cuda", {})
    nvrtc, headers = cuda.get("nvrtc") or {}, cuda.get("headers", {})
    if cuda:
        print(f"NVRTC {nvrtc.get('version', 'missing')}, headers in {headers.get('folder', 'no folder')}: {headers.get('status')}")
    doctor(logs)


def trials(logs):
    """Which kernels in CUDA C++ the card runs."""
    found = document(logs, "verdict.json")
    for family, why in found.items():
        if family not in ("card", "driver"):
            print(f"CUDA kernels, {family}: {'passed' if why is None else 'FAILED, ' + why}")
    if not found:
        print("CUDA kernels: not checked")


def speed(kiln, peers):
    rows = [["side", "variant", "mode", "label", "tokens/s", "ms/step", "10-90 %", "first step s", "load s", "smi GiB", "ctx GiB", "held GiB", "used GiB", "loss"]]
    for r in kiln + peers:
        spread = f"{r['step_s_p10'] * 1e3:.0f}-{r['step_s_p90'] * 1e3:.0f}"
        used = r.get("peak_in_use_bytes") or r.get("peak_allocated_bytes")
        rows.append(
            [
                r["side"],
                r["variant"],
                GOALS[r["checkpointing"]][0],
                r.get("label", ""),
                f"{r['tokens_per_s']:.0f}",
                f"{r['step_s'] * 1e3:.1f}",
                spread,
                f"{r['first_step_s']:.1f}",
                f"{r['load_s']:.1f}",
                gib(r.get("smi_peak_bytes")),
                gib(r.get("context_bytes")),
                gib(r.get("peak_reserved_bytes")),
                gib(used),
                f"{r['loss_first']:.4f} {r['loss_last']:.4f}",
            ]
        )
    table(rows)


def peak_of(run):
    """The most memory of a run, and whose: the card's also counts the processes that try kernels."""
    for key, whose in (("smi_process_peak_bytes", "process"), ("smi_peak_bytes", "card"), ("peak_reserved_bytes", "allocator")):
        if run.get(key):
            return run[key], whose
    return None, "-"


def best(runs):
    return max(runs, key=lambda r: r["tokens_per_s"], default=None)


def decoding(results):
    rows = [["", "weights", "tokens/s", "first token s", "a pass ms"]]
    for r in results:
        if r.get("side") in ("kiln-generation", "transformers"):
            name = f"Kiln, LoRA r={r['rank']}" if "rank" in r else "transformers"
            name += "" if r.get("graphs", True) else ", no graphs"
            first, later = r.get("first_token_s"), r.get("decode_pass_s")
            later = later and later * 1e3
            rows.append([name, r["mode"], f"{r['tokens_per_s']:.0f}", number(first, ".3f"), number(later, ".1f")])
    if len(rows) > 1:
        table(rows)
    else:
        print("  no result")


def goals(kiln, peers, plans):
    rows = [["goal", "mode", "seen", "wanted", "reached"]]

    def row(goal, mode, seen, wanted, reached):
        rows.append([goal, mode, seen, wanted, verdict(reached)])

    for checkpointing, (mode, landing, aim, floor, memory) in GOALS.items():
        own = [r for r in kiln if r["checkpointing"] == checkpointing and r["label"] not in LESSER]
        warm = [r for r in own if r["label"] != "cold"] or own
        if not warm:
            rows.append(["no run of Kiln", mode, "-", "-", "-"])
            continue
        run = best(warm)
        rate = run["tokens_per_s"]
        row("tokens/s, first landing", mode, f"{rate:.0f}", f"{landing}", rate >= landing)
        row("tokens/s, aim", mode, f"{rate:.0f}", f"{aim} (floor {floor})", rate >= aim)
        for kind, wanted in (("qlora", PEER_FACTOR), ("lora", None)):
            peer = best([p for p in peers if p["checkpointing"] == checkpointing and p["variant"].startswith(kind + "-")])
            if peer:
                ratio = rate / peer["tokens_per_s"]
                aim_text = f"{wanted}" if wanted else "-"
                rows.append([f"x {peer['variant']}", mode, f"{ratio:.2f}", aim_text, verdict(ratio >= wanted) if wanted else ""])
        peak, whose = peak_of(run)
        if memory and peak:
            row(f"peak memory ({whose}), GiB", mode, gib(peak), f"{memory}", peak <= memory * GIB)
        planned = plans.get(mode, {}).get("planned_memory_bytes")
        if planned and peak:
            off = peak / planned - 1
            row(f"peak ({whose}) beside the plan", mode, f"{off:+.1%}", f"within 5 % of {gib(planned)}", abs(off) <= PLAN_TOLERANCE)
        else:
            rows.append([f"peak ({whose}) beside the plan", mode, gib(peak), "no plan", "-"])
        for r in own:
            limit = FIRST_STEP_S.get(r["label"])
            if limit:
                row(f"first step, {r['label']}, s", mode, f"{r['first_step_s']:.1f}", f"{limit}", r["first_step_s"] <= limit)
        grown = run.get("growth_reserved_bytes")
        if grown is not None:
            steps = len(run["losses"])
            row(f"growth, steps 10 to {steps}, MiB", mode, f"{grown / (1 << 20):.1f}", "0", grown <= 0)
    same_losses(kiln, rows)
    other_kernels(kiln, rows)
    table(rows)


def same_losses(kiln, rows):
    """Runs of one seed: cold beside warm, recomputed beside kept."""
    alike = [r for r in kiln if r["label"] not in LESSER]
    for a, b in zip(alike, alike[1:]):
        steps = min(len(a["losses"]), len(b["losses"]))
        equal = a["losses"][:steps] == b["losses"][:steps]
        names = [f"{GOALS[r['checkpointing']][0]} {r['label']}" for r in (a, b)]
        rows.append([f"same losses, {steps} steps", f"{names[0]} = {names[1]}", verdict(equal), "yes", verdict(equal)])


def other_kernels(kiln, rows):
    """Runs of one seed with other kernels: a wrong product leaves losses of random weights plausible,
    gradients less so."""
    for r in kiln:
        alike = [w for w in kiln if w["label"] == "warm" and w["checkpointing"] == r["checkpointing"]]
        if r["label"] not in LESSER or not alike:
            continue
        off = [apart(r.get(key), alike[0].get(key)) for key in ("losses", "grad_norms")]
        mode = GOALS[r["checkpointing"]][0]
        rows.append(
            [
                f"losses, norms as {mode} warm, {min(len(r['losses']), len(alike[0]['losses']))} steps",
                f"{mode} {r['label']}",
                ", ".join(number(o, ".2%") for o in off),
                ", ".join(f"{most:.1%}" for most in ALIKE),
                verdict(all(o is not None and o <= most for o, most in zip(off, ALIKE))),
            ]
        )


def apart(a, b):
    """The largest relative difference over the common steps."""
    if not a or not b:
        return None
    return max(abs(x - y) / max(abs(y), 1e-12) for x, y in zip(a, b))


def kernels(rows):
    timed = [r for r in rows if r["ms"] is not None]

    def lost(r):
        return (r["ms"] - r["floor_ms"]) * r["calls_per_step"]

    timed.sort(key=lost, reverse=True)
    shown = [["op", "shape", "ms", "floor ms", "ratio", "calls", "lost ms/step"]]
    for r in timed[:WORST]:
        shown.append([r["op"], r["shape"], f"{r['ms']:.4f}", f"{r['floor_ms']:.4f}", f"{r['ratio']:.2f}", str(r["calls_per_step"]), f"{lost(r):.2f}"])
    total, floor = (sum(r[k] * r["calls_per_step"] for r in timed) for k in ("ms", "floor_ms"))
    shown.append([f"all {len(timed)}", "calls of a fast step", f"{total:.1f}", f"{floor:.1f}", f"{total / floor:.2f}" if floor else "-", "", f"{total - floor:.1f}"])
    table(shown)
    for r in rows:
        if r["ms"] is None:
            print(f"  failed: {r['op']} {r['shape']}: {r['failure'][:120]}")


def warnings(logs):
    """What Kiln warned of, each once: kernels that stay out make other figures."""
    seen = []
    for name in sorted(os.listdir(logs)):
        if name.endswith(".err"):
            seen += [l for l in lines(logs, name) if l.startswith("warning: ") and l not in seen]
    return seen


def everything(logs):
    results = []
    for name in sorted(os.listdir(logs)):
        # A plan is one JSON object over many lines.
        if name.endswith(".out") and not name.startswith("plan-"):
            results += objects(logs, name)
    order = {"small-cold": 0, "small-warm": 1, "fast-warm": 2, "fast-cold": 3, "fast-mma": 4, "fast-portable": 5}
    kiln = [r for r in results if r.get("side") == "kiln"]
    kiln.sort(key=lambda r: order.get(f"{GOALS[r['checkpointing']][0]}-{r['label']}", 9))
    peers = [r for r in results if r.get("side") == "torch"]
    plans = {mode: document(logs, f"plan-{mode}.out") for mode in ("small", "fast")}
    machine(logs)
    for r in results:
        if r.get("side") == "ceilings":
            print(f"ceilings: copy {r['bytes_per_s'] / 1e12:.2f} TB/s, bf16 product {r['flop_per_s'] / 1e12:.0f} TFLOP/s, torch {r['torch']}")
    for name, (seconds, outcome) in outcomes(logs).items():
        if outcome != "ok":
            print(f"step {name}: {outcome} ({seconds} s)")
    for warning in warnings(logs):
        print(warning)
    for line in sum((lines(logs, f"peers-{name}.err") for name in ("qlora", "dense", "dense-2")), []):
        if "left out" in line or "out of time" in line:
            print(f"peer {line}")
    print("\n== Right?")
    trials(logs)
    correctness(logs)
    print("\n== QLoRA, NF4 double-quantised, r=16 on all linears, 2 sequences a step")
    if kiln or peers:
        speed(kiln, peers)
    else:
        print("  no result")
    print("\n== Decoding: 8 prompts of 512 tokens at once, 64 new tokens each")
    decoding(results)
    print("\n== Goals")
    goals(kiln, peers, plans)
    measured = objects(logs, "kernels.jsonl")
    print("\n== Operations that lose most to their floor")
    if measured:
        kernels(measured)
    else:
        print("  no result")


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in ("table", "doctor", "ceilings"):
        sys.exit(__doc__)
    what, logs = sys.argv[1:]
    if what == "table":
        return everything(logs)
    if what == "doctor":
        return doctor(logs)
    for r in objects(logs, "ceilings.out"):
        print(f"--bandwidth {r['bytes_per_s']:.4e} --rate {r['flop_per_s']:.4e}")
        break


if __name__ == "__main__":
    main()

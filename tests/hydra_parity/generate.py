#!/usr/bin/env python3
"""Random config trees and command lines for the comparison with hydra-core.

`generate.py --seed S --cases N` prints one JSON object a line:
  id         which case of which seed; the same id is always the same case
  files      path below the working directory to text; `conf/` is the config directory
  config     the primary config
  cfg        what is printed: job or all
  resolve    whether interpolations are resolved
  overrides  the command line
"""

import argparse
import json
import os

import texts
from bodies import Body

# The variables that cases refer to; PARITY_UNSET is in no environment.
ENVIRONMENT = {"PARITY_SET": "set value", "PARITY_EMPTY": "", "PARITY_NUM": "017", "PARITY_LIST": "[1, {a: 2.0}]"}
# Stands for the working directory in what is printed.
PLACE = "/DIR"
GROUPS = ["db", "model", "opt", "exp", "srv-1", "data_2"]
SUBGROUPS = ["kind", "tls", "db"]
OPTIONS = ["one", "two", "three"]
# What interpolations may lead to; most cases have it in the primary config.
COMMON = """\
top: 7
name: d
key: x
down: down
idx: '1'
flag: yes
f: 1e-4
big: 12345678901234567890123
nothing: null
miss: ???
empty: ''
e: {}
quoted: "1"
str017: '017'
d: {x: 1, y: two, 1: int key, true: bool key}
l: [10, 20, {k: v, m: [1, 2]}]
ref: ${d}
chain: ${ref.x}
refs: {one: '${top}', list: ['${l[0]}', '${d.x}'], rel: '${.one}', up: '${..name}'}
deep: {down: {x: 1.5, s: "${..x}", t: '${...top}'}, x: '${top}'}
"""


class Tree:
    """The groups, options and files of one case."""

    def __init__(self, dice):
        self.dice = dice
        self.files = {}
        self.groups = {}
        for group in dice.some(GROUPS, 1, 4):
            self.groups[group] = dice.some(OPTIONS, 1, 3)
            for sub in SUBGROUPS:
                if dice.chance(0.15):
                    self.groups[f"{group}/{sub}"] = dice.some(OPTIONS, 1, 2)
        self.plain = dice.some(["base", "extra", "lone"], 0, 2)
        # Groups with their packages that some defaults list has, and those of the primary one.
        self.entries, self.primary_entries = set(), []
        # Whether a part of the files is reached by hydra.searchpath only.
        self.search = dice.chance(0.06)

    def write(self, primary):
        dice = self.dice
        self.files[f"conf/{primary}.yaml"] = self.config("", True)
        for name in self.plain:
            self.files[f"conf/{name}.yaml"] = self.config("", False)
        for group, options in self.groups.items():
            for option in options:
                text = self.config(group, False)
                place = "more" if self.search and dice.chance(0.4) else "conf"
                self.files[f"{place}/{group}/{option}.yaml"] = text
        if dice.odd(2):
            path = dice.pick(sorted(self.files))
            self.files[path] = dice.pick(["", "- 1\n- 2\n", "word", "5", "a: [", "\ta: 1", "a: 1\n---\nb: 2\n", "---\na: 1\n", "---\n", "# only\n",
                                          "a: 1\na: 2\n", "null", "\ufeffa: 1\n", "a: 1\n...\n", "%YAML 1.1\n---\na: 017\n", "true", "'q'", "a: 1\n b: 2\n",
                                          "[a, b]", "{}", "[]", "a: &x 1\nb: &x 2\nc: *x\n", "a: *x\n", "defaults: 5\n", "defaults: []\nq: 1\n", "defaults:\n",
                                          "a: &x [*x]\n", "a:\n  b: 1\n c: 2\n", "? a\n: b\n", "a: 1\r\nb: 2\r\n", "a: b: c\n", "\u2028a: 1\n", "a: 1 \u0085b: 2\n"])

    def config(self, group, primary):
        dice = self.dice
        head = self.header(group) if not primary or dice.odd() else ""
        parts = []
        if primary or dice.chance(0.35):
            parts.append(self.defaults(group, primary))
        body = []
        if primary and not dice.odd(5):
            body.append(COMMON)
        if not primary and dice.chance(0.25):
            body.append("top: %s\n" % dice.pick(["8", "${name}", "???", "x"]) if dice.chance(0.5) else "d: {x: 2, z: 3}\n")
        if dice.chance(0.9) or not body:
            lines = Body(dice).mapping(0, 0)
            if primary:
                lines = ["extra:"] + ["  " + line if line else line for line in lines] if dice.chance(0.5) else lines
            body.append("\n".join(lines) + "\n")
        if primary and self.search:
            body.append(dice.pick(["hydra:\n  searchpath: [file://more]\n", "hydra: {searchpath: [more, file://absent]}\n"]))
        elif primary and dice.chance(0.06):
            body.append(dice.pick(["hydra: {job: {name: named}}\n", "hydra:\n  run: {dir: out}\n",
                                   "hydra:\n  job:\n    num: 3\n", "hydra: {verbose: true}\n",
                                   "hydra:\n  job: {env_set: {A: 1}, config: {override_dirname: {kv_sep: ':', exclude_keys: [a]}}}\n"]))
        elif dice.odd():
            body.append(dice.pick(["hydra: 5\n", "hydra:\n  nope: 1\n", "hydra:\n  run: x\n", "hydra:\n  searchpath: x\n", "hydra:\n  job: {num: x}\n",
                                   "hydra:\n  searchpath: [1]\n", "hydra: null\n", "hydra:\n  searchpath: null\n", "hydra: {job: {chdir: maybe}}\n"]))
        parts += body
        if dice.chance(0.05):
            parts.reverse()
        return head + "".join(parts)

    def header(self, group):
        dice = self.dice
        if dice.odd(2):
            return dice.pick(["# @package\n", "# comment\n# @package _global_\n", "# @package a b\n", "#@package:_global_\n", "# @Package x\n", "# @package .\n",
                              "# @package a.\n", "# @package a..b\n", "# @other 1\n", "x: 1 # @package y\n", "# @package  'q'\n", "---\n# @package x\n", "# @package _here_\n",
                              "# @package [a]\n", "# @package 1\n", "# @ package x\n", "# @package a/b\n", "# @package\t x\n", "# @package _self_\n"])
        if dice.chance(0.72):
            return ""
        if group.startswith("exp") and dice.chance(0.7):
            return "# @package _global_\n"
        return dice.weighted([("# @package _global_\n", 5), ("# @package _group_\n", 2), ("# @package _global_.pk\n", 1), ("# @package pk.q\n", 2),
                              ("#@package _global_\n", 1), ("\n  # @package top2\n", 1), ("# @package _group_.in\n", 1), ("# @package d\n", 1),
                              ("# @package _global_ \n", 1), ("# @x 1\n# @package two\n", 1), ("# @package a.b.c\n# @package e2\n", 1), ("# @package hydra.x\n", 0.1)])

    def defaults(self, group, primary):
        dice, lines, seen = self.dice, [], []
        count = dice.int(1, 4) if primary else dice.int(0, 3)
        for _ in range(count):
            line = self.entry(group, seen)
            if line:
                lines.append(line)
        if dice.chance(0.75):
            lines.insert(dice.int(0, len(lines)), "_self_")
        if dice.odd(2):
            lines.insert(dice.int(0, len(lines)), dice.pick(["_self_", "5", "null", "[a]", "a: b\n    c: d", "db: {a: 1}", "db: 5", "db: yes", "'a: b'", "nope", "nope: x", "db: ???",
                                                             "override nope: x", "optional nope", "optional db: nope", "_self_@pkg", "optional _self_", "db@: one", "@x: one", "db@a@b: one",
                                                             "override db@x: one", "/: one", "db/: one", "''", "override: one", "optional: one", "Override db: one", "'override  db': one",
                                                             "config", "/config", "db@_here_: one", "db@.x: one", "db@x.: one", "db: [one, 5]", "db: [[one]]", "db: [null]", "db: []", "''  : one", "db: ''",
                                                             "db: one.yaml", "db@_global_x: one", "db: ${nope}", "db: ${db}", "db: ../db/one", "../base", "db: 'one '", "db : one", "optional override db: one",
                                                             "override optional db: one", "db: ${oc.env:PARITY_SET}", "db: '${model}x'", "'optional /db@_global_': one", "~", "db: ~", "true: one", "1: one"]))
        groups = [g for g in seen if g and (dice.wild or "@" not in g and not primary)]
        if groups and (dice.chance(0.15) or group.startswith("exp") and dice.chance(0.6)):
            key = dice.pick(groups)
            target = key.lstrip("/") if key.startswith("/") or not group else f"{group}/{key}"
            lines.append(f"override {key}: {self.option(target if target in self.groups else dice.pick(sorted(self.groups)))}")
        known = sorted(self.groups) if dice.wild else [g for g in self.primary_entries if g in self.groups and g != group]
        if known and group.startswith("exp") and dice.chance(0.6):
            target = dice.pick(known)
            lines.append(f"override /{target}: {dice.pick(self.groups[target])}")
        if not lines:
            return dice.pick(["defaults: []\n", ""])
        pad = dice.pick(["", "  "])
        return "defaults:\n" + "".join(f"{pad}- {line}\n" for line in lines)

    def entry(self, group, seen):
        dice = self.dice
        below = [g for g in self.groups if g.startswith(group + "/")] if group else []
        if self.plain and not group and dice.chance(0.15):
            name = dice.pick(self.plain)
            if name in seen:
                return None
            seen.append("")
            return name + dice.weighted([("", 5), ("@pk", 2), ("@_global_", 1), ("@a.b", 1), (".yaml", 0.2)])
        if group:
            if below and dice.chance(0.7):
                target = dice.pick(below)
                key = target[len(group) + 1:] if dice.chance(0.7) else "/" + target
            else:
                # Groups later in the order only: no loops in most cases.
                later = [g for g in self.groups if g.split("/")[0] > group.split("/")[0]]
                if not later:
                    return None
                target = dice.pick(later)
                key = "/" + target
        else:
            target = dice.pick(sorted(self.groups))
            key = ("/" if dice.chance(0.15) else "") + target
        package = ""
        if dice.chance(0.3):
            package = "@" + dice.weighted([("_global_", 3), ("_group_", 2), ("pkg", 4), ("a.b", 2), ("_global_.g", 2), ("_group_.h", 2), ("d", 1), ("db", 1), ("_here_", 0.3)])
        place = target + (package if package != "@_group_" else "")
        if key + package in seen or not dice.wild and (place in self.entries or target in self.entries and not package):
            return None
        self.entries.add(place)
        if not group:
            self.primary_entries.append(place)
        seen.append(key + package)
        prefix = "optional " if dice.chance(0.1) else ""
        return f"{prefix}{key}{package}: {self.option(target, prefix)}"

    def option(self, target, prefix=""):
        dice = self.dice
        if prefix and dice.chance(0.4):
            return "absent"
        if dice.odd():
            return dice.pick(["absent", "???", "5", "${nope}", "ON", "[one, absent]", "[]"])
        if dice.chance(0.06):
            return "null"
        if dice.chance(0.08):
            others = [g for g in (self.groups if dice.wild else self.primary_entries) if "/" not in g and "@" not in g and g != target]
            if others:
                return "${%s}" % dice.pick(others)
        names = self.groups[target]
        if dice.chance(0.1):
            return "[" + ", ".join(dice.some(names, 1, 3)) + "]"
        return dice.pick(names) + (".yaml" if dice.odd() else "")


def command_line(dice, tree):
    """The overrides of a case."""
    out = []
    for _ in range(dice.weighted([(0, 2), (1, 4), (2, 3), (3, 2), (5, 1)])):
        if dice.chance(0.25):
            placed = [entry for entry in tree.primary_entries if entry in tree.groups] if not dice.wild else []
            group = dice.pick(placed or sorted(tree.groups))
            choice = dice.pick(tree.groups[group])
            prefix = dice.weighted([("", 4 if dice.wild or placed else 0), ("+", 3 if dice.wild or not placed else 0.2), ("~", 2 if dice.wild else 0.3), ("++", 0.5 if dice.wild else 0)])
            package = "" if placed and prefix != "+" else dice.weighted([("", 8), ("@pkg", 1.5), ("@_global_", 1), ("@a.b", 1), ("@d", 0.5), ("@_group_", 0.3)])
            if prefix == "~":
                out.append(f"~{group}{package}" + dice.pick(["", "", f"={choice}"]))
            else:
                value = dice.weighted([(choice, 10), (f"[{choice}]", 1), (f"'{choice}'", 1), (",".join(tree.groups[group]), 0.3 if dice.wild else 0), ("absent", 0.5 if dice.wild else 0),
                                       ("null", 0.3 if dice.wild else 0), ("[" + ",".join(tree.groups[group]) + "]", 1), ("{x:1}", 0.3), ("5", 0.2 if dice.wild else 0), ("${opt}", 0.2),
                                       ("", 0.2 if dice.wild else 0), ("glob(*)", 0.1 if dice.wild else 0)])
                out.append(f"{prefix}{group}{package}={value}")
        elif dice.odd(3):
            out.append(dice.pick(["a", "=1", "a=", "+=1", "a..b=1", "a.=1", ".a=1", "a b=1", "é=1", "~", "+", "++", "~a=b=c", "a=1 #c", "1=2", "a@=1", "@b=1", "a@b@c=1", "a/b=1", "a[0]=1",
                                  "+a/b=1", "/a=1", "a/=1", "a-b.c=1", "--x=1", "+++a=1", "~~a", "-a=1", "a$=1", "a:b=1", "'a'=1", " a=1", "a =1", "a= 1 ", "+a.0=1", "hydra=1", "hydra.nope=1", "++hydra.x=1",
                                  "hydra.run.dir=x", "hydra.job.num=x", "~hydra.run", "hydra.searchpath=5", "hydra.searchpath=[pkg://nope]", "hydra.mode=RUN", "hydra.mode=nope", "hydra/launcher=nope",
                                  "hydra/job_logging=none", "+hydra.job.env_set.A=1", "hydra.job.chdir=1", "hydra.verbose=[a]", "hydra.searchpath=null", "a.b.=1", "+$x=1", "+a.$x=1", "+1a=1", "+a.1=1", "top@x=1", "+x@y=2"]))
        else:
            out.append(value_override(dice))
    if dice.chance(0.05):
        out.append(dice.pick(["hydra.searchpath=[file://more]", "hydra.searchpath=[conf/db,more]", "+hydra.x=1" if dice.wild else "hydra.job.num=4", "hydra.run.dir=o/${now:%Y}", "hydra/job_logging=none",
                              "hydra.job.name=typed", "hydra.verbose=true", "hydra.output_subdir=null", "+hydra.job.env_set.A=1", "hydra.job.env_set={A: b}"]))
    return out


def value_override(dice):
    paths = ["top", "name", "d.x", "d.y", "l", "l.0", "l.2.k", "flag", "nothing", "miss", "e", "deep.down.x", "deep.x", "refs.one", "d", "deep", "f", "big", "refs.list.0", "extra", "empty"]
    loose = ["a", "b.c", "extra.a", "db.a", "model.lr", "pkg.x", "new.deep.path", "l.7", "top.x", "nothing.x", "ref.x", "ref", "chain", "miss.q", "refs.rel.x", "d.1", "d.true", "opt", "exp.x", "refs.list.x", "l.2.m.0", "a-b", "_x", "zz"]
    prefix = dice.weighted([("", 8), ("+", 4), ("++", 4), ("~", 1.5)])
    if prefix == "~":
        key = dice.pick(paths if not dice.odd(5) else loose)
        return "~" + key + ("=" + dice.pick(["7", "d", "1", "1.0", "true", "{x:1}", "[10,20]", "yes"]) if dice.odd(5) else "")
    if prefix == "":
        key = dice.pick(paths) if not dice.odd(4) else dice.pick(loose)
    elif prefix == "+":
        key = dice.pick(["new", "new.a.b", "d.new", "deep.down.new", "e.q", "nothing", "q-1", "_z", "zz.y", "miss"]) if not dice.odd(4) else dice.pick(paths + loose)
    else:
        key = dice.pick(paths + loose if dice.wild else paths + ["new", "new.a", "a.b", "e.z"])
    value = texts.override_value(dice)
    if key in ("d", "e", "deep", "extra") and not dice.odd(8):
        value = dice.pick(["{x:5}", "{}", "{x:{q:1}}", "{x:[1,2]}", "{x:null}", "null", "{x: a, x: b}"])
        if prefix != "" and dice.chance(0.6):
            value = "{n%d:%s}" % (dice.int(0, 2), texts.override_value(dice, 2))
    elif key == "l" and not dice.odd(8):
        value = dice.pick(["[]", "[1]", "[a,[b],{c:d}]", "null", "[${top}]", "['x,y',\"z\"]", "sort([2,1])"])
    return f"{prefix}{key}={value}"


def case(seed, index):
    """One case; the same seed and index always give the same one."""
    dice = texts.Dice(f"{seed}/{index}")
    tree = Tree(dice)
    primary = dice.weighted([("config", 12), ("main_cfg", 1)])
    tree.write(primary)
    overrides = command_line(dice, tree)
    config = primary
    if dice.odd():
        config = dice.pick(["nope", primary + ".yaml", "db/one", "db", "", "./" + primary])
    elif dice.chance(0.02):
        group = dice.pick(sorted(tree.groups))
        config = f"{group}/{dice.pick(tree.groups[group])}"
    return {
        "id": f"{seed}/{index}",
        "files": tree.files,
        "config": config,
        "cfg": "all" if dice.chance(0.08) else "job",
        "resolve": dice.chance(0.4),
        "overrides": overrides,
    }


def write_files(case, directory):
    """Makes the files of a case."""
    os.makedirs(os.path.join(directory, "conf"))
    for path, text in case["files"].items():
        full = os.path.join(directory, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8", newline="") as file:
            file.write(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args()
    for index in range(args.first, args.first + args.cases):
        print(json.dumps(case(args.seed, index), ensure_ascii=True))


if __name__ == "__main__":
    main()

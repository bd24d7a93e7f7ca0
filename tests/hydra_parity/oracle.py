#!/usr/bin/env python3
"""What hydra-core 1.3.8 makes of a case of generate.py.

Reads one JSON request a line from stdin, `{"case": .., "directory": .., "readings": ..}`, and
answers each with one line: `{"yaml": TEXT}`, or `{"refused": WHY}`. The files of the case lie
in `directory`, which is written `/DIR` in the answer. The composing call is the one that
`python app.py --cfg job` makes. With `readings` the answer is what Hydra gives where some of
three accidents are taken out (README.md explains them), by the names of the accidents.
"""

import contextlib
import copy
import enum
import io
import itertools
import json
import logging
import os
import signal
import sys
import warnings

import hydra
import yaml
from hydra import initialize_config_dir
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf._utils import get_omega_conf_dumper
from omegaconf.errors import InterpolationToMissingValueError

from generate import ENVIRONMENT, PLACE

WANTED = "1.3.8"
PYTHON = {"major": "3", "minor": "3.11", "micro": "3.11.7"}
# Seconds of processor time, longer than any case takes: what does not end is refused.
SECONDS = 20
SHARED, IN_PLACE, MERGE_LIST = "a config merged twice", "resolved in place", "lists of merge keys"
as_loaded = CachingConfigRepository.load_config
as_flattened = yaml.constructor.SafeConstructor.flatten_mapping


@contextlib.contextmanager
def initialized(directory):
    os.chdir(directory)
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=os.path.join(directory, "conf"), job_name="run", version_base="1.3"):
        # Kiln is run by no Python; it names the version that it follows.
        OmegaConf.register_new_resolver("python_version", lambda level="minor": PYTHON.get(level), replace=True)
        yield GlobalHydra.instance().hydra


def printed(case, directory):
    """What `--cfg` prints."""
    out = io.StringIO()
    with initialized(directory) as app, contextlib.redirect_stdout(out):
        app.show_cfg(config_name=case["config"], overrides=case["overrides"], cfg_type=case["cfg"], package=None, resolve=case["resolve"])
    return out.getvalue()


def read(case, directory):
    """The values as a running job reads them, one by one from a config that stays as it is."""
    with initialized(directory) as app:
        cfg = app.compose_config(config_name=case["config"], overrides=case["overrides"], run_mode=RunMode.RUN)
        HydraConfig.instance().set_config(cfg)
        job = copy.deepcopy(cfg)
        if case["cfg"] == "job":
            OmegaConf.set_readonly(job, False)
            OmegaConf.set_struct(job, False)
            del job["hydra"]
        return yaml.dump(plain(job), default_flow_style=False, allow_unicode=True, sort_keys=False, Dumper=get_omega_conf_dumper())


def plain(node):
    """A config as plain Python values; what leads to `???` is `???`."""
    if isinstance(node, DictConfig) and not (node._is_none() or node._is_missing()):
        return {key: plain_child(node, key) for key in node.keys()}
    if isinstance(node, ListConfig) and not (node._is_none() or node._is_missing()):
        return [plain_child(node, index) for index in range(len(node))]
    value = node._value()
    return value.name if isinstance(value, enum.Enum) else value


def plain_child(node, key):
    try:
        return plain(node._get_child(key)._dereference_node())
    except InterpolationToMissingValueError:
        return "???"


def copied(self, config_path):
    return copy.deepcopy(as_loaded(self, config_path))


def answer(compose, case, directory):
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        return {"yaml": compose(case, directory).replace(directory, PLACE)}
    # Hydra reports by exceptions of every kind, SystemExit among them.
    except (Exception, SystemExit) as fault:
        cause = fault
        while cause.__cause__ is not None:
            cause = cause.__cause__
        return {"refused": f"{type(cause).__name__}: {cause}".replace(directory, PLACE)}
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def first_wins(self, node):
    """Takes the merge keys of a mapping apart; of a list's mappings the first one wins, as YAML has it."""
    merged, own = [], []
    for key, value in node.value:
        if key.tag != "tag:yaml.org,2002:merge":
            if key.tag == "tag:yaml.org,2002:value":
                key.tag = "tag:yaml.org,2002:str"
            own.append((key, value))
            continue
        mappings = value.value if isinstance(value, yaml.SequenceNode) else [value]
        for one in mappings:
            if not isinstance(one, yaml.MappingNode):
                raise yaml.constructor.ConstructorError(None, None, "only mappings can be merged", one.start_mark)
            self.flatten_mapping(one)
        first = {}
        for one in mappings:
            pairs = {}
            for key, value in one.value:
                name = (key.tag, repr(key.value))
                # Within a mapping the later value counts, in the place of the first.
                pairs[name] = (pairs.get(name, (key,))[0], value)
            for name, pair in pairs.items():
                first.setdefault(name, pair)
        merged += first.values()
    node.value = merged + own


def readings(case, directory):
    """The answers without the accidents, fewest first."""
    lists = any("<<: [" in text for text in case["files"].values())
    found = {}
    accidents = [SHARED] + [IN_PLACE] * case["resolve"] + [MERGE_LIST] * lists
    for count in range(1, len(accidents) + 1):
        for taken in itertools.combinations(accidents, count):
            if SHARED in taken:
                # Configs that Hydra keeps are shared by all that include them.
                CachingConfigRepository.load_config = copied
            if MERGE_LIST in taken:
                yaml.constructor.SafeConstructor.flatten_mapping = first_wins
            found[", ".join(taken)] = answer(read if IN_PLACE in taken else printed, case, directory)
            CachingConfigRepository.load_config = as_loaded
            yaml.constructor.SafeConstructor.flatten_mapping = as_flattened
    return found


def overtime(signum, frame):
    raise TimeoutError(f"no result after {SECONDS} s")


def main():
    if hydra.__version__ != WANTED:
        sys.exit(f"oracle.py needs hydra-core=={WANTED}, this is {hydra.__version__}")
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGVTALRM, overtime)
    os.environ.update(ENVIRONMENT)
    os.environ.pop("PARITY_UNSET", None)
    for line in sys.stdin:
        request = json.loads(line)
        case, directory = request["case"], request["directory"]
        found = readings(case, directory) if request["readings"] else answer(printed, case, directory)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()

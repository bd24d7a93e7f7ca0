#!/usr/bin/env python3
"""What hydra-core 1.3.8 makes of the cases of generate.py.

Reads one JSON case a line from stdin and answers each with one line: `{"yaml": TEXT}`, or
`{"refused": WHY}`. A case is written below `--work` into a directory that carries its number
and is left there, so that the other side composes the very same files. Each is composed by
the call that `python app.py --cfg job` makes. In the answer that directory is `{DIR}`.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import signal
import sys
import warnings

import hydra
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from generate import ENVIRONMENT, PLACE, write_files

WANTED = "1.3.8"
PYTHON = {"major": "3", "minor": "3.11", "micro": "3.11.7"}
# Longer than any case takes: what does not end is refused.
SECONDS = 60


def composed(case, directory):
    """The YAML, or an exception of any kind."""
    os.chdir(directory)
    GlobalHydra.instance().clear()
    out = io.StringIO()
    with initialize_config_dir(config_dir=os.path.join(directory, "conf"), job_name="run", version_base="1.3"):
        # Kiln is run by no Python; it names the version that it follows.
        OmegaConf.register_new_resolver("python_version", lambda level="minor": PYTHON.get(level), replace=True)
        with contextlib.redirect_stdout(out):
            GlobalHydra.instance().hydra.show_cfg(
                config_name=case["config"], overrides=case["overrides"], cfg_type=case["cfg"], package=None, resolve=case["resolve"]
            )
    return out.getvalue().replace(directory, PLACE)


def overtime(signum, frame):
    raise TimeoutError(f"no result after {SECONDS} s")


def answer(case, directory):
    write_files(case, directory)
    signal.alarm(SECONDS)
    try:
        return {"yaml": composed(case, directory)}
    # Hydra reports by exceptions of every kind, SystemExit among them.
    except (Exception, SystemExit) as fault:
        cause = fault
        while cause.__cause__ is not None:
            cause = cause.__cause__
        return {"refused": f"{type(cause).__name__}: {cause}"}
    finally:
        signal.alarm(0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True)
    args = parser.parse_args()
    if hydra.__version__ != WANTED:
        sys.exit(f"oracle.py needs hydra-core=={WANTED}, this is {hydra.__version__}")
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    sys.setrecursionlimit(3000)
    signal.signal(signal.SIGALRM, overtime)
    os.environ.update(ENVIRONMENT)
    os.environ.pop("PARITY_UNSET", None)
    work = os.path.realpath(args.work)
    for number, line in enumerate(sys.stdin):
        directory = os.path.join(work, str(number))
        print(json.dumps(answer(json.loads(line), directory)), flush=True)


if __name__ == "__main__":
    main()

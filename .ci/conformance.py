#!/usr/bin/env python3
"""Runs the conformance cases with RBUILD and fails when a case that passed before no longer does.

The cases that pass are the lines of conformance-passing.txt beside this file; --update writes them
anew (that a case leaves the list must be said in the commit). What the runner says of all cases goes
to target/conformance*.log; printed is what it says of those that are lost. With --as-user an ordinary
user runs rbuild; the cases that only root can do are in conformance-root-only.txt, with the reason.
The table counts cases per group: those whose last step must succeed, those that need RUN among them,
and those that must fail.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUITE = HERE.parent.parent / "shared" / "conformance"
LIST = HERE / "conformance-passing.txt"
ROOT_ONLY = HERE / "conformance-root-only.txt"
LOGS = HERE.parent / "target"
# A case may have a bad day on a busy machine, or come before one that it follows: so many are given
# a second chance, each alone but for those before it. Where the runner could not read one base image,
# a dozen cases have it at once.
RETRIED = 40
COLUMNS = ("succeed", "need run", "must fail")


def writable_copy(directory):
    """A copy of the suite whose files their owner may write: modes end in images, so they must not
    be those of a suite that is laid out to be read only."""
    copy = Path(directory, "conformance")
    shutil.copytree(SUITE, copy, symlinks=True)
    for path in [copy, *copy.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o200)
    return copy


def run(only, jobs, log):
    """The status of every case: pass, fail or skip. What the runner prints goes to log."""
    with tempfile.TemporaryDirectory() as work:
        out = Path(work, "results.json")
        suite = writable_copy(work)
        command = [sys.executable, str(suite / "run.py"), "--only", only, "-j", str(jobs), "--json", str(out)]
        # Its exit code says that some case failed, which is no news here.
        subprocess.run(command, check=False, stdout=log, stderr=subprocess.STDOUT)
        if not out.exists():
            sys.exit(f"the conformance runner wrote no results, see {log.name}")
        return {name: result["status"] for name, result in json.loads(out.read_text())["results"].items()}


def become_user(shown):
    """From now on an ordinary user runs the program, which may not look into this directory."""
    shown.chmod(0o755)
    os.environ["RBUILD"] = shutil.copy(os.environ["RBUILD"], str(shown / "rbuild"))
    os.environ["RBUILD_PREFIX"] = str(HERE / "as-user.sh")


def family(name):
    """The cases that come before one in a row: what x did may be what the cache has for x-2."""
    return re.sub(r"-\d+$", "", name) + "*"


def columns(name):
    """The columns of the table in which a case counts."""
    case = json.loads((SUITE / "cases" / name / "case.json").read_text())
    if "error" in case["steps"][-1]:
        return ["must fail"]
    return ["succeed"] + ["need run"] * ("run" in case.get("needs", []))


def print_table(statuses):
    passed, total = defaultdict(int), defaultdict(int)
    for name, status in statuses.items():
        for column in columns(name) if status != "skip" else []:
            for group in (name.split("/")[0], "all"):
                total[group, column] += 1
                passed[group, column] += status == "pass"
    print(f"{'group':16}" + "".join(f"{column:>18}" for column in COLUMNS))
    for group in sorted({group for group, _ in total} - {"all"}) + ["all"]:
        cells = (f"{passed[group, column]}/{total[group, column]}" for column in COLUMNS)
        print(f"{group:16}" + "".join(f"{cell:>18}" for cell in cells))
    for column in COLUMNS:
        if total["all", column]:
            print(f"{column}: {100 * passed['all', column] / total['all', column]:.1f} % pass")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", metavar="GLOB", help="the cases to run")
    parser.add_argument("-j", type=int, default=2 * (os.cpu_count() or 1), metavar="N", help="cases at a time")
    parser.add_argument("--as-user", action="store_true", help="an ordinary user runs rbuild")
    parser.add_argument("--update", action="store_true", help="write the list of those that pass")
    options = parser.parse_args()
    if options.as_user and options.update:
        sys.exit("the list is of what root can do")
    if "RBUILD" not in os.environ:
        sys.exit("RBUILD must name the program to test")

    LOGS.mkdir(exist_ok=True)
    path = LOGS / ("conformance-user.log" if options.as_user else "conformance.log")
    with open(path, "wb") as log, tempfile.TemporaryDirectory() as shown:
        if options.as_user:
            become_user(Path(shown))
        statuses = run(options.only, options.j, log)
        passing = {name for name, status in statuses.items() if status == "pass"}
        known = set(LIST.read_text().split()) if LIST.exists() else set()
        if options.as_user:
            known -= {line.split()[0] for line in ROOT_ONLY.read_text().splitlines()}
        lost = known & statuses.keys() - passing
        if len(lost) <= RETRIED:
            lost = {name for name in sorted(lost) if run(family(name), 1, log).get(name) != "pass"}
    print_table(statuses)
    if options.update:
        kept = known - statuses.keys() | known - lost | passing
        LIST.write_text("".join(f"{name}\n" for name in sorted(kept - lost)))
    said = path.read_text(errors="replace").splitlines()
    for name in sorted(lost):
        print(f"no longer passes: {name}")
        print(*(f"    {line}" for line in said if f" {name} " in line), sep="\n")
    print(f"{len(passing)} pass, {len(passing - known)} of them were not in {LIST.name}, {len(lost)} lost")
    return 1 if lost and not options.update else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The SSDA903 return as csc-validator-be-903 sees it.

    ssda903.py COLLECTION_YEAR COUNCIL FOLDER

FOLDER holds the year's CSV tables, FOLDER/last those of the year before if there are any. Prints one JSON object: `tables`
(rows of each table that was recognised), `ran`, `skipped` (rules that miss a table), `crashed` (rules that failed
themselves, which have judged nothing), `issues` (rule, table, child, fields). Ends in 0 if the return is clean, 1 if there are issues, 2 if a
file cannot be read, 3 if a rule crashed that is not known to crash on every return.
"""

import contextlib
import glob
import io
import json
import logging
import os
import sys
import warnings

logging.disable(logging.CRITICAL)
warnings.filterwarnings("ignore")

from lac_validator import lac_validator
from lac_validator.config import column_names
from lac_validator.ingress import read_from_text
from lac_validator.rules.ruleset_utils import get_year_ruleset

# 231 and 233 read columns that no table has; 706, 709 and 710 crash in the rules of 2026/27.
ALWAYS_CRASH = {"231", "233", "706", "709", "710"}


def uploaded(path, description):
    with open(path, "rb") as file:
        return {"name": os.path.basename(path), "description": description, "file_content": file.read()}


def main():
    year, council, folder = sys.argv[1:4]
    files = [uploaded(path, "This year") for path in sorted(glob.glob(os.path.join(folder, "*.csv")))]
    files += [uploaded(path, "Prev year") for path in sorted(glob.glob(os.path.join(folder, "last", "*.csv")))]
    # The XML reader leaves tables without rows broken: what it has read goes in as CSV, as the tables of a return do.
    for path in sorted(glob.glob(os.path.join(folder, "*.xml"))):
        tables, _ = read_from_text([uploaded(path, "This year")])
        for name, table in tables.items():
            if len(table):
                content = table[column_names[name]].to_csv(index=False).encode()
                files.append({"name": name + ".csv", "description": "This year", "file_content": content})
    rules = get_year_ruleset(year)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            run = lac_validator.LacValidator(
                metadata={"collectionYear": year, "localAuthority": council}, files=files, registry=rules
            )
    except Exception as error:
        print(json.dumps({"unreadable": f"{type(error).__name__}: {error}"}))
        return 2
    tables = {name: len(table) for name, table in run.dfs.items() if name in column_names}
    issues = []
    for name, table in run.ds_results.items():
        if name == "metadata":
            continue
        for column in [column for column in table.columns if str(column).startswith("ERR_")]:
            code = column.removeprefix("ERR_")
            for at in table.index[table[column].fillna(False).astype(bool)]:
                issues.append({"rule": code, "table": name, "child": str(table.at[at, "CHILD"]), "message": rules[code].message})
    print(json.dumps({
        "tables": tables, "rules": len(rules), "ran": len(run.dones), "skipped": sorted(map(str, run.skips)),
        "crashed": sorted(map(str, run.fails)), "issues": issues,
    }, indent=1))
    if issues:
        return 1
    return 3 if set(map(str, run.fails)) - ALWAYS_CRASH else 0


sys.exit(main())

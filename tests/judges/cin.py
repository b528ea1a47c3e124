"""The CIN census as csc-validator-be-cin sees it, and its order of elements by a schema of our own.

    cin.py COLLECTION_YEAR FILE SCHEMA

Prints one JSON object: `tables` (rows of each table that was read), `schema` (what the schema finds), `issues` (rule, child), `crashed`
(rules that failed themselves, which have judged nothing), `set_aside` (issues of rules that judge wrongly). Ends in 0 if the return is clean, 1 if there are issues, 2 if the file cannot be
read, 3 if a rule crashed.
"""

import contextlib
import io
import json
import logging
import re
import sys
import warnings
import xml.etree.ElementTree as ElementTree

logging.disable(logging.CRITICAL)
warnings.filterwarnings("ignore")

from cin_validator import cin_validator
from cin_validator.rules.ruleset_utils import get_year_ruleset
from lxml import etree

# 2887Q asks for eight kinds of disabilities in a return, and counts the children who have none.
SET_ASIDE = {"2887Q"}


def main():
    year, path, schema = sys.argv[1:4]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            raw = cin_validator.convert_data(ElementTree.parse(path).getroot())
            rules = get_year_ruleset(year)
            run = cin_validator.CinValidator(cin_validator.process_data(raw), rules, None)
    except Exception as error:
        print(json.dumps({"unreadable": f"{type(error).__name__}: {error}"}))
        return 2
    structure = etree.XMLSchema(etree.parse(schema))
    structure.validate(etree.parse(path))
    broken = [f"line {error.line}: {error.message}" for error in structure.error_log]
    # A rule that fails itself is only said, and the run goes on.
    crashed = re.findall(r"Error with rule (\S+?):", said.getvalue())
    issues = []
    # Problems of single children, and those of the return as a whole.
    for found in (run.full_issue_df, run.multichild_issues):
        if found is not None and not found.empty:
            issues += json.loads(found.astype(str).to_json(orient="records"))
    aside = [issue for issue in issues if issue["rule_code"] in SET_ASIDE]
    issues = [issue for issue in issues if issue not in aside]
    print(json.dumps({
        "tables": {name: len(table) for name, table in raw.items()}, "rules": len(rules), "schema": broken,
        "crashed": crashed, "issues": issues, "set_aside": aside,
    }, indent=1))
    if broken or issues:
        return 1
    return 3 if crashed else 0


sys.exit(main())

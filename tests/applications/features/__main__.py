"""Try every feature against the running worker, and print the results; `--list`: the expected results."""

import importlib
import json
import sys

from tests.applications.features.feature import FEATURES

for declaring in ("sending", "running", "canvas", "results", "watching"):
    importlib.import_module(f"tests.applications.features.{declaring}")

wanted = sys.argv[1:]
found = {}
if wanted == ["--list"]:
    found = {each.name: [each.section, each.promised] for each in FEATURES.values()}
for each in FEATURES.values() if wanted != ["--list"] else ():
    if not wanted or any(text in each.name for text in wanted):
        found[each.name] = each.try_it()
        print(each.name, found[each.name], file=sys.stderr, flush=True)
print(json.dumps(found))

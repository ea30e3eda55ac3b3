"""Names of what lies in a comparison's folder, the report's files among them."""

PROTOCOL, RESULT, CELL = "protocol.json", "comparison.json", "cell.json"
CELLS, WORK = "cells", "work"
# Those of an RLHF run; its page and pictures are named as a comparison's.
POLICY, POLICY_RUN, RECORD = "policy", "policy-run", "rlhf.json"
PAGE, TABLE, LADDER, PICTURES = "report.html", "rungs.csv", "ladder.md", "pictures"
# What a comparison and its report make there, and nothing else.
MADE_FILES = (RESULT, PAGE, TABLE, LADDER, PROTOCOL)
MADE_FOLDERS = (CELLS, WORK, PICTURES)

"""docs/config.md and docs/metrics.md are what the program says: docs_test.py BINARY"""
import pathlib
import subprocess
import sys

docs = pathlib.Path(__file__).resolve().parent.parent.parent / "docs"
stale = []
for arguments, name in ((["reference"], "config.md"), (["reference", "--metrics"], "metrics.md")):
    said = subprocess.run([sys.argv[1], *arguments], capture_output=True, text=True, check=True).stdout
    if (docs / name).read_text() != said:
        stale.append(f"docs/{name} is stale: dsengine {' '.join(arguments)} > docs/{name}")
sys.exit("\n".join(stale) or 0)

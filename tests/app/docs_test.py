"""docs/config.md and docs/metrics.md are what the program says, and docs/files.md has the keys that each command's help
lists: docs_test.py BINARY"""
import pathlib
import subprocess
import sys
import textwrap

docs = pathlib.Path(__file__).resolve().parent.parent.parent / "docs"
said = lambda *arguments: subprocess.run([sys.argv[1], *arguments], capture_output=True, text=True, check=True).stdout
stale = []
for arguments, name in ((["reference"], "config.md"), (["reference", "--metrics"], "metrics.md")):
    if (docs / name).read_text() != said(*arguments):
        stale.append(f"docs/{name} is stale: dsengine {' '.join(arguments)} > docs/{name}")
files = (docs / "files.md").read_text()
for command in ("tokenize", "score", "generate", "eval", "bench", "run", "report"):
    help_text = said(command, "--help").rstrip()
    keys = help_text[max(help_text.rfind(first) for first in ("\nLines of --input", "\nRecords of ", "\nReads ", "\nPrints ")) + 1:]
    if keys == help_text or textwrap.indent(keys, "    ") not in files:
        stale.append(f"docs/files.md lacks what dsengine {command} --help ends with")
sys.exit("\n".join(stale) or 0)

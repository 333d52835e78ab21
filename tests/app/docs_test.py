"""docs/config.md is what the program says of its configuration: docs_test.py BINARY (dsengine reference > docs/config.md)"""
import pathlib
import subprocess
import sys

kept = (pathlib.Path(__file__).resolve().parent.parent.parent / "docs/config.md").read_text()
said = subprocess.run([sys.argv[1], "reference"], capture_output=True, text=True, check=True).stdout
sys.exit(0 if kept == said else "docs/config.md is stale: dsengine reference > docs/config.md")

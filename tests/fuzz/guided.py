"""Fuzzing guided by coverage, with atheris where that is installed: it is no dependency.

python -m tests.fuzz.guided predictions-json -runs=100000 -max_len=4096
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

INSTRUMENTED = ("benchmark.", "runners.data", "runners.metrics", "results", "yaml", "json")


def main() -> None:
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        attack = importlib.import_module("tests.fuzz.attack")
    target = attack.TARGETS[sys.argv.pop(1)]
    with TemporaryDirectory() as name:
        folder, corpus = Path(name) / "under-attack", Path(name) / "corpus"
        folder.mkdir()
        corpus.mkdir()
        for number, content in enumerate(target.corpus(folder)):
            (corpus / str(number)).write_bytes(content)

        def one(content: bytes) -> None:
            said = attack.judged(target, folder, content)
            if said:
                raise AssertionError(f"{said}; {content[:300]!r}")

        atheris.Setup([*sys.argv, str(corpus)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

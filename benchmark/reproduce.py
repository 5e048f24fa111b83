"""`benchmark reproduce`: train what is missing of a table of the paper, and hold the published numbers against it."""

from __future__ import annotations

import argparse
import json
import sys

from rich.markup import escape

from benchmark.run import carry_out, failures_of, outcome
from benchmark.show import console
from reports import render
from reports.paper import reproduction

__all__ = ["reproduce"]


def reproduce(options: argparse.Namespace) -> int:
    """Carries out the study of a table, then prints measured, published, difference and verdict; 1 if a run failed."""
    if options.noises and set(options.noises) != {"none"}:
        raise ValueError("the paper's tables are of clean labels; `benchmark run --noise` trains on noisy ones")
    done = carry_out(options)
    if isinstance(done, int):
        return done
    first = done.study.model_copy(update={"selections": done.study.selections[:1]})  # the first; others are measured
    cells = [(item.spec.loss, item.spec.backbone, item.spec.dataset) for item in done.planned]
    damaged: list[str] = []
    table = reproduction(outcome(first, done.planned, done.store, damaged), options.study, cells=cells)
    failures = failures_of(done.study, done.planned, done.store, done.told, damaged)
    if options.json:
        json.dump({"table": json.loads(render.to_json(table)), "failed": failures}, sys.stdout, indent=1)
        sys.stdout.write("\n")
        return 1 if failures else 0
    console.print()
    console.print(render.terminal(table, console.width))
    for label, reason in failures.items():
        console.print(f"[red]failed[/] {escape(label)}: {escape(reason)}", soft_wrap=True)
    return 1 if failures else 0

"""The table of outcomes by loss, at the end of more than the suite's few trials."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

_TOLD = ("killed", "file damaged", "disk full", "data broken", "cache spoilt", "two at once")
"""What may have happened, in the order of the columns."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line a loss: trials, what happened in them, and in how many the bits were those of an undisturbed run."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            told = dict(report.user_properties)
            if "loss" in told and report.when == "call":
                rows[told["loss"]].update({"trials": 1, "same bits": int(outcome == "passed")})
                rows[told["loss"]].update(told["faults"])
    if sum(row["trials"] for row in rows.values()) <= len(rows):
        return
    columns = ("trials", *_TOLD, "same bits")
    rows["all"] = sum((Counter(row) for row in list(rows.values())), Counter())
    terminalreporter.write_sep("=", "fault trials")
    terminalreporter.write_line(f"{'loss':10}" + "".join(f"{name:>14}" for name in columns))
    for loss, row in rows.items():
        terminalreporter.write_line(f"{loss:10}" + "".join(f"{row[name]:>14}" for name in columns))

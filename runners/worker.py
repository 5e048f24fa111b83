"""The process of one run: reads a job as JSON from standard input, writes progress as JSON lines to standard output.

Started by `runners.engines.process` as `python -m runners.worker`. A process of its own keeps a crash, a memory leak or
a signal inside one run, and lets the number of threads be set before torch is loaded.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

__all__ = ["main"]


def main() -> int:
    """Executes the job; the exit status is 0 if it is done, 1 if it failed."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Slurm sends it to all of a job's processes; its first one acts
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print belongs to the log

    def report(event: dict[str, Any]) -> None:
        try:
            events.write(json.dumps(event) + "\n")
        except BrokenPipeError:  # whoever started this process is gone: end as after Ctrl-C
            raise KeyboardInterrupt from None

    from runners.execute import execute
    from runners.job import Job

    return 0 if execute(Job.model_validate_json(sys.stdin.read()), report) else 1


def _stop(number: int, frame: object) -> None:
    """Ends like Ctrl-C: the claim is given back, the last checkpoint stays."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())

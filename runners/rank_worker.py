"""The process of one rank of a run beside the first: trains along on its part of each batch, and writes nothing.

Started by `runners.ranks` as `python -m runners.rank_worker`, the job as one line of JSON on standard input.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from torch import distributed

from runners.execute import take_part
from runners.job import Job
from runners.ranks import join

__all__ = ["main"]


def main() -> int:
    """Takes part in a job until rank 0 has enough of it, or is gone."""
    job, rank = Job.model_validate_json(sys.stdin.readline()), int(os.environ["RANK"])
    threading.Thread(target=_end_with_input, daemon=True).start()
    join(job, rank, Path(os.environ["CROWD_MEETING"]))
    take_part(job, rank)
    distributed.destroy_process_group()
    return 0


def _end_with_input() -> None:
    """Ends this process when its input does: rank 0 holds the other end, and is gone however it ended."""
    os.read(sys.stdin.fileno(), 1)  # not sys.stdin.read(), whose lock would be missing when Python ends
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())

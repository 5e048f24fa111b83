"""The process of one rank of a run beside the first: trains along on its part of each batch, and writes nothing.

Started by `runners.ranks` as `python -m runners.rank_worker`, the job as JSON on standard input.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from torch import distributed

from runners.execute import take_part
from runners.job import Job
from runners.ranks import join

__all__ = ["main"]


def main() -> int:
    """Takes part in a job until rank 0 has enough of it."""
    job, rank = Job.model_validate_json(sys.stdin.read()), int(os.environ["RANK"])
    join(job, rank, Path(os.environ["CROWD_MEETING"]))
    take_part(job, rank)
    distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())

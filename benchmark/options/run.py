"""`benchmark run`, `plan` and `reproduce`: what is compared, how it is trained, where."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmark.options.parser import Commands, command

__all__ = ["add_run"]

_EXAMPLES = """examples:
  benchmark run
  benchmark run --losses pml bl dm_count --backbones mobilenetv2 --datasets shanghaitech_b \\
                --data-root ~/data --weights mobilenetv2_100.safetensors --seeds 0 1 2 -j 2
  benchmark run --losses 'pml[count_norm=l2,tau=2]' pml --noise none uniform-px:8
  benchmark run --study table4 --data-root ~/data --dry-run"""


def add_run(commands: Commands) -> None:
    """Adds `run`, `plan` and `reproduce`, which share their options."""
    for name, text, action in (
        ("run", "train every combination of losses, networks, data, noise and seeds", "benchmark.run:run"),
        ("plan", "show what `run` would do, and do nothing", "benchmark.run:run"),
        (
            "reproduce",
            "train what is missing of a table of the paper, and hold the published numbers against it",
            "benchmark.reproduce:reproduce",
        ),
    ):
        run = command(commands, name, action, text, _EXAMPLES if name == "run" else "")
        run.usage = f"benchmark {name} {'TABLE ' if name == 'reproduce' else ''}[options]"
        run.set_defaults(dry_run=name == "plan")
        axes = run.add_argument_group("what is compared (each replaces that axis of the study)")
        if name == "reproduce":
            run.add_argument("study", choices=("table2", "table4"), metavar="TABLE", help="table2 or table4")
        else:
            axes.add_argument("--study", default=None, help="a built-in study or a YAML file (default: quick)")
        axes.add_argument("--losses", nargs="+", metavar="LOSS", help="names, parameters in brackets: pml[tau=2]")
        axes.add_argument("--backbones", nargs="+", metavar="NET", help="names, or timm:NAME")
        axes.add_argument("--datasets", nargs="+", metavar="DATA", help="names, parameters in brackets")
        axes.add_argument(
            "--noise", nargs="+", metavar="NOISE", dest="noises", help="none, uniform-px:8, missing:0.1, ..."
        )
        axes.add_argument("--seeds", nargs="+", type=int, metavar="N", help="of initialisation, order and crops")
        axes.add_argument("--noise-seed", type=int, metavar="N", help="of the wrong labels, shared by all losses (0)")
        axes.add_argument("--head", help="counting head: bl, pml, points, native")
        axes.add_argument("--stride", type=int, help="pixels per density cell")
        axes.add_argument("--weights", help="imagenet, none, or a file of pretrained features")
        axes.add_argument(
            "--select", nargs="+", choices=("val", "last", "test_oracle"), dest="selections",
            help="which epoch's weights are measured (default: val)",
        )  # fmt: skip
        axes.add_argument(
            "--localizers", nargs="+", metavar="LOC", help="score where people are: lm, otm, proposals (default: none)"
        )
        axes.add_argument("--radii", nargs="+", metavar="R", help="distances that are a hit: 4 8 sigma_l 0.5head 1:100")
        recipe = run.add_argument_group("how it is trained")
        recipe.add_argument("--recipe", choices=("shared", "official", "tuned"), help="see `benchmark list recipes`")
        recipe.add_argument("--budget", type=int, metavar="N", help="trials of the tuned recipe, for every loss (9)")
        recipe.add_argument("--epochs", type=int, metavar="N", help="passes over the training images (shared: 100)")
        recipe.add_argument("--batch-size", type=int, metavar="N", help="crops a step (shared: 8)")
        recipe.add_argument("--crop", type=int, metavar="PX", help="side of a training crop (shared: 256)")
        recipe.add_argument(
            "--scale", type=float, nargs=2, metavar=("LOW", "HIGH"), help="random scale (shared: 0.75 1.33)"
        )
        recipe.add_argument("--lr", type=float, help="peak learning rate (shared: 1e-4)")
        recipe.add_argument("--backbone-lr", type=float, metavar="X", help="as a multiple of --lr")
        recipe.add_argument("--weight-decay", type=float, metavar="X", help="(shared: 1e-4)")
        recipe.add_argument("--optimizer", choices=("adam", "adamw"), help="(shared: adamw)")
        recipe.add_argument(
            "--schedule", choices=("constant", "cosine", "exponential"), help="after 5 %% of warm-up (shared: cosine)"
        )
        recipe.add_argument(
            "--precision", choices=("float32", "bf16"), help="of the network in training; losses stay in float32"
        )
        recipe.add_argument("--val-interval", type=int, metavar="N", help="epochs between validations")
        here = run.add_argument_group("where")
        here.add_argument("-o", "--output", type=Path, default=Path("runs"), help="the store (default: runs)")
        here.add_argument("--data-root", type=Path, help="folder of the datasets (default: $CROWD_DATA, ./data)")
        here.add_argument("--cache-dir", type=Path, help="folder of prepared images (default: $CROWD_CACHE, ~/.cache)")
        if name == "plan":
            run.add_argument("--json", action="store_true", help="for machines")
            continue
        here.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
        here.add_argument("-j", "--jobs", type=int, help="runs at once (default: one a core, or --runs-per-gpu)")
        here.add_argument(
            "--runs-per-gpu", metavar="N", help="that share a GPU; auto (default): as its memory allows. Ray: 1"
        )
        here.add_argument(
            "--ranks", type=int, default=1, metavar="N",
            help="processes that share each run's batches, a GPU each (DistributedDataParallel; default: 1)",
        )  # fmt: skip
        here.add_argument("--threads", type=int, default=1, help="CPU threads of each run (default: 1)")
        here.add_argument("--workers", type=int, default=None, help="data-loading processes of each run")
        here.add_argument("--tracker", choices=("tensorboard", "wandb", "mlflow"), help="log there as well")
        _add_engines(run)
        run.add_argument("--dry-run", action="store_true", help="show the plan and stop")
        run.add_argument(
            "--resume", action=argparse.BooleanOptionalAction, default=True,
            help="go on with interrupted runs from their last checkpoint (default), or start them afresh",
        )  # fmt: skip
        run.add_argument("--retry-failed", action="store_true", help="try failed runs again")
        run.add_argument("--json", action="store_true", help="print the resulting table for machines")


def _add_engines(run: argparse.ArgumentParser) -> None:
    """Which engine runs are given to, and what each wants to know. What is not typed is None: engines have defaults."""
    engine = run.add_argument_group("on more than this machine")
    engine.add_argument("--engine", choices=("local", "ray", "slurm"), default="local", help="default: local processes")
    engine.add_argument(
        "--cpus-per-run", type=int, metavar="N", help="cores that Ray or Slurm gives a run (--threads plus --workers)"
    )
    engine.add_argument(
        "--ray-address", metavar="ADDRESS", help="auto or HOST:PORT of a cluster (default: one is started here)"
    )
    engine.add_argument("--slurm-partition", metavar="NAME", help="(default: the cluster's)")
    engine.add_argument("--slurm-time", type=int, metavar="MIN", help="of a job; a run may take several (default: 240)")
    engine.add_argument("--slurm-mem", metavar="MEM", help="memory of a job: 16G (default: the partition's)")
    engine.add_argument("--slurm-setup", nargs="+", metavar="LINE", help="shell lines before a job's command")
    engine.add_argument(
        "--slurm-options", nargs="+", metavar="NAME=VALUE", help="others of sbatch: account=lab gpus-per-node=a100:1"
    )

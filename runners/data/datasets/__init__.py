"""The datasets: one file each, found by its name. `base.py` and files with a leading underscore are shared parts."""

"""What each command takes: argparse only, so that `benchmark --help` answers at once."""

"""`benchmark evaluate`: predicted points against ground truth."""

"""`benchmark explain`: what each loss asks of a prediction, on a scene that one can take in at a glance."""

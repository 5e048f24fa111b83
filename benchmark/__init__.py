"""The front door: names, plans, studies and the command line. Nothing here imports torch before a run is planned."""

"""Faults in small real trainings, and what a detector makes of them. Run as `python -m benches.faults`."""

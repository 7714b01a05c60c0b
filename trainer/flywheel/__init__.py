"""The flywheel: what was recorded since the last run becomes a promoted, or refused, adapter.

settings    flywheel.yaml: domains, where their traffic is, when to run, who is asked
state       a run's directory and its manifest
run         the life of a run, top to bottom: read this file first
steps       what a run does, each step from one directory to another
triggers    when a run is due
chronicle   what became of the runs, for people
"""

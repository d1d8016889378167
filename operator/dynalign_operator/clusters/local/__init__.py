"""Runs in a folder and stages as subprocesses of this machine."""

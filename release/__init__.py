"""Cutting a release: one version, a changelog section, and everything that is published built and checked."""

"""What the operator and the stages agree on: stages, configuration, layout, records, manifests, results.

Pydantic and pyarrow only. The operator and a laptop are two callers of the same stages; both import this package and
neither imports the other (docs/design.md, "Packages and boundaries").
"""

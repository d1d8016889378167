"""Generated files: the CRD and the reference pages."""

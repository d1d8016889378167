"""The API `dynalign.io`: models, and the CustomResourceDefinition generated from them."""

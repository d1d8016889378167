"""`python -m dynalign_operator`."""

from dynalign_operator.main import main

main()

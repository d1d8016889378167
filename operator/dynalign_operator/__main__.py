"""`python -m dynalign_operator`."""

from dynalign_operator.service.main import main

main()

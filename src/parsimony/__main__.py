"""`python -m parsimony`: the same as the command `parsimony`."""

from parsimony.cli import main

main()

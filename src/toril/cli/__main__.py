"""`python -m toril.cli`, where the `toril` script is not on the PATH."""

from toril.cli import main

main()

"""What the Makefile runs: the demo, and the files that are generated from declarations."""

"""`edge-app bench`: how fast the levels are here, beside what one would otherwise use."""

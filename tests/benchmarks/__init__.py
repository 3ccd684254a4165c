"""What podkit costs, beside the plain Docker SDK. Run by `scripts/bench.sh`, never by pytest."""

"""A million frames for both ends of a channel: `python -m tests.trust.fuzz [--frames N] [--seed N]`."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.support.fuzz import fuzz_agent, fuzz_host


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--program", type=Path, help="another build of the agent, such as one with sanitizers")
    parser.add_argument("--most-mib", type=int, default=8, help="how much memory the agent may take")
    options = parser.parse_args()
    # what is found ends the program
    print("podkit's end:", fuzz_host(options.frames, options.seed), flush=True)
    agent = fuzz_agent(options.frames, options.seed, program=options.program, most_bytes=options.most_mib << 20)
    print("the agent's end:", agent)


if __name__ == "__main__":
    main()

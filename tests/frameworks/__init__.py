"""podkit behind two agent frameworks, tried by the frameworks' own conformance suites.

Not part of the test runs: the frameworks are large, and need an environment of their own.

    python -m venv /tmp/frameworks
    /tmp/frameworks/bin/pip install . inspect_ai langchain-tests deepagents pytest-asyncio
    cd tests/frameworks
    /tmp/frameworks/bin/python -m pytest -c /dev/null --asyncio-mode auto check_*.py

`PODKIT_DEFAULT_IMAGE` must be a Debian with Python. What came of it the last time:

- inspect_ai 0.3.285: 88 cases, 84 pass, 4 cannot for the reasons that stand there.
- deepagents 0.7.32, langchain-tests 1.1.9: 86 cases, 79 pass. Of the others, six hold the framework's own `glob` to
  names where it gives whole paths by now, and one its `write` to a refusal that it does not make any more.
"""

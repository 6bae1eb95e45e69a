"""One file per command: it checks the inputs, calls the steps in order, and returns a report."""

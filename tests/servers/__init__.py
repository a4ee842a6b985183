"""Local servers that stand in for the ones on the internet, with faults on request."""

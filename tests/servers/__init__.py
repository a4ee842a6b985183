"""Provide local stand-ins for internet servers, with faults on request."""

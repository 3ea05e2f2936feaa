"""Operator-visible events with stable MESSAGE_IDs, one module per area.

To add an event, declare it in the module of its area and run `make generate`, which updates the journal catalog.
"""

"""Wakes nodes that sleep, by Wake-on-LAN, when tasks or operators need them."""

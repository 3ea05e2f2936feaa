"""Fake engines that speak the documented wire formats over real sockets, including failures."""

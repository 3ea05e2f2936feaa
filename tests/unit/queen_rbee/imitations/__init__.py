"""Programs that speak the documented wire formats of engines over real sockets, their failures included."""

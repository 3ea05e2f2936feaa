"""A daemon as systemd sees it: notifications, inherited sockets, the watchdog, signals and exit codes."""

"""pool-managerd's HTTP handlers: thin, all knowledge is the registry's."""

"""The control plane: takes inference tasks over HTTP, queues, places and streams them."""

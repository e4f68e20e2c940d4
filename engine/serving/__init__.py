"""Who runs a request, and how it travels. Empty: the client is needed before the first paint."""

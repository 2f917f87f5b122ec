"""GraphQL over HTTP and websocket: parsing, guards, execution and caches; knows no feature."""

"""Configuration as code: the catalog in YAML files, compared with what is there, applied and exported."""

"""Guest configuration files, in xl's grammar or as xm's Python, read into a DomainConfig."""

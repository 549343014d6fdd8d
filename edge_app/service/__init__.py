"""Running as a service: telling systemd how it goes, and the unit file."""

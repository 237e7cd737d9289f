"""llamarig-exporter: what cards and host measure, for Prometheus."""
